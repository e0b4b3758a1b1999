"""Kinds of filters: from a layer's sums to its filters, found by the registry in `kind`.

A module in here that defines a `FilterKind` is one of the project: nothing else has to name it. It
must not know who formed the sums.
"""
