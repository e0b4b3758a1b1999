"""Tables of columns, from CSV, Parquet or frames to rows of numbers, by a data dictionary.

It must not know methods: it ends where features with public scales begin.
"""
