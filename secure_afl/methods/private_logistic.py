"""Logistic regression under noise: a few Newton steps, and intervals that count the noise in."""

import math
from typing import Annotated

import numpy as np
from msgspec import Meta, structs

from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.coefficients import INTERCEPT, Fit
from secure_afl.analytic.heads.head import Fitted
from secure_afl.analytic.newton import newton_vector
from secure_afl.analytic.noisy_newton import NoisySlope
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.residuals import MAX_WEIGHT, is_on_grid, on_grid
from secure_afl.analytic.rows import ClientData, check_rows
from secure_afl.checks import settle_int
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import METHODS, Method, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.methods.odds import (
    LEVEL,
    bare_coefficients,
    in_own_units,
    told_per,
    wald_coefficients,
)
from secure_afl.privacy.mechanism import NoisySum, Privacy
from secure_afl.privacy.sensitivity import Sensitivity

GRADIENT, DIAGONAL, UPPER = "gradient", "curvature_diagonal", "curvature_upper"

# Steps of 1 in residuals and in weights: finer than the noise by far.
FINE, COARSE = 1 << 12, 1 << 8
# The curvature's μ in units of the gradient's: up to √5.5 it costs nothing, see `sensitivity`.
CURVATURE_WEIGHT = 2.0
# Share of μ² that the last sum has, whose gradient's noise is in the coefficients.
_LAST = 0.7
_BLOCK_ROWS = 4096
MAX_ROUNDS = 10

_NO_PROMISE = (
    "private-logistic promises something or is not needed; give --epsilon, or take --method "
    "logistic"
)


class PrivateLogisticPublic(PublicState, frozen=True, eq=False):
    """The task, and where the steps have come to.

    Attributes:
        done: sums that are over.
        point: β of the next sum, (d+1,), the intercept first, in steps of 2^-16; after the last
            the coefficients.
        estimates, errors: in the columns' own units, (d+1,); None before the last sum.
        weak: directions in which curvature is not clear of its noise.
        unsettled: how many standard errors the last step went, where it is too long to be the
            last; else 0.
    """

    done: int
    point: Floats
    estimates: Floats | None = None
    errors: Floats | None = None
    weak: int = 0
    unsettled: float = 0.0


