"""Attacks on sums of statistics and on the models made from them.

They must not know more than a view and what they declare to assume.
"""
