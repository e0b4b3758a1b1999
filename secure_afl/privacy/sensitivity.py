"""How far one neighbour can move a sum, and how noise spreads over the sum's blocks.

All blocks are measured in one geometry: a difference is divided, block by block, by the block's
noise relative to σ, so that one σ and one Δ tell the privacy of the whole vector, μ = Δ/σ.
"""

import math
from typing import Literal, NamedTuple, TypeAlias, get_args

from protocols.codec import Wire
from secure_afl.analytic.statistics import MAX_CLIENT_ROWS, SQUARES
from secure_afl.checks import check_type, number, positive, whole
from secure_afl.errors import ConfigError

Unit: TypeAlias = Literal["example", "patient", "client"]
Neighbours: TypeAlias = Literal["add-remove", "replace-one"]

# A wider range than anybody needs, in which no square overflows.
MAX_WEIGHT = 1e6
MAX_BOUND = 2**24
MAX_UPDATE_BITS = 30


class Sensitivity(Wire, frozen=True):
    """Sensitivity of a sum that is released with Gaussian noise.

    Attributes:
        joint: Δ, the greatest norm of a difference between neighbours in which every block is
            divided by its `relative`; in integer units.
        relative: for each block the standard deviation of its noise in units of σ, > 0; or 0 for a
            public constant, which needs none. A block that is not named must not be released.
        spend: μ of this sum in units of the μ that every sum of the run has on average, > 0. Over
            the sums of a run the squares of it add up to their number at most.

    Raises:
        ConfigError: a number that is not finite and positive, or a block named twice.
    """

    joint: float
    relative: tuple[tuple[str, float], ...]
    spend: float = 1.0

    def __post_init__(self) -> None:
        positive("joint sensitivity", self.joint)
        positive("spend", self.spend)
        check_type("relative", self.relative, tuple)
        for pair in self.relative:
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
                raise ConfigError(
                    f"relative holds {pair!r}, allowed: pairs of a block and a number"
                )
            name, relative = pair
            if relative != 0:
                positive(f"relative noise of block '{name}'", relative)
        if len(dict(self.relative)) < len(self.relative):
            raise ConfigError("a block has two relative noises; name every block once")