@METHODS.register
class PrivateLogistic(Method[PrivateLogisticPublic], frozen=True, tag="private-logistic"):
    """Newton's steps for the log-odds of two classes, from noisy gradients and curvatures.

    β' = β + H̃₊⁻¹g̃, with H̃₊ the curvature whose eigenvalues are raised to its noise's norm
    σ_H√(d+1); before the last step that norm is added to all, so that noise makes no step too
    long. The first sum, at zeros, tells the class shares too, and the first step starts from their
    log-odds. With noise ν of the last gradient and E of its curvature, and e how far the last point
    was off, the coefficients are off by H⁻¹(Ee + ν): their covariance is
    H⁻¹(H + (σ_g² + σ_H²|e|²)I)H⁻¹, with the last step for e.

    Attributes:
        rounds: blind sums, 1 to 10.
    """

    name = "private-logistic"
    summary = "logistic regression of two classes by noisy Newton steps, for --epsilon"
    public = PrivateLogisticPublic
    row_additive = True
    wants_noise = True
    ignores = ("same_set", "cross_weight", "accept_outside")
    rounds: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_ROUNDS,
            description="blind sums of noisy Newton steps.",
            extra={"metavar": "N"},
        ),
    ] = 4

    def __post_init__(self) -> None:
        settle_int(self, "rounds", 1, MAX_ROUNDS)

    @property
    def sums(self) -> int:
        """Blind sums of a run."""
        return self.rounds

    @property
    def clipping(self) -> str:
        """Clause on what bounds a unit's part in a sum."""
        return "every row has norm ≤ 1, its residual is ≤ 1 in size and its weight ≤ 1/4"

    def begin(self, task: Task) -> PrivateLogisticPublic:
        """Return the task and a first point of zeros.

        Raises:
            ConfigError: a task without noise, or of another number of classes than two.
        """
        if task.mechanism is None:
            raise ConfigError(_NO_PROMISE)
        if len(task.classes) != 2:
            raise ConfigError(
                f"private-logistic with {len(task.classes)} classes, allowed: 2; take --method "
                "private-gradient or afl"
            )
        return PrivateLogisticPublic(task, 0, np.zeros(task.feature_dim + 1))

    def check(self, public: PrivateLogisticPublic, round: int) -> None:
        """Check that a state is one of this round, and its point on the grid.

        Raises:
            DataError: it is not.
        """
        p = public.task.feature_dim + 1
        if public.done != round - 1 or public.estimates is not None:
            raise DataError(f"a state after {public.done} sums in round {round}")
        if public.point.shape != (p,) or not is_on_grid(public.point):
            raise DataError(f"a point {list(public.point.shape)}; wanted [{p}] in ±{MAX_WEIGHT}")
        if round == 1 and public.point.any():
            raise DataError("the first point is no zeros")

    def foreseen(self, task: Task) -> tuple[PrivateLogisticPublic, ...]:
        """List a state of every sum: the last has most of the budget."""
        first = self.begin(task)
        return tuple(structs.replace(first, done=done) for done in range(self.rounds))

    def layout(self, public: PrivateLogisticPublic) -> Layout | None:
        """Return the layout of gradient and curvature; None after the last sum.

        Raises:
            WouldOverflow: no ring holds that many rows.
        """
        task = public.task
        if public.done >= self.rounds:
            return None
        s, p = task.quantiser.scale, task.feature_dim + 1

        def block(name: str, length: int, least: int, each: int, unit: float) -> Block:
            rows, own = task.total_rows, task.client_rows
            return Block(name, length, rows * least, rows * each, unit, own * least, own * each)

        slope, weight = s * FINE, s * s * COARSE // 4
        unit = 1 / (s * s * COARSE)
        return Layout(
            (
                block(GRADIENT, p, -slope, slope, 1 / slope),
                block(DIAGONAL, p, 0, weight, unit),
                block(UPPER, p * (p - 1) // 2, -weight, weight, unit),
            )
        )

    def sensitivity(self, public: PrivateLogisticPublic, privacy: Privacy) -> Sensitivity:
        """Bound how far one example or client moves gradient and curvature together.

        A row adds r·x̃ and q·x̃x̃ᵀ with ‖x̃‖² ≤ 2s², |r| = |y − P| ≤ 1 and q = |r|(1 − |r|). With the
        curvature's noise W·s/(v·R) times the gradient's, the square of the row's norm is at most
        2s²R²(r² + 2v²r²(1−|r|)²). For v² ≤ 5.5 no |r| gives more than |r| = 1, where a row has no
        curvature: √2·s·R bounds both, and the curvature costs nothing. v = 2 leaves room for the
        rounding of r and q, which a test searches. A row that becomes another moves twice as much
        at most, and a client as many rows as it declares.

        Raises:
            ConfigError: patients are the unit.
        """
        if privacy.unit == "patient":
            raise ConfigError(
                "private-logistic has no form for unit patient; take example or client, or "
                "--method private-gradient"
            )
        scale = public.task.quantiser.scale
        joint = math.sqrt(2) * scale * FINE * (2 if privacy.neighbours == "replace-one" else 1)
        if privacy.unit == "client":
            joint *= public.task.client_rows
        curvature = COARSE * scale / (CURVATURE_WEIGHT * FINE)
        relative = (
            (GRADIENT, 1.0),
            (DIAGONAL, curvature),
            (UPPER, curvature * math.sqrt(0.5)),
        )
        return Sensitivity(joint, relative, self._spend(public.done))

    def contribute(
        self, public: PrivateLogisticPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Sum up gradient and curvature of the client's rows at the point, as int64.

        Raises:
            DataError: rows that the task does not take.
        """
        task, p = public.task, public.task.feature_dim + 1
        check_rows(data.features, data.labels, 2)
        scale, entries = task.quantiser.scale, p * (p + 1) // 2
        total = np.zeros(p + entries + 1, dtype=np.int64)
        for start in range(0, len(data), _BLOCK_ROWS):
            rows = task.quantiser.integers(data.features[start : start + _BLOCK_ROWS], start)
            whole = np.hstack([np.full((len(rows), 1), float(scale)), rows])
            labels = data.labels[start : start + len(rows)]
            total += newton_vector(
                whole, labels, public.point[:, None], scale, fine=FINE, coarse=COARSE
            )
        upper = np.triu_indices(p)
        on_diagonal = upper[0] == upper[1]
        curvature = total[p : p + entries]
        return np.concatenate([total[:p], curvature[on_diagonal], curvature[~on_diagonal]])

    def absorb(
        self, public: PrivateLogisticPublic, total: Integers, included: tuple[str, ...]
    ) -> PrivateLogisticPublic:
        """Take a noisy Newton step; after the last sum estimates and errors follow."""
        task, p = public.task, public.task.feature_dim + 1
        layout = self.layout(public)
        assert layout is not None, "of a sum that was"
        found = layout.split(total)
        unit = layout.units
        gradient = np.asarray(found[GRADIENT] * unit[GRADIENT], dtype=np.float64)
        curvature = np.diag(found[DIAGONAL] * unit[DIAGONAL])
        upper = np.triu_indices(p, 1)
        curvature[upper] = found[UPPER] * unit[UPPER]
        curvature.T[upper] = curvature[upper]
        slope = NoisySlope(
            public.point, gradient, curvature, *self._noise(public, layout, len(included))
        )
        if public.done == 0:
            slope = slope.at_shares()
        last = public.done == self.rounds - 1
        step = slope.step(last=last)
        moved = structs.replace(public, done=public.done + 1, point=on_grid(slope.point + step))
        if not last:
            return moved
        quantiser = task.quantiser
        own = in_own_units(moved.point[:, None], slope.covariance(step), task.columns, quantiser)
        reach = 1.0
        if quantiser.mode == "columns":
            reach = quantiser.end(task.feature_dim) / quantiser.scale
        columns = () if task.columns is None else task.columns.columns
        indicators = np.array([c.indicator for c in columns] or [False] * task.feature_dim)
        earlier = 0.0
        if public.done:
            before = structs.replace(public, done=public.done - 1)
            earlier = self._noise(before, layout, len(included))[0]
        return structs.replace(
            moved,
            estimates=own[0][:, 0],
            errors=own[1][:, 0],
            weak=slope.weak,
            unsettled=slope.unsettled(step, earlier, reach, indicators),
        )

    def _spend(self, done: int) -> float:
        """Return μ of a sum in units of the average."""
        if self.rounds == 1:
            return 1.0
        share = _LAST if done == self.rounds - 1 else (1 - _LAST) / (self.rounds - 1)
        return math.sqrt(self.rounds * share)

    def _noise(
        self, public: PrivateLogisticPublic, layout: Layout, included: int
    ) -> tuple[float, float]:
        """Return σ of entries of gradient and curvature, in units of rows of norm 1."""
        mechanism = public.task.mechanism
        assert mechanism is not None, "begin asks for it"
        noisy = NoisySum(mechanism, layout, self.sensitivity(public, mechanism.privacy))
        more, stds = mechanism.surplus(included), noisy.scaled_stds
        return stds[GRADIENT] * more, stds[DIAGONAL] * more

    def model(self, public: PrivateLogisticPublic) -> LinearModel:
        """Return the linear model; its scores of rows of norm ≤ 1 are log-odds."""
        assert public.estimates is not None, "the model exists after the sums"
        task = public.task
        weights = np.zeros((task.feature_dim, 2))
        # Points are for X/2^bits.
        weights[:, 1] = public.point[1:] * (task.quantiser.reach / task.quantiser.scale)
        fitted = Fitted(weights, np.array([0.0, -public.point[0]]), temperature=1.0)
        return LinearModel.fitted(fitted, task.classes, task.quantiser)

    def fits(self, public: PrivateLogisticPublic) -> tuple[Fit, ...]:
        """List the coefficients with intervals that hold the noise, where rows have columns."""
        task = public.task
        if public.estimates is None or public.errors is None or task.columns is None:
            return ()
        names, per = (INTERCEPT, *task.columns.names), told_per(task.columns)
        if public.weak or public.unsettled:
            rows = bare_coefficients(names, public.estimates, per)
        else:
            rows = wald_coefficients(names, public.estimates, public.errors, per)
        doubts = self.remarks(public)
        held = "" if doubts else "; errors and intervals hold the noise"
        notes = (f"Odds are those against {task.classes[0]!r}{held}.", *doubts)
        return (Fit("logistic", task.classes[1], rows, {}, LEVEL, notes),)

    def remarks(self, public: PrivateLogisticPublic) -> tuple[str, ...]:
        """Say why there are no intervals: noise is too large, or the last step too long."""
        if public.weak:
            return (
                f"In {public.weak} directions the curvature is not clear of its noise: estimates "
                "are drawn to 0, and no interval would mean anything, so there is none. More rows, "
                "fewer columns, narrower ranges or a larger ε help.",
            )
        if not public.unsettled:
            return ()
        more = "A class, or a category of a column, may be too rare: more rows help"
        if self.rounds < MAX_ROUNDS:
            more = f"Take more sums (--rounds {min(2 * self.rounds, MAX_ROUNDS)}), or more rows"
        return (
            f"The last of {self.rounds} Newton steps moved an estimate by {public.unsettled:.1f} "
            "of its standard errors: estimates have not settled, and no interval would mean "
            f"anything, so there is none. {more}.",
        )
