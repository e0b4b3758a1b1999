"""From scores and labels to figures that people decide by, with their intervals.

It must not know which model made the scores, nor how rows became part of a sum.
"""