def statistics_sensitivity(
    bound: int,
    unit: Unit,
    neighbours: Neighbours,
    max_rows: int,
    cross_weight: float = 0.8,
    counts_weight: float | None = None,
    non_negative: bool = False,
    label_scale: int = 1,
    count_scale: int = 1,
    squares_weight: float | None = None,
) -> Sensitivity:
    """Bound the sensitivity of Gram matrix, cross term and, if asked for, counts and squares.

    With B = `bound`, w = `cross_weight`, v = `counts_weight` (0 for none), u = `squares_weight` (0
    for none) and k = 1 + u², one example has
    add-remove:               B²·√(k + w² + v²)
    replace-one, w² ≤ 2k:     B²·max((2k + w²)/√(2k), √(2k + 2w² + 2v²))
    replace-one, w² > 2k:     B²·2w, without counts
    replace-one, rows ≥ 0:    B²·√(2k + 2w² + 2v²)
    each of which some pair of rows reaches: a row of norm B and nothing; two of the same label at
    an inner product of −w²B²/2k, or at orthogonal directions with different labels; a row and its
    opposite; two orthogonal ones. An off-diagonal entry of the Gram matrix is sent once but stands
    for two, and so has half the variance of a diagonal one. Squares by class differ by no more than
    the Gram matrix where labels are alike, for then they are its diagonal; rows along axes, or
    (a, b) and (b, a), have all of their difference there: k stands for 1 in both.

    One patient of m rows has no more than one example: each row has norm ≤ B/√m and a label
    a ≤ A/√m, so that the patient's part is a mean of parts of single rows, of norm √m·‖f‖ ≤ B and
    label √m·a ≤ A. A distance is convex in either end, so that means are no further apart than two
    single rows. The bounds hold for labels below A, too: docs/privacy.md has the proof.

    One client has `max_rows` times as much, which equal rows reach. *add-remove* keeps the client
    on the roster, which is public, and sets its sums to zero. *replace-one* exchanges its rows one
    after the other for other rows; where the new ones are fewer or more, some steps only remove or
    add one, which is less than replacing it.

    Args:
        bound: B, the greatest integer norm of a row (with a bias column, of both), 1 to 2^24.
        unit: whose presence or data the noise hides.
        neighbours: add or remove one unit, or replace one by another.
        max_rows: public bound on the rows of one client; of no consequence for other units.
        cross_weight: w, the cross term's μ in units of the Gram matrix's, > 0.
        counts_weight: v, the same of the class counts; None releases no counts.
        non_negative: no entry of a row is below zero. Not so after centring or projection.
        label_scale: A ≥ 1, what the label of a row of weight 1 is.
        count_scale: a ≥ 1, what counts are multiplied by.
        squares_weight: u, the μ of squares by class; None releases none.

    Returns:
        Blocks of `statistics_layout`: the diagonal has relative noise 1, the upper triangle 1/√2,
        `cross` A/(B·w), `counts` a·A²/(B²·v), `squares` 1/u. Rounding errors, about
        1e-15, are within the margin of `accounting`.

    Raises:
        ConfigError: a number out of range; or signed rows, counts and w² > 2 under replace-one.
    """
    _check_choice("unit", unit, get_args(Unit))
    _check_choice("neighbours", neighbours, get_args(Neighbours))
    whole("bound", bound, 1, MAX_BOUND)
    whole("max_rows", max_rows, 1, MAX_CLIENT_ROWS)
    whole("label_scale", label_scale, 1, MAX_BOUND)
    whole("count_scale", count_scale, 1, MAX_BOUND)
    number("cross_weight", cross_weight, 1 / MAX_WEIGHT, MAX_WEIGHT)
    if counts_weight is not None:
        number("counts_weight", counts_weight, 1 / MAX_WEIGHT, MAX_WEIGHT)
    if squares_weight is not None:
        number("squares_weight", squares_weight, 1 / MAX_WEIGHT, MAX_WEIGHT)
    weights = cross_weight, counts_weight, squares_weight
    row = bound**2 * _unit_row(*weights, neighbours, non_negative)
    relative = [
        ("gram_diagonal", 1.0),
        ("gram_upper", math.sqrt(0.5)),
        ("cross", label_scale / (bound * cross_weight)),
    ]
    if counts_weight is not None:
        relative.append(("counts", count_scale * label_scale**2 / (bound**2 * counts_weight)))
    if squares_weight is not None:
        relative.append((SQUARES, 1 / squares_weight))
    return Sensitivity(row * (max_rows if unit == "client" else 1), tuple(relative))


class RegressionWeights(NamedTuple):
    """μ of each block of regression's sums in units of the Gram matrix's, each > 0.

    The defaults satisfy what `regression_sensitivity` asks of them.
    """

    cross: float = 0.8
    sums: float = 0.4
    rows: float = 0.2
    target_sum: float = 0.25
    target_squares: float = 0.3


REGRESSION_WEIGHTS = RegressionWeights()


