"""Heads: from a sum of statistics to a linear classifier, found by the registry in `head`.

A module in here that defines a `Head` is a head of the project: nothing else has to name it. It
must not know which method summed the statistics, nor who holds them.
"""
