"""Flower's own programs around the apps: certificates, processes, an operator's files, and a demo.

Nothing here sees rows or opens mail. It must not be imported where parties run.
"""