def regression_sensitivity(
    bound: int,
    reach: int,
    mark: int,
    unit: Unit,
    neighbours: Neighbours,
    max_rows: int,
    weights: RegressionWeights = REGRESSION_WEIGHTS,
) -> Sensitivity:
    """Bound the sensitivity of all second moments of (x | A | t), blocks of `regression_layout`.

    With b, a, n, e and q the squared weights of Xᵀt, Σx, N, Σt and Σt², in units of B², one
    example has

        add-remove:    √(1 + a + b + n + e + q)
        replace-one:   √max(2 + 2a + 2b + (a + b)²/2, 2 + 2a + 2b + (a − b)²/2 + 4e)

    where a + b ≤ 2 and 2q ≤ b + b²/2. *Proof.* Of rows (x, t) and (y, u) in units of B and T, with
    c = xᵀy, the squared distance is ‖x‖⁴ + ‖y‖⁴ − 2c² + a‖x − y‖² + b‖xt − yu‖² + e(t − u)² +
    q(t² − u²)². It grows with ‖x‖ and ‖y‖ at fixed c, so both are 1; and with (t, u) at a fixed
    ratio, so that by symmetry t = 1. In c it is concave, with its top at −(a + bu)/2 ≥ −1. There,
    as a function of u, its second derivative is ≥ 2(b + b²/2 + e − 2q) ≥ 0, so that u is 1 or −1. ∎
    Both are reached: by rows of one target, or of opposite ones, with that inner product.

    Rows of a patient have constants of size α ≤ 1 too, by the same argument 0 or 1 where 2n ≤
    a + a²/2; at 0 the squared distance is 2 + a + 2b + b²/2 + e + n. A patient's part is a mean of
    parts of single rows, so it moves the sum no further than these. A client has `max_rows` times
    as much as one row that comes, goes or changes.

    Args:
        bound: B, the greatest norm of a row, 1 to 2^24.
        reach, mark: T and A, the greatest size of a target and the constant, likewise.
        unit, neighbours, max_rows: as `statistics_sensitivity`.
        weights: of the blocks.

    Raises:
        ConfigError: a number out of range, or weights that the proof does not cover.
    """
    _check_choice("unit", unit, get_args(Unit))
    _check_choice("neighbours", neighbours, get_args(Neighbours))
    for name, size in (("bound", bound), ("reach", reach), ("mark", mark)):
        whole(name, size, 1, MAX_BOUND)
    whole("max_rows", max_rows, 1, MAX_CLIENT_ROWS)
    for name, weight in weights._asdict().items():
        number(name, weight, 1 / MAX_WEIGHT, MAX_WEIGHT)
    b, a, n, e, q = (weight**2 for weight in weights)
    if neighbours == "replace-one" and not (
        a + b <= 2 and 2 * q <= b + b**2 / 2 and 2 * n <= a + a**2 / 2
    ):
        raise ConfigError(
            f"{weights} under replace-one; allowed: a + b ≤ 2, 2q ≤ b + b²/2 and 2n ≤ a + a²/2 of "
            "the squared weights a of sums, b of cross, n of rows and q of target_squares"
        )
    one = 1 + a + b + n + e + q
    if neighbours == "replace-one":
        other = 2 + 2 * a + 2 * b + max((a + b) ** 2 / 2, (a - b) ** 2 / 2 + 4 * e)
        if unit == "patient":
            other = max(other, 2 + a + 2 * b + b**2 / 2 + e + n)
        # Of a client's rows some may come or go where it is another client's.
        one = max(one, other) if unit == "client" else other
    square = bound**2
    relative = (
        ("gram_diagonal", 1.0),
        ("gram_upper", math.sqrt(0.5)),
        ("cross", bound * reach / (square * weights.cross)),
        ("sums", bound * mark / (square * weights.sums)),
        ("rows", mark**2 / (square * weights.rows)),
        ("target_sum", reach * mark / (square * weights.target_sum)),
        ("target_squares", reach**2 / (square * weights.target_squares)),
    )
    rows = max_rows if unit == "client" else 1
    return Sensitivity(square * math.sqrt(one) * rows, relative)


