"""The ways to keep the contract of a blind sum, a module or a folder for each.

A scheme knows the contract and the primitives; it must not know another scheme, nor what the
vectors mean. A module or folder in here that defines a `Protocol` is a protocol of the project:
nothing else has to name it.
"""
