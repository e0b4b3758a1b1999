"""Convolutional layers by least squares: images to integer maps, patches to sums, sums to filters.

It must not know who holds the images, what carries the sums, or which head follows the layers.
"""