def layer_sensitivity(
    energy: int,
    largest: int,
    unit: Unit,
    neighbours: Neighbours,
    max_rows: int,
    cross_weight: float = 0.8,
    spend: float = 1.0,
    weight: int = 1,
) -> Sensitivity:
    """Bound the sensitivity of a layer's sums over the patches x̂ of images, constants included.

    An image has patches of energy Σ‖x̂‖² ≤ A. Its Gram matrix Σx̂x̂ᵀ is positive semidefinite of trace
    ≤ A, so of Frobenius norm ≤ A; its sums by region have squares ≤ Σ_r |r|·Σ_{u∈r}‖x̂_u‖² ≤ m·A,
    with m positions in the largest region, by Cauchy and Schwarz. With w = `cross_weight`:

    add-remove:     A·√(1 + w²)
    replace-one:    A·√(2 + 4w²), for the inner product of semidefinite matrices is ≥ 0

    An image whose patches are all alike and lie in one region reaches the first; the constant is
    part of a patch, so that the number of images is hidden too. One client has `max_rows` times as
    much. One patient has no more than one image: with whole weights of at most W in all, its part
    is W times a mean of parts of single images and of nothing.

    Args:
        energy: A ≥ 1, in integer units.
        largest: m ≥ 1.
        unit, neighbours, max_rows: as `statistics_sensitivity`.
        cross_weight: w > 0, the region sums' μ in units of the Gram matrix's.
        spend: see `Sensitivity`.
        weight: W ≥ 1, that of a patient's images together; 1 for images without weights.

    Returns:
        Blocks of `layer_layout`: diagonal entries have relative noise 1, others of the Gram matrix
        1/√2, and sums by region √(m/A)/w.

    Raises:
        ConfigError: a number out of range.
    """
    _check_choice("unit", unit, get_args(Unit))
    _check_choice("neighbours", neighbours, get_args(Neighbours))
    whole("max_rows", max_rows, 1, MAX_CLIENT_ROWS)
    whole("energy", energy, 1)
    whole("largest", largest, 1)
    whole("weight", weight, 1, MAX_BOUND)
    w2 = number("cross_weight", cross_weight, 1 / MAX_WEIGHT, MAX_WEIGHT) ** 2
    image = weight * energy * math.sqrt(1 + w2 if neighbours == "add-remove" else 2 + 4 * w2)
    regions = math.sqrt(largest / energy) / cross_weight
    relative = (
        ("patch_diagonal", 1.0),
        ("patch_upper", math.sqrt(0.5)),
        ("patch_sums", math.sqrt(0.5)),
        ("positions", 1.0),
        ("region_sums", regions),
        ("region_masses", regions),
    )
    return Sensitivity(image * (max_rows if unit == "client" else 1), relative, spend)


def update_sensitivity(
    bits: int, unit: Unit, neighbours: Neighbours, beside: tuple[str, ...] = ()
) -> Sensitivity:
    """Bound the sensitivity of a sum of updates of integer norm ≤ 2^bits.

    Each update has weight 1. Blocks beside it, each of norm ≤ 2^bits too, make the whole √k times
    as long.

    A client that is removed stays on the roster and contributes zeros: 2^bits. One that is
    replaced moves its update by at most twice as much; and so does one example or one patient in
    either relation, for a client's training may turn on a single row. Weights of 1 add up to the
    public number of clients, and need no noise.

    Args:
        bits: of the update's quantiser, 1 to 30.
        beside: names of the k − 1 further blocks.

    Raises:
        ConfigError: a number or name out of range.
    """
    _check_choice("unit", unit, get_args(Unit))
    _check_choice("neighbours", neighbours, get_args(Neighbours))
    whole("bits", bits, 1, MAX_UPDATE_BITS)
    zeroed_out = unit == "client" and neighbours == "add-remove"
    joint = math.sqrt(1 + len(beside)) * (2**bits if zeroed_out else 2 * 2**bits)
    further = tuple((name, 1.0) for name in beside)
    return Sensitivity(joint, (("update", 1.0), ("weight", 0.0), *further))


def _unit_row(
    cross_weight: float,
    counts_weight: float | None,
    squares_weight: float | None,
    neighbours: Neighbours,
    non_negative: bool,
) -> float:
    """Return one example's sensitivity, in units of B²."""
    w2, v2 = cross_weight**2, (counts_weight or 0.0) ** 2
    k = 1 + (squares_weight or 0.0) ** 2
    if neighbours == "add-remove":
        return math.sqrt(k + w2 + v2)
    orthogonal = math.sqrt(2 * k + 2 * w2 + 2 * v2)
    if non_negative:
        return orthogonal
    if w2 <= 2 * k:
        return max((2 * k + w2) / math.sqrt(2 * k), orthogonal)
    if counts_weight is not None:
        most = "√2" if squares_weight is None else f"{math.sqrt(2 * k):.4g}"
        raise ConfigError(
            f"cross_weight is {cross_weight!r}, allowed: ≤ {most} with counts, signed rows and "
            "replace-one; take 0.8, or release no counts"
        )
    return 2 * cross_weight


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}, allowed: {', '.join(choices)}")
