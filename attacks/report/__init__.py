"""This room makes a self-contained page of a suite's results, and its matrices.

It must not know how cells come about: it reads `Results`, and runs nothing.
"""
