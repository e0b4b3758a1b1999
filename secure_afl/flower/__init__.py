"""Federations between sites over Flower: a server app, a client app, and the mail between them.

Flower carries sealed mail and starts processes. It must not know keys or data, nor say what
protects a site.
"""
