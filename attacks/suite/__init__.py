"""Attacks × methods × protocols × adversaries × ε over a data set, cell by cell.

It must not know what a single attack does, nor how results are drawn.
"""
