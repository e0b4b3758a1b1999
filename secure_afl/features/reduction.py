"""Fewer dimensions before noise: a public linear map between the features and the quantiser."""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Wire, encode
from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser
from secure_afl.errors import ConfigError, DataError

MIN_DIMENSION = 8

# Fitted to three real data sets; any factor from 4 to 8 does about as well.
_ROWS_PER_NOISE = 4.0
# A reduction by less than this changed no accuracy that could be told from chance.
_LEAST_SHRINKAGE = 1.5
# Added to the eigenvalues before whitening, in units of their mean: axes of almost no variance
# would else be blown up.
_WHITENING_RIDGE = 0.01
# Of few features a row's own mean says something: without it scikit-learn's breast cancer, of 30,
# loses five points of AUC at ε = 1.
_LEAST_CENTRED = 128


class Reduction(Wire, frozen=True, eq=False):
    """Rows f become (f/‖f‖ − m)·B; the quantiser then brings them back to norm 1.

    It must not depend on any private row, or what it tells of that row is not in the account of the
    noise. All parties need the same one, bit for bit: `digest` goes into the session with that of
    the backbone. As a `Wire` struct it has a canonical encoding, so that one party can make it and
    hand it round.

    Attributes:
        mean: m, (d,) float64; zeros where rows are not centred.
        basis: B, (d, k) float64, 1 ≤ k ≤ d.

    Raises:
        ConfigError: shapes that do not fit, or numbers that are not finite.
    """

    mean: Floats
    basis: Floats

    def __post_init__(self) -> None:
        dim, k = self.basis.shape if self.basis.ndim == 2 else (0, 0)
        if not 1 <= k <= dim or self.mean.shape != (dim,):
            raise ConfigError(
                f"a reduction has mean {list(self.mean.shape)} and basis {list(self.basis.shape)}; "
                "allowed: [d] and [d, k] with 1 ≤ k ≤ d"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.basis).all()):
            raise ConfigError("a reduction holds NaN or infinity; allowed: finite numbers")

    def __repr__(self) -> str:
        return f"<Reduction {len(self.basis)} → {self.basis.shape[1]}>"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) of shapes and contents."""
        return hashlib.sha256(b"reduction" + encode(self)).digest()

    def apply(self, features: NDArray[np.floating]) -> Floats:
        """Reduce (n, d) features of any float dtype to (n, k) float64.

        The rows have no particular norm.

        Raises:
            DataError: another width, or a row that is not finite.
        """
        if features.ndim != 2 or features.shape[1] != len(self.basis):
            raise DataError(
                f"features are {list(features.shape)}; this reduction wants "
                f"[n, {len(self.basis)}]: use the backbone that it was made for"
            )
        reduced: Floats = (_unit_rows(features) - self.mean) @ self.basis
        return reduced

    def then(self, after: "Reduction") -> "Reduction":
        """Return one map that does this and then another, which has no mean.

        Rows are not brought to norm 1 between, which turns none.

        Raises:
            ConfigError: widths that do not fit, or a mean of `after`.
        """
        if after.mean.any() or len(after.mean) != self.basis.shape[1]:
            raise ConfigError(
                f"a reduction of {len(after.mean)} features after one to {self.basis.shape[1]}; "
                "allowed: equal widths, and no mean"
            )
        return Reduction(self.mean, self.basis @ after.basis)

    def fold(self, weights: Floats) -> tuple[Floats, Floats]:
        """Fold a linear model of reduced rows into one of features: BW and mᵀBW.

        The scores (f/‖f‖)·BW − mᵀBW are those of the reduced row before it is brought to norm 1,
        which changes all scores of a row alike, and so no prediction.

        Args:
            weights: W, (k, C).

        Returns:
            Weights (d, C) and offset (C,), as `LinearModel` takes them.
        """
        folded: Floats = self.basis @ weights
        return folded, self.mean @ folded


def random_reduction(dim: int, k: int, seed: int, centred: bool = False) -> Reduction:
    """Make a random projection from `dim` to `k` dimensions, which looks at no data.

    Every entry of the basis is a random sign, which keeps lengths and angles as well as a Gaussian
    draw does (Achlioptas 2003, J. Comput. Syst. Sci. 66), and is the same on every machine to the
    last bit.

    Args:
        dim: d ≥ 1.
        k: 1 to d.
        seed: ≥ 0.
        centred: each row is taken less the mean of its own entries first, which needs no other
            row: features of one sign else have most of their length in common. All d dimensions
            are then kept as they are, without signs.

    Raises:
        ConfigError: a value out of range.
    """
    _check_dimension(k, dim)
    if seed < 0:
        raise ConfigError(f"seed {seed} of the reduction is negative; give 0 or more")
    if centred and k == dim:
        basis = np.eye(dim)
    else:
        basis = np.random.default_rng(seed).choice([-1.0, 1.0], (dim, k))
    if centred:
        basis -= basis.mean(axis=0)
    return Reduction(np.zeros(dim), basis)


def reduction_at_random(dim: int, k: int, seed: int, *, centred: bool) -> Reduction | None:
    """Make `random_reduction` where it does anything; None leaves rows as they are.

    Args:
        dim, k, seed, centred: as there. Fewer than 128 features are not centred, for in a table
            of a few columns the mean of a row says something.
    """
    centred = centred and dim >= _LEAST_CENTRED
    return random_reduction(dim, k, seed, centred) if centred or k != dim else None


def public_reduction(
    public: NDArray[np.floating], k: int, centre: bool = True, whiten: float = 0.0
) -> Reduction:
    """Find the principal axes of features that the user declares public.

    Rows are normalised and, if asked, centred; the k eigenvectors of their covariance with the
    greatest eigenvalues v become the basis, each divided by v^whiten.

    Public data of the private rows' own kind help most (17 points at ε = 1 on photographs of hand
    signs, with a quarter of them public), and want no whitening: it lifts the axes that tell
    little. A basis from images of another kind does no better than a random projection, and a power
    of ¼ then gains up to two points.

    Eigenvectors differ between machines in their last bits: one party makes the reduction, and the
    others take it from there.

    Args:
        public: (p, d), any float dtype, of the same backbone as the private rows, p > k.
        k: 1 to d.
        centre: subtract the mean of the public rows.
        whiten: 0 (not at all) to 0.5 (fully).

    Raises:
        ConfigError: a value out of range, or too few public rows for k axes.
        DataError: a row that is not finite.
    """
    from scipy.linalg import eigh

    if public.ndim != 2:
        raise ConfigError(f"public features are {list(public.shape)}, allowed: [p, d]")
    _check_dimension(k, public.shape[1])
    if len(public) <= k:
        raise ConfigError(
            f"{len(public)} public rows for {k} dimensions; allowed: more rows than dimensions. "
            "Give more public data, or a smaller dimension."
        )
    if not 0 <= whiten <= 0.5:
        raise ConfigError(f"whiten is {whiten}, allowed: 0..0.5")
    rows = _unit_rows(public)
    mean: Floats = rows.mean(axis=0) if centre else np.zeros(rows.shape[1])
    rows -= mean
    dim = rows.shape[1]
    values, vectors = eigh(rows.T @ rows / len(rows), subset_by_index=[dim - k, dim - 1])
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    if values[0] <= np.finfo(float).eps:
        raise ConfigError("the public rows are all alike and span nothing; give other public data")
    weights = (values + _WHITENING_RIDGE * values.mean()) ** -whiten
    # An eigenvector's sign means nothing; this one is the same on every machine.
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(k)])
    return Reduction(mean, np.ascontiguousarray(vectors * (signs * weights)))


def choose_dimension(total_rows: int, gram_noise: float, dim: int) -> int:
    """Choose the number of dimensions to keep under noise, from public numbers only.

    N rows of norm 1 leave about N/k in each of k directions, while the noise on a (k, k) Gram
    matrix has the spectral norm √2·σ_G·√k: it grows as the signal of a direction thins. They meet
    at k ∝ (N/σ_G)^(2/3). Variance gathers in the leading directions, which pays for more:

        k = (4·N/σ_G)^(2/3),

    with the factor fitted to random projections of real data, at least 8, and all dimensions where
    there are less than 1.5 times as many. On PneumoniaMNIST, hand signs and handwritten digits (N =
    1,438 to 4,708, ε = 0.1 to 8) that falls 1.1 points short of the best dimension in hindsight on
    average, 3.3 at most. A bound of twice the rows costs half a point more. From ε = 1 on, all
    dimensions do about as well, and what a random projection saves is bytes: they grow with k².

    Args:
        total_rows: N ≥ 1, a public bound; never the number of rows itself, which is private.
        gram_noise: σ_G ≥ 0 for rows of norm 1, that of the Gram matrix's diagonal.
        dim: d ≥ 1.

    Returns:
        k in 8..d, or d where d < 8 or where no reduction is called for.

    Raises:
        ConfigError: a value out of range.
    """
    if total_rows < 1:
        raise ConfigError(f"total_rows is {total_rows}, allowed: ≥ 1")
    if not 0 <= gram_noise < math.inf:
        raise ConfigError(f"gram_noise is {gram_noise}, allowed: finite and ≥ 0")
    if dim < 1:
        raise ConfigError(f"dim is {dim}, allowed: ≥ 1")
    if gram_noise * dim**1.5 <= _ROWS_PER_NOISE * total_rows:
        return dim
    wanted = math.floor(math.pow(_ROWS_PER_NOISE * total_rows / gram_noise, 2 / 3))
    k = max(wanted, MIN_DIMENSION)
    return dim if _LEAST_SHRINKAGE * k >= dim else k


def _unit_rows(features: NDArray[np.floating]) -> Floats:
    # What the quantiser approximates at any number of bits.
    return Quantiser(MAX_BITS).scaled(features)


def _check_dimension(k: int, dim: int) -> None:
    if not 1 <= k <= dim:
        raise ConfigError(f"dimension is {k}, allowed: 1..{dim}")
