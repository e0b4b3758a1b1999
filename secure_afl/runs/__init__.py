"""One run from settings to files, and saved models at work.

It must not know how settings were given, nor how a result is shown: the command line does.
"""
