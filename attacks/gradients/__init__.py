"""Gradient inversion: from an update of training back to rows and pictures.

It must not know more than a view and what its attacks declare to assume.
"""
