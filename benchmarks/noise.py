"""Exact discrete Gaussian noise: draws a second, beside OpenDP's sampler and bare AES-CTR.

python -m benchmarks.noise

One thread. Needs opendp. The bound is one AES-256-CTR pass over as many bytes as the proposals
take, into a buffer that is there already.
"""

from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import opendp.prelude as opendp
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.record import paired, write
from secure_afl.privacy.discrete_gaussian import Sampler, discrete_gaussian

SIGMAS = (2.0, 10.0, 1e3, 1e6, 1e9)
COUNT, PEER_COUNT = 1_000_000, 20_000
REPEATS = 7
ENTROPY = bytes(range(32))


def main() -> None:
    """Time every σ against both."""
    opendp.enable_features("contrib")
    write(
        "noise",
        {
            "what": "exact draws from the discrete Gaussian, one thread; tables of σ at hand",
            "opendp": version("opendp"),
            "draws": COUNT,
            "peer_draws": PEER_COUNT,
            "sigmas": {f"{sigma:g}": _figures(sigma) for sigma in SIGMAS},
        },
    )


def _figures(sigma: float) -> dict[str, object]:
    against_peer = paired(ours(sigma), peer(sigma), REPEATS)
    against_stream = paired(ours(sigma), _key_stream(sigma), 3 * REPEATS)
    scale = PEER_COUNT / COUNT  # the peer draws fewer
    return {
        "draws_per_second": COUNT / against_stream["ours_seconds"],
        "opendp_draws_per_second": PEER_COUNT / against_peer["peer_seconds"],
        "times_as_fast_as_opendp": 1 / (against_peer["ratio"] * scale),
        "against_key_stream": against_stream,
    }


def ours(sigma: float) -> Callable[[], object]:
    """`COUNT` draws."""
    return lambda: discrete_gaussian(sigma, COUNT, ENTROPY)


def peer(sigma: float) -> Callable[[], object]:
    """`PEER_COUNT` draws by OpenDP, whose features of `contrib` are switched on."""
    space = opendp.vector_domain(opendp.atom_domain(T="i64")), opendp.l2_distance(T=float)
    mechanism = opendp.m.make_gaussian(*space, scale=sigma)
    zeros = np.zeros(PEER_COUNT, dtype=np.int64).tolist()
    return lambda: mechanism(zeros)


def _key_stream(sigma: float) -> Callable[[], object]:
    words = 1 if Sampler(sigma, ENTROPY).step == 1 else 2
    zeros = bytes(8 * words * COUNT)
    stream = bytearray(len(zeros) + 15)

    def work() -> None:
        cipher = Cipher(algorithms.AES256(ENTROPY), modes.CTR(bytes(16)))
        cipher.encryptor().update_into(zeros, stream)

    return work


if __name__ == "__main__":
    main()
