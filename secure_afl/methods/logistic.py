"""Logistic regression by Newton's method: the maximum of the likelihood in a few blind sums."""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from msgspec import Meta, structs

from protocols.layout import Integers, Layout
from secure_afl.analytic.coefficients import Fit
from secure_afl.analytic.heads.head import Fitted
from secure_afl.analytic.newton import (
    Slope,
    Start,
    fell,
    newton_layout,
    newton_vector,
    shorter,
)
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.residuals import MAX_WEIGHT, is_on_grid, on_grid
from secure_afl.analytic.rounding import about_coarse, about_left_out
from secure_afl.analytic.rows import ClientData, check_rows
from secure_afl.analytic.statistics import Statistics, packed_statistics, statistics_layout
from secure_afl.checks import settle_float, settle_int
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.memory import Memory, pend
from secure_afl.methods.method import METHODS, Method, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.methods.odds import (
    MOST_BLUR,
    LogisticFit,
    about_ending,
    fits_of,
    in_own_units,
)
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity

MIN_ROUNDS, MAX_ROUNDS = 2, 50

# A step that adds less than this to the log-likelihood is the last: 0.001 standard errors.
_LEAST_GAIN = 0.5e-6

# In standard errors: rounding that is larger is no reason to end.
_MOST_ROUNDING = 0.1

# Steps that change scores by more lead to no maximum where they add little, or where curvature
# along them falls by more.
_LONG_STEP = 0.3
_FLATTER = 0.6

_BLOCK_ROWS = 4096

# Of a client that was in the first sum.
_COUNTED = "counted"

_NO_NOISE = "logistic has no form for sums with noise; leave --epsilon out, or take --method"


class LogisticPublic(PublicState, frozen=True, eq=False):
    """The task, and after a sum the point at which the next one is taken.

    Attributes:
        done: sums that are over.
        present: places of the classes that have rows, ascending; the first is the reference.
        kept: places of parameters that are fitted: the intercept 0, columns 1 to d.
        point: (p, K) float64, in steps of 2^-16; None before the first sum.
        best: the point of the largest likelihood so far, likewise; None for the class shares.
        best_sum: the sum that was taken there, from 1.
        found: what the sums gave; None while another is wanted.
    """

    done: int = 0
    present: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    point: Floats | None = None
    best: Floats | None = None
    best_sum: int = 0
    found: LogisticFit | None = None


