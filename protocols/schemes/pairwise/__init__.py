"""`pairwise`: masks between clients that cancel in the sum, around one server.

Read `protocol`, `parameters`, `graph`, `messages`, `keys`, `client`, `server`, in this order. It
must not know what the vector means, nor how messages travel.
"""

from protocols.schemes.pairwise.protocol import Pairwise

__all__ = ["Pairwise"]
