"""How well an attack did: rates with intervals, and distances between images.

It must not know attacks or views: claims and truths go in, measures come out.
"""
