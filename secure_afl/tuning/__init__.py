"""Accuracy against ε over many runs, beside DP-SGD, and the audit of the promise.

It must not know how a run works inside, nor the command line.
"""
