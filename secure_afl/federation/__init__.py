"""The client's half, the server's half, their keys, and the simulation that joins them.

It must not know files of data, backbones or flags: it begins with rows and declared bounds.
"""
