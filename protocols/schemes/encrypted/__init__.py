"""`ckks` and `bfv`: sums of ciphertexts, which a key holder verifies and opens once.

Read `protocol`, `parameters`, `messages`, `client`, `server`, `key_holder`, `chunks`, `seal`, in
this order. It must not know what the vector means, nor how messages travel.
"""

from protocols.schemes.encrypted.protocol import Bfv, Ckks

__all__ = ["Bfv", "Ckks"]
