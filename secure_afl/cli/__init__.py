"""The command line: one module for each group of commands.

It must not compute: it makes settings, calls the room that does the work, and prints.
"""
