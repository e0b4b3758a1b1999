"""Attacks on encrypted sums, in which parties of the coalition lie.

They must not know more than a view and what they declare to assume.
"""
