"""Secret sharing: the RFC's vectors, and what every threshold scheme must do."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.primitives.shamir import ORDER, combine, is_share, split, weights

# RFC 9591, appendix E.5, FROST(secp256k1, SHA-256): MIN_PARTICIPANTS 2 of MAX_PARTICIPANTS 3.
RFC_SECRET = "0d004150d27c3bf2a42f312683d35fac7394b1e9e318249c1bfe7f0795a83114"
RFC_COEFFICIENT = "fbf85eadae3058ea14f19148bb72b45e4399c0b16028acaf0395c9b03c823579"
RFC_SHARES = {
    1: "08f89ffe80ac94dcb920c26f3f46140bfc7f95b493f8310f5fc1ea2b01f4254c",
    2: "04f0feac2edcedc6ce1253b7fab8c86b856a797f44d83d82a385554e6e401984",
    3: "00e95d59dd0d46b0e303e500b62b7ccb0e555d49f5b849f5e748c071da8c0dbc",
}

Elements = st.integers(0, ORDER - 1).map(lambda value: value.to_bytes(32, "big"))


def test_vectors_of_rfc_9591() -> None:
    shares = {point: bytes.fromhex(share) for point, share in RFC_SHARES.items()}
    secret, coefficient = bytes.fromhex(RFC_SECRET), bytes.fromhex(RFC_COEFFICIENT)
    assert split(secret, [coefficient], [1, 2, 3]) == list(shares.values())
    for left_out in shares:
        assert combine({p: s for p, s in shares.items() if p != left_out}) == secret
    assert combine(shares) == secret


@given(
    secret=Elements,
    coefficients=st.lists(Elements, max_size=12),
    points=st.lists(st.integers(1, 100_000), min_size=13, max_size=16, unique=True),
    seed=st.integers(0, 2**32),
)
def test_any_threshold_many_shares_open_the_secret(
    secret: bytes, coefficients: list[bytes], points: list[int], seed: int
) -> None:
    shares = dict(zip(points, split(secret, coefficients, points), strict=True))
    chosen = random.Random(seed).sample(points, len(coefficients) + 1)
    some = {point: shares[point] for point in chosen}
    assert combine(some) == secret
    assert combine(some, weights(chosen)) == secret
    assert combine(shares) == secret


@given(secret=Elements, other=Elements, coefficients=st.lists(Elements, min_size=1, max_size=6))
def test_fewer_shares_fit_every_secret(
    secret: bytes, other: bytes, coefficients: list[bytes]
) -> None:
    """Threshold − 1 shares, with some last share, open any other secret just as well."""
    threshold = len(coefficients) + 1
    points = list(range(1, threshold))
    shares = dict(zip(points, split(secret, coefficients, points), strict=True))
    # The one value at `threshold` for which these shares open `other`, solved from the weights.
    *factors, last = weights([*points, threshold])
    known = sum(int.from_bytes(s, "big") * w for s, w in zip(shares.values(), factors, strict=True))
    forged = (int.from_bytes(other, "big") - known) * pow(last, -1, ORDER) % ORDER
    assert combine(shares | {threshold: forged.to_bytes(32, "big")}) == other


def test_a_wrong_share_opens_something_else() -> None:
    secret = bytes(range(32))
    shares = dict(zip([1, 2, 3], split(secret, [bytes([7]) * 32] * 2, [1, 2, 3]), strict=True))
    assert combine(shares | {2: shares[1]}) != secret


def test_what_is_no_element_is_refused() -> None:
    too_large = ORDER.to_bytes(32, "big")
    for bad in (too_large, bytes(31), bytes(33), b""):
        assert not is_share(bad)
        with pytest.raises(ValueError, match="element"):
            combine({1: bad})
        with pytest.raises(ValueError, match="element"):
            split(bad, [], [1])
    assert is_share((ORDER - 1).to_bytes(32, "big"))
    for points in ([0], [1, 1], [ORDER], [-1]):
        with pytest.raises(ValueError, match="points"):
            split(bytes(32), [bytes(32)], points)
