"""One HTML file about a run or an evaluation, which asks for nothing from anywhere.

It must not compute figures: it draws what reports hold, in words for people who did not run it.
"""
