"""Feature inversion: from a recovered feature back to the picture, through a frozen backbone.

It must not know more than a view and what its attacks declare to assume.
"""
