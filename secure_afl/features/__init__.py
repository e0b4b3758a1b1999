"""Frozen backbones, the cache of their features, and public reductions to fewer dimensions.

It must not know clients, methods or protocols: examples go in, rows come out.
"""
