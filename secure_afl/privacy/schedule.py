"""Number of steps, dimensions and step size of noisy gradient descent, by public numbers alone."""

import math
from dataclasses import dataclass

from secure_afl.checks import check_type, positive, whole
from secure_afl.privacy.accounting import mu_of
from secure_afl.privacy.mechanism import Privacy

MIN_STEPS, MAX_STEPS = 4, 24

CLIP = 0.4
"""c, the greatest norm of a row's residual softmax(xX) − y. Fitted."""

COUNTS_WEIGHT = 0.5
"""v, the class counts' μ in units of the row sum's. Fitted."""

# Fitted, with the two above, to PneumoniaMNIST, hand signs and handwritten digits.
_STEPS_PER_ROW = 0.2
_ROWS_PER_NOISE = 4.0
_RATE = 0.7
_MIN_DIMENSION = 32

# ½·N/C bounds the Hessian of balanced classes; beyond some multiple of 1/that, steps diverge.
_GREATEST_RATE = 30.0

# Rows that are not centred share a direction, along which steps overshoot sooner.
_GREATEST_BARE_RATE = 12.0

_RATE_BITS = 24


@dataclass(frozen=True)
class Schedule:
    """What follows from the promise and the declared rows for T gradient sums after the first.

    Attributes:
        steps: T, 4 to 24.
        dimension: k, features of a row after a public projection; d for none.
        rate: of a step, for the sum of the rows' gradients.

    Raises:
        ConfigError: a number out of range.
    """

    steps: int
    dimension: int
    rate: float

    def __post_init__(self) -> None:
        whole("steps", self.steps, 1, MAX_STEPS)
        whole("dimension", self.dimension, 1)
        positive("rate", self.rate)


def strength(privacy: Privacy, client_rows: int) -> float:
    """Return μ of the run, in which a row that comes or goes counts as 1.

    A row that becomes another counts as 2, and a client as twice or once as many as it may have.

    Raises:
        ConfigError: a number out of range.
    """
    check_type("privacy", privacy, Privacy)
    whole("client_rows", client_rows, 1)
    units = 2 if privacy.neighbours == "replace-one" else 1
    if privacy.unit == "client":
        units *= client_rows
    return mu_of(privacy.epsilon, privacy.delta) / units


def planned_steps(privacy: Privacy, total_rows: int, client_rows: int) -> int:
    """Return T = √(0.2·N·μ), at least 4, at most 24.

    In directions that are not fitted yet, T noisy gradients tell as much as one noisy cross term
    with all of the budget; those of large variance want more steps, which more rows pay for.

    Args:
        total_rows: N, the declared bound on all rows.
        client_rows: the greatest bound of one client.

    Raises:
        ConfigError: a number out of range.
    """
    whole("total_rows", total_rows, 1)
    wanted = math.sqrt(_STEPS_PER_ROW * total_rows * strength(privacy, client_rows))
    # Less a hair, so that machines whose powers differ in a last bit agree.
    return min(MAX_STEPS, max(MIN_STEPS, math.ceil(wanted - 1e-9)))


def schedule(
    privacy: Privacy,
    total_rows: int,
    client_rows: int,
    dim: int,
    classes: int,
    steps: int,
    *,
    centred: bool = True,
) -> Schedule:
    """Choose dimension and rate for T = `steps` gradient sums after one of rows and counts.

    With μ₀ = μ/√(T+1) for each sum, and z = √(1 + v²)/μ₀ the noise on an entry of the row sum:

        k = max(32, (N/4z)²)         where that is less than d
        rate = min(0.7·C·μ√(T/(T+1))/(T²c), 30·C/N)

    The sum of N rows has norm ≤ N and a noise of norm z√k, which k so keeps to a quarter. The first
    bound keeps the noise that steps add up to in proportion; the second guards against overshooting
    where T is at its cap. The first is rounded down to 24 bits, alike on all machines.

    Args:
        total_rows, client_rows: as `planned_steps`.
        dim: d.
        classes: C.
        centred: rows are less what they share; 12·C/N bounds the rate of those that are not.

    Raises:
        ConfigError: a number out of range.
    """
    whole("total_rows", total_rows, 1)
    whole("dim", dim, 1)
    whole("classes", classes, 1)
    whole("steps", steps, 1, MAX_STEPS)
    mu = strength(privacy, client_rows)
    noise = math.sqrt(1 + COUNTS_WEIGHT**2) * math.sqrt(steps + 1) / mu
    k = max(_MIN_DIMENSION, math.floor((total_rows / (_ROWS_PER_NOISE * noise)) ** 2))
    balanced = _RATE * classes * mu * math.sqrt(steps / (steps + 1)) / (steps**2 * CLIP)
    greatest = _GREATEST_RATE if centred else _GREATEST_BARE_RATE
    guard = greatest * classes / total_rows
    return Schedule(steps, min(k, dim), min(_shortened(balanced), guard))


def _shortened(number: float) -> float:
    """Return a number > 0 rounded down to 24 bits.

    Machines differ in the last bits of μ, and clients refuse a state that is another in any bit.
    """
    mantissa, exponent = math.frexp(number)
    return math.ldexp(math.floor(mantissa * (1 << _RATE_BITS)), exponent - _RATE_BITS)
