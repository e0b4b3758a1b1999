"""`additive`: secret sharing among aggregators, of whom one honest one suffices.

Read `protocol`, `messages`, `client`, `aggregator`, in this order. It must not know what the
vector means, nor how messages travel.
"""

from protocols.schemes.additive.protocol import Additive

__all__ = ["Additive"]