@METHODS.register
class Logistic(Method[LogisticPublic], frozen=True, tag="logistic"):
    """Logistic regression with intercept: one sum of (G, Q, n), then one a Newton step.

    The first sum gives the step from the class shares, at which all rows have the same weights.
    Every other holds gradient X̃ᵀ(Y − P), curvature and log-likelihood at a public point. A step
    that made the likelihood smaller is shortened, by the cubic through both ends. The run ends
    early when a step adds less than 5e-7; that last step is taken without another sum.

    A class without rows is in no model; the first class that has rows is the reference. Without a
    penalty a column that is a combination of earlier ones is left out, and named.

    Attributes:
        rounds: blind sums of the run at most, 2 to 50.
        penalty: λ of ½λ‖weights‖², 0 to 1e9, in squared norms of rows, which are ≤ 1: not of the
            intercept, and of several classes on weights less their mean. 0 is none.
    """

    name = "logistic"
    summary = "logistic regression with errors of its coefficients, a sum a Newton step"
    public = LogisticPublic
    row_additive = True
    releases_statistics = True
    ends_early = True
    fine_rows = True
    rounds: Annotated[
        int,
        Meta(
            ge=MIN_ROUNDS,
            le=MAX_ROUNDS,
            description="blind sums of the run at most; it ends once it has converged.",
            extra={"metavar": "N"},
        ),
    ] = 12
    penalty: Annotated[
        float,
        Meta(
            ge=0,
            le=1e9,
            description="λ of the L2 penalty, in squared norms of the rows, which are ≤ 1; 0 is "
            "none. Separable data needs one.",
            extra={"metavar": "λ"},
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        settle_int(self, "rounds", MIN_ROUNDS, MAX_ROUNDS)
        settle_float(self, "penalty", 0, 1e9)

    @property
    def sums(self) -> int:
        """The most blind sums of a run."""
        return self.rounds

    @property
    def needs_totals(self) -> bool:
        """A shortened step goes by an earlier sum, which is its receiver's."""
        return True

    @property
    def liar_reads(self) -> str:
        """Rows: a point may leave one alone on its side."""
        return "single rows"

    def begin(self, task: Task) -> LogisticPublic:
        """Return the task with nothing learned yet.

        Raises:
            ConfigError: a task with noise, or of one class.
        """
        if task.mechanism is not None:
            raise ConfigError(f"{_NO_NOISE} private-logistic")
        if len(task.classes) < 2:
            raise ConfigError(f"{len(task.classes)} classes, allowed: ≥ 2; name them all")
        return LogisticPublic(task)

    def check(self, public: LogisticPublic, round: int) -> None:
        """Check that a state is of this round, and its points the task's, finite and in range.

        Raises:
            DataError: it is not.
        """
        task, present, kept = public.task, public.present, public.kept
        if public.done != round - 1 or (public.point is None) != (round == 1):
            raise DataError(f"a state after {public.done} sums in round {round}")
        if public.found is not None:
            raise DataError("a state of a run that is over")
        if public.point is None:
            return
        if not (_ascends(present, len(task.classes)) and len(present) >= 2):
            raise DataError(f"classes {list(present)}; wanted two or more of the task's, in order")
        if not (_ascends(kept, task.feature_dim + 1) and kept[:1] == (0,)):
            raise DataError(f"parameters {list(kept)}; wanted 0, and columns in order")
        shape = (task.feature_dim + 1, len(present) - 1)
        for point in (public.point, public.best):
            if point is not None and not (point.shape == shape and is_on_grid(point)):
                raise DataError(
                    f"a point {list(point.shape)}; wanted {list(shape)}, on the grid within "
                    f"±{MAX_WEIGHT}"
                )
        if not 1 <= public.best_sum <= public.done:
            raise DataError(f"the best of {public.done} sums is said to be {public.best_sum}")

    def check_step(self, before: LogisticPublic, after: LogisticPublic) -> None:
        """Check that classes and parameters stay those that the first sum gave.

        Raises:
            DataError: they do not.
        """
        if before.point is None:
            return
        if (after.present, after.kept) != (before.present, before.kept):
            raise DataError("other classes or parameters than in the sums before")

    def check_end(self, public: LogisticPublic, sums: int) -> None:
        """Check that a fit says after which sum it was made.

        Raises:
            DataError: after another one.
        """
        if public.done != sums:
            raise DataError(f"a fit after {public.done} sums in a run that had {sums}")

    def foreseen(self, task: Task) -> tuple[LogisticPublic, ...]:
        """List the state before the statistics, and one before a Newton step."""
        p, classes = task.feature_dim + 1, len(task.classes)
        states = tuple(range(classes)), tuple(range(p)), np.zeros((p, classes - 1))
        return self.begin(task), LogisticPublic(task, 1, *states, None, 1)

    def layout(self, public: LogisticPublic) -> Layout | None:
        """Return the layout of the statistics, then of Newton steps; None after the last.

        Raises:
            WouldOverflow: no ring holds that many rows.
        """
        task = public.task
        if public.done == 0:
            return _first_layout(task)
        if public.found is not None or public.done >= self.rounds or public.point is None:
            return None
        p, outcomes = public.point.shape
        return newton_layout(p, outcomes, task.quantiser.scale, task.total_rows, task.client_rows)

    def sensitivity(self, public: LogisticPublic, privacy: Privacy) -> Sensitivity:
        """Refuse: there is no noisy form.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{_NO_NOISE} private-logistic")

    def contribute(
        self, public: LogisticPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Pack the client's statistics, then what Newton steps need, as int64.

        Raises:
            DataError: rows that the task does not take; or of a class that the first sum is said
                to have none of, though these were in it. Those of others are left out.
        """
        task, classes = public.task, len(public.task.classes)
        if public.point is None:
            pend(memory, 1, _COUNTED, np.ones(1, dtype=np.int64))
            return packed_statistics(data.features, data.labels, classes, task.quantiser)
        check_rows(data.features, data.labels, classes)
        scale, layout = task.quantiser.scale, self.layout(public)
        assert layout is not None, "a client adds to a sum that there is"
        place = np.full(classes, -1)
        place[list(public.present)] = np.arange(len(public.present))
        lost = data.labels[place[data.labels] < 0]
        if lost.size and _COUNTED in memory:
            raise DataError(
                f"client '{data.name}' has rows of class {task.classes[int(lost[0])]!r} in the "
                "first sum, and is told that this had none: take no part, and ask whoever received "
                "it"
            )
        total = np.zeros(layout.length, dtype=np.int64)
        for start in range(0, len(data), _BLOCK_ROWS):
            rows = task.quantiser.integers(data.features[start : start + _BLOCK_ROWS], start)
            whole = np.hstack([np.full((len(rows), 1), float(scale)), rows])
            places = place[data.labels[start : start + len(rows)]]
            there = places >= 0
            total += newton_vector(whole[there], places[there], public.point, scale)
        return total

    def absorb(
        self, public: LogisticPublic, total: Integers, included: tuple[str, ...]
    ) -> LogisticPublic:
        """Refuse: a step may need earlier totals, see `advance`."""
        raise ConfigError("logistic steps from all totals of a run; call advance")

    def advance(
        self, public: LogisticPublic, totals: Sequence[Integers], included: tuple[str, ...]
    ) -> LogisticPublic:
        """Take Newton's step, shorten the last one, or end with estimates and errors."""
        task = public.task
        statistics = Statistics.unpack(totals[0], _first_layout(task))
        start = Start.of(statistics, task.quantiser, self.penalty)
        if public.point is None:
            present = tuple(int(place) for place in np.flatnonzero(statistics.counts))
            kept = tuple(int(place) for place in start.kept)
            public = structs.replace(public, done=1, present=present, kept=kept, best_sum=1)
            if len(present) < 2:
                return structs.replace(public, found=_one_class(task, start))
            slope = start.slope()
            return structs.replace(public, point=on_grid(slope.point + slope.step(start.kept)))
        done, scale = public.done + 1, task.quantiser.scale
        here = start.slope_at(public.point, totals[-1], scale)
        if public.best is None:
            best = start.slope()
        else:
            best = start.slope_at(public.best, totals[public.best_sum - 1], scale)
        last = done >= self.rounds
        if fell(best, here, statistics.rows):
            if last:
                return self._ended(public, start, best, done, "rounds")
            point = on_grid(best.point + shorter(best, here) * (here.point - best.point))
            return structs.replace(public, done=done, point=point)
        public = structs.replace(public, best=public.point, best_sum=done)
        ended = self._why(start, best, here, last=last)
        if ended:
            return self._ended(public, start, here, done, ended)
        point = on_grid(here.point + here.step(start.kept))
        return structs.replace(public, done=done, point=point)

    def _why(self, start: Start, before: Slope, here: Slope, *, last: bool) -> str:
        """Say why this sum is the last; empty where another is wanted.

        Args:
            before: the point from which a step led here.
        """
        step = here.step(start.kept)
        gain = 0.5 * float(here.gradient @ step.T.ravel())
        if self.penalty == 0 and -here.bare < math.log(2):
            # No row is less likely than ½: every one is on its own class's side.
            return "separable"
        # Rounding of residuals moves the maximum by so many errors, and no step gets nearer.
        rounding = min(here.rounding(start.kept, start.gram, start.counts.sum()), _MOST_ROUNDING)
        if gain <= max(_LEAST_GAIN, 0.5 * rounding**2):
            # Near a maximum curvature hardly changes along a step. Where the likelihood flattens
            # out instead, it falls by e with every step, until weights are rounded to 0.
            led = here.point - before.point
            flat = _is_long(led) and here.along(led) < _FLATTER * before.along(led)
            return "separable in part" if flat or _is_long(step) else "converged"
        return "rounds" if last else ""

    def _ended(
        self, public: LogisticPublic, start: Start, best: Slope, done: int, ended: str
    ) -> LogisticPublic:
        """End the run with estimates, the last step taken where it is a short one."""
        task, kept = public.task, start.kept
        step = best.step(kept)
        gain = 0.5 * float(best.gradient @ step.T.ravel())
        weights = best.point + step if ended == "converged" else best.point.copy()
        covariance = best.covariance(kept)
        estimates, errors = in_own_units(weights, covariance, task.columns, task.quantiser)
        blur = in_own_units(weights, best.blur(kept, start.gram), task.columns, task.quantiser)[1]
        errors[blur**2 > MOST_BLUR * errors**2] = np.nan
        rows = int(start.counts.sum())
        likelihood = best.bare + (gain if ended == "converged" and self.penalty == 0 else 0.0)
        rounding = best.rounding(kept, start.gram, rows)
        # Points are for X/2^bits.
        weights[1:] *= task.quantiser.reach / task.quantiser.scale
        found = LogisticFit(
            weights,
            estimates,
            errors,
            likelihood,
            start.null_value,
            rows,
            gain,
            rounding,
            ended,
            tuple(start.coarse(task.quantiser).tolist()),
            start.left_out,
            rarest=_too_rare(public, start),
        )
        return structs.replace(public, done=done, found=found)

    def fitted(self, public: LogisticPublic) -> Fitted | None:
        """Return nothing: logistic regression is no head of a sum."""
        return None

    def model(self, public: LogisticPublic) -> LinearModel:
        """Return the linear model; its scores of rows of norm ≤ 1 are log-odds."""
        assert public.found is not None, "the model exists after the sums"
        task, present = public.task, list(public.present)
        weights = np.zeros((task.feature_dim, len(task.classes)))
        offset = np.full(len(task.classes), np.inf)
        offset[present[0]] = 0.0
        weights[:, present[1:]] = public.found.weights[1:]
        offset[present[1:]] = -public.found.weights[0]
        fitted = Fitted(weights, offset, temperature=1.0)
        return LinearModel.fitted(fitted, task.classes, task.quantiser)

    def fits(self, public: LogisticPublic) -> tuple[Fit, ...]:
        """List the coefficients for each class but the reference, where rows have columns."""
        task, found = public.task, public.found
        if found is None or task.columns is None:
            return ()
        wald = "; intervals are Wald's" if np.isfinite(found.errors).any() else ""
        reference = f"Odds are those against {task.classes[public.present[0]]!r}{wald}."
        notes = (reference, *self.remarks(public))
        return fits_of(found, task.classes, public.present, public.kept, task.columns, notes)

    def remarks(self, public: LogisticPublic) -> tuple[str, ...]:
        """List what is doubtful of a finished model: no maximum, or parts left out."""
        task, found = public.task, public.found
        if found is None:
            return ()
        said = []
        missing = [name for i, name in enumerate(task.classes) if i not in public.present]
        if missing:
            said.append(f"No site has rows of {', '.join(missing)}: never predicted.")
        said += about_left_out(found.left_out, task.columns, "--penalty")
        said += about_ending(found, task.classes)
        said += about_coarse(found.coarse, task.columns)
        if self.penalty > 0:
            said.append(
                f"With a penalty of {self.penalty:g} estimates are drawn to 0, and intervals do "
                "not make up for that."
            )
        return tuple(said)


def _too_rare(public: LogisticPublic, start: Start) -> tuple[int, int] | None:
    """Return place and rows of the rarest class, where rounding hides weights of its share."""
    slope, alone = start.slope(), np.zeros(1, dtype=np.int64)
    blur, covariance = slope.blur(alone, start.gram), slope.covariance(alone)
    if (blur.diagonal() <= MOST_BLUR * covariance.diagonal()).all():
        return None
    least = int(start.counts.argmin())
    return public.present[least], int(start.counts[least])


def _one_class(task: Task, start: Start) -> LogisticFit:
    nothing = np.zeros((task.feature_dim + 1, 0))
    return LogisticFit(
        nothing, nothing, nothing, 0.0, 0.0, int(start.counts.sum()), 0.0, 0.0, "one class"
    )


def _is_long(step: Floats) -> bool:
    """Say whether a step may move a score by much: by its length times a row's, ≤ √2."""
    return math.sqrt(2) * float(np.linalg.norm(step)) > _LONG_STEP


def _ascends(places: tuple[int, ...], below: int) -> bool:
    return list(places) == sorted(set(places)) and all(0 <= place < below for place in places)


def _first_layout(task: Task) -> Layout:
    return statistics_layout(
        task.feature_dim, len(task.classes), task.quantiser, task.total_rows, task.client_rows
    )
