"""Rows to exact integers, integers to statistics, statistics to a classifier.

It must not know who holds the rows, what carries the sum, or where rows come from.
"""
