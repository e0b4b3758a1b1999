"""Shamir's secret sharing of 32-byte secrets, as RFC 9591 specifies it.

The scheme is that of RFC 9591 (FROST), appendix C.1, over the scalar field of secp256k1, the
smallest of the RFC's fields that holds 32 random bytes but for a chance of 2^-128. The source of
trust is the RFC's own test vectors, which the tests reproduce; no library on the package index
shares 32 bytes in one piece by a published specification. Python's integers do not run in constant
time: whoever measures a party's time from within its machine is not kept out here.
"""

from collections.abc import Mapping, Sequence

# Order of the secp256k1 group (SEC 2, section 2.4.1).
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SHARE_BYTES = 32


def split(secret: bytes, coefficients: Sequence[bytes], points: Sequence[int]) -> list[bytes]:
    """Split a secret into shares at these points.

    RFC 9591, secret_share_shard and polynomial_evaluate.

    Args:
        secret: 32 bytes, big-endian, below the field's order.
        coefficients: threshold − 1 uniform 32-byte strings, lowest degree first; used once.
        points: distinct, 1 ≤ point < order; what a holder is known by.

    Raises:
        ValueError: secret or point out of range.
    """
    constant = _element(secret)
    if len(set(points)) != len(points) or not all(0 < point < ORDER for point in points):
        raise ValueError("points of shares must be distinct and positive")
    # Uniform up to a bias of 2^-128.
    descending = [int.from_bytes(c, "big") % ORDER for c in reversed(coefficients)]
    shares = []
    for point in points:
        value = 0
        for coefficient in descending:
            value = value * point + coefficient
        shares.append((value * point + constant) % ORDER)
    return [share.to_bytes(SHARE_BYTES, "big") for share in shares]


def weights(points: Sequence[int]) -> list[int]:
    """Return what each share counts in the secret (RFC 9591, derive_interpolating_value).

    The same for every secret that the same holders open: worth keeping.
    """
    result = []
    for point in points:
        numerator = denominator = 1
        for other in points:
            if other != point:
                numerator = numerator * other % ORDER
                denominator = denominator * (other - point) % ORDER
        result.append(numerator * pow(denominator, -1, ORDER) % ORDER)
    return result


def combine(shares: Mapping[int, bytes], weights_of_points: Sequence[int] | None = None) -> bytes:
    """Return the secret of at least threshold shares, by point.

    RFC 9591, secret_share_combine.

    With fewer, or with a wrong one, it is some other 32 bytes: whoever combines must check.

    Args:
        shares: point to share.
        weights_of_points: `weights` of the points in the mapping's order, where already known.

    Raises:
        ValueError: a share that is no element of the field.
    """
    factors = weights(list(shares)) if weights_of_points is None else weights_of_points
    total = sum(_element(s) * w for s, w in zip(shares.values(), factors, strict=True))
    return (total % ORDER).to_bytes(SHARE_BYTES, "big")


def is_share(data: bytes) -> bool:
    """Say whether these bytes are an element of the field.

    An element has 32 bytes and is below the field's order.
    """
    return len(data) == SHARE_BYTES and int.from_bytes(data, "big") < ORDER


def _element(data: bytes) -> int:
    if not is_share(data):
        raise ValueError("not an element of the field")
    return int.from_bytes(data, "big")
