"""Softmax regression under a promise: noisy gradients in a handful of small blind sums."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

import numpy as np
from msgspec import Meta, structs
from msgspec.structs import force_setattr
from numpy.typing import NDArray

from protocols.codec import Wire
from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.patients import PatientGroups, known_patients, within
from secure_afl.analytic.priors import (
    OBSERVED,
    check_prior,
    drawn_together,
    prior_shares,
    read_prior,
    settle_prior,
)
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.residuals import WEIGHT_SCALE, is_on_grid, on_grid, residuals
from secure_afl.analytic.rows import ClientData, check_finite, check_rows
from secure_afl.analytic.statistics import one_hot
from secure_afl.checks import settle_int
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.centring import (
    centred,
    direction_of,
    is_direction,
    projected,
    projection,
    row_map,
    without,
)
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import METHODS, Method, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.methods.summed import PriorSetting
from secure_afl.privacy.mechanism import Mechanism, NoisySum, Privacy
from secure_afl.privacy.schedule import (
    CLIP,
    COUNTS_WEIGHT,
    MAX_STEPS,
    MIN_STEPS,
    Schedule,
    planned_steps,
    schedule,
)
from secure_afl.privacy.sensitivity import Sensitivity

ROWS, COUNTS, GRADIENT = "rows", "counts", "gradient"

_BLOCK_ROWS = 4096

# The columns of narrower rows are a table's, and have no mean in common.
_LEAST_CENTRED = 32

_NO_PROMISE = (
    "private-gradient has no form without noise; pass --epsilon, or take --method softmax or afl"
)


class Descent(Wire, frozen=True, eq=False):
    """What the sums have given so far.

    Attributes:
        direction: that all rows share, (k,) float64 whole numbers of norm about 2^20.
        log_prior: logarithms of the class shares, (C,) float64, in steps of 2^-16.
        weights: W, (k, C) float64, likewise.
        point: X, Nesterov's point, at which clients take the next gradient, likewise.
    """

    direction: Floats
    log_prior: Floats
    weights: Floats
    point: Floats

    def __repr__(self) -> str:
        return f"<Descent {list(self.weights.shape)}>"


class PrivateGradientPublic(PublicState, frozen=True, eq=False):
    """The task, the number of sums that are over, and what they gave; None before the first."""

    done: int = 0
    descent: Descent | None = None


@METHODS.register
class PrivateGradient(Method[PrivateGradientPublic], frozen=True, tag="private-gradient"):
    """Accelerated gradient descent whose every sum has noise, after one sum of rows and counts.

    The first sum gives the direction that all rows share, which is then taken off each row, and the
    class shares; of narrow rows, whose columns mean different things, class shares alone. Every
    other is g = Σ x·rᵀ with the clipped residual r of softmax regression at a
    public point X, so k·C numbers:

        W' = X − rate·gΠ,    X' = W' + t/(t + 3)·(W' − W)    (Nesterov 1983)

    with Π the projection on vectors that sum to 0 over classes. `privacy.schedule` chooses T, k and
    the rate from declared numbers. A state gives its gradient away, so clients are sent totals and
    recompute it.

    Where patients are the unit, what a patient's rows add to a sum is summed up, and brought within
    the bound of one row: no bound on their number is needed.

    Attributes:
        rounds: blind sums of the run, 5 to 25; None follows from the promise and declared rows.
        centre: rows are taken less the mean of their entries and less the direction that all share;
            None from 32 features on.
        prior: class shares of the model, as `Summed` has them; None is `observed`.
        seed: of the projection; public.
    """

    name = "private-gradient"
    summary = "softmax regression by noisy gradients: a few small sums, for --epsilon"
    public = PrivateGradientPublic
    row_additive = True
    hides_patients = True
    auditable = True
    wants_noise = True
    ignores = ("same_set", "cross_weight", "row_mode", "clip", "accept_outside")
    rounds: Annotated[
        Annotated[int, Meta(ge=MIN_STEPS + 1, le=MAX_STEPS + 1)] | None,
        Meta(
            description="blind sums, 5 to 25; fewer cost accuracy the less, the smaller ε is. "
            "Default: by ε and --max-rows.",
            extra={"metavar": "N"},
        ),
    ] = None
    centre: Annotated[
        bool | None,
        Meta(
            description="take rows less the mean of their entries and less the direction that all "
            "share; not for narrow tables. Default: from 32 features on."
        ),
    ] = None
    prior: PriorSetting = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds is not None:
            settle_int(self, "rounds", MIN_STEPS + 1, MAX_STEPS + 1)
        settle_int(self, "seed", 0, 2**63 - 1)
        if self.prior is not None:
            force_setattr(self, "prior", settle_prior(self.prior))

    @classmethod
    def configured(cls, settings: Mapping[str, Any], *, private: bool, seed: int) -> Self:
        """Make the method of a run; a prior that is no word is a file.

        Raises:
            ConfigError: a run without a promise.
        """
        if not private:
            raise ConfigError(_NO_PROMISE)
        prior = settings.get("prior")
        read = {"prior": read_prior(prior)} if isinstance(prior, str) else {}
        return cls(**{**settings, **read}, seed=seed)

    @property
    def sums(self) -> int:
        """The most blind sums of a run."""
        return MAX_STEPS + 1 if self.rounds is None else self.rounds

    def planned_sums(self, privacy: Privacy | None, total_rows: int, client_rows: int) -> int:
        """Return the given number of sums, or one more than the planned steps."""
        if self.rounds is not None or privacy is None:
            return self.sums
        return 1 + planned_steps(privacy, total_rows, client_rows)

    @property
    def state_reveals_total(self) -> bool:
        """Each step is its gradient; the noise in it is all that hides a row."""
        return True

    @property
    def clipping(self) -> str:
        """Clause on what bounds a unit's part in a sum."""
        return (
            f"every row has norm 1 and its residual norm ≤ {CLIP:g} before both are rounded to "
            "integers, of norm ≤ 2^bits"
        )

    def begin(self, task: Task) -> PrivateGradientPublic:
        """Return the task with nothing learned yet.

        Raises:
            ConfigError: a task without noise, of fewer than three features that are to be centred,
                with rows that are not brought to norm 1, or a prior of other classes.
        """
        _mechanism(task)
        if self._centres(task) and task.feature_dim < 3:
            raise ConfigError(
                f"--centre with {task.feature_dim} features, allowed: ≥ 3; leave it out"
            )
        if task.quantiser.mode != "normalise":
            raise ConfigError(
                f"row mode {task.quantiser.mode!r}, allowed: normalise, for private-gradient looks "
                "at directions of rows alone; leave it out, or take --method afl"
            )
        if self.prior is not None:
            check_prior(self.prior, task.classes)
        return PrivateGradientPublic(task)

    def check(self, public: PrivateGradientPublic, round: int) -> None:
        """Check that a state is one of this round, of the task's shapes and on the grid.

        Raises:
            DataError: it is not.
        """
        found = public.descent
        if public.done != round - 1 or (found is None) != (round == 1):
            raise DataError(f"a state after {public.done} sums in round {round}")
        if found is None:
            return
        k, classes = self._schedule(public.task).dimension, len(public.task.classes)
        arrays = found.direction, found.log_prior, found.weights, found.point
        wanted = (k,), (classes,), (k, classes), (k, classes)
        if tuple(array.shape for array in arrays) != wanted:
            raise DataError(f"arrays of other shapes than {wanted}")
        if not is_direction(found.direction):
            raise DataError("a direction that is no whole numbers of norm about 2^20")
        if not all(is_on_grid(array) for array in arrays[1:]):
            raise DataError("weights or a prior off the grid")

    def layout(self, public: PrivateGradientPublic) -> Layout | None:
        """Return the layout of rows and counts, then of gradients; None when all are there.

        Raises:
            WouldOverflow: no ring holds that many rows.
        """
        task = public.task
        if public.done == 0:
            return self._first_layout(task)
        if public.done >= self.run_sums(task):
            return None
        scale, length = task.quantiser.scale, self._schedule(task).dimension * len(task.classes)
        # Of an outer product of two vectors of norm ≤ scale no entry is larger.
        most, own = task.total_rows * scale**2, task.client_rows * scale**2
        return Layout((Block(GRADIENT, length, -most, most, CLIP / scale**2, -own, own),))

    def foreseen(self, task: Task) -> tuple[PrivateGradientPublic, ...]:
        """List the state before the first sum, and one before a gradient."""
        first = self.begin(task)
        return first, structs.replace(first, done=1)

    def sensitivity(self, public: PrivateGradientPublic, privacy: Privacy) -> Sensitivity:
        """Bound a unit's influence on the next sum.

        With B = 2^bits and A = B/2 the integer of a count, a row that comes or goes moves the first
        sum by √(B² + A²) at most, and one that becomes another by √(4B² + 2A²); without the sum of
        rows by A and √2·A. An outer product x·rᵀ has the norm ‖x‖·‖r‖ ≤ B², so gradients move by B²
        and 2B². A client has as many rows as it declares. Of a patient's part each block is no
        longer than a row's may be, and counts are not negative: a patient moves no more than a row.
        """
        task = public.task
        scale, count = task.quantiser.scale, _count(task)
        replaced = privacy.neighbours == "replace-one"
        blocks: tuple[str, ...] = (GRADIENT,)
        row = (2.0 if replaced else 1.0) * scale**2
        if public.done == 0:
            centred_rows = scale**2 if self._centres(task) else 0
            row = math.sqrt((4 if replaced else 1) * centred_rows + (1 + replaced) * count**2)
            blocks = (ROWS, COUNTS) if centred_rows else (COUNTS,)
        rows = task.client_rows if privacy.unit == "client" else 1
        return Sensitivity(row * rows, tuple((block, 1.0) for block in blocks))

    def contribute(
        self, public: PrivateGradientPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Sum the client's rows and counts, then its gradients, as int64.

        Raises:
            DataError: rows that the task does not take, or that do not say whose they are where
                patients are the unit.
        """
        task, found = public.task, public.descent
        classes = len(task.classes)
        check_rows(data.features, data.labels, classes)
        if task.by_patient:
            return self._of_patients(task, data, found)
        if found is None:
            counts = _count(task) * np.bincount(data.labels, minlength=classes).astype(np.int64)
            if not self._centres(task):
                check_finite(data.features)
                return np.asarray(counts, dtype=np.int64)
            total = sum(rows.sum(axis=0) for rows, _ in self._blocks(task, data))
            return np.concatenate([np.asarray(total, dtype=np.int64), counts])
        clip = Quantiser(task.quantiser.bits, "clip", CLIP)
        gradient = np.zeros(found.point.shape, dtype=np.int64)
        for whole, labels in self._blocks(task, data):
            rows = without(whole, found.direction, task.quantiser)
            off = residuals(rows, labels, found.point, task.quantiser.scale, found.log_prior)
            gradient += (rows.T @ clip.integers(off)).astype(np.int64)
        return gradient.ravel()

    def absorb(
        self, public: PrivateGradientPublic, total: Integers, included: tuple[str, ...]
    ) -> PrivateGradientPublic:
        """Take direction and prior from the first sum, and a step with every other.

        All is integer or elementwise arithmetic, and alike on every machine.
        """
        task, found = public.task, public.descent
        plan, classes = self._schedule(task), len(task.classes)
        if found is None:
            parts = self._first_layout(task).split(total)
            start = np.zeros((plan.dimension, classes))
            log_prior = on_grid(np.log(self._prior(task, parts[COUNTS])))
            rows = parts.get(ROWS, np.zeros(plan.dimension, dtype=np.int64))
            found = Descent(direction_of(rows), log_prior, start, start)
            return PrivateGradientPublic(task, 1, found)
        gradient = total.reshape(found.weights.shape)
        balanced = classes * gradient - gradient.sum(axis=1, keepdims=True)
        unit = plan.rate * CLIP / (classes * task.quantiser.scale**2)
        weights = on_grid(found.point - unit * balanced)
        step = public.done
        point = on_grid(weights + (step / (step + 3)) * (weights - found.weights))
        moved = structs.replace(found, weights=weights, point=point)
        return PrivateGradientPublic(task, step + 1, moved)

    def model(self, public: PrivateGradientPublic) -> LinearModel:
        """Return the linear model, whose row map takes mean and direction off rows."""
        task, found = public.task, public.descent
        assert found is not None, "the model exists after the sums"
        observed = np.exp(found.log_prior)
        observed /= observed.sum()
        return LinearModel(
            found.weights,
            task.classes,
            observed=observed,
            prior=prior_shares(self.prior or OBSERVED, task.classes, observed),
            reduction=row_map(
                task.feature_dim, self._signs(task), found.direction, centre=self._centres(task)
            ),
        )

    def _schedule(self, task: Task) -> Schedule:
        return schedule(
            _mechanism(task).privacy,
            task.total_rows,
            task.client_rows,
            task.feature_dim,
            len(task.classes),
            self.run_sums(task) - 1,
            centred=self._centres(task),
        )

    def _signs(self, task: Task) -> Floats | None:
        return projection(task.feature_dim, self._schedule(task).dimension, self.seed)

    def _first_layout(self, task: Task) -> Layout:
        scale, count, k = task.quantiser.scale, _count(task), self._schedule(task).dimension
        most, own = task.total_rows, task.client_rows
        rows = Block(ROWS, k, -most * scale, most * scale, 1 / scale, -own * scale, own * scale)
        counts = Block(COUNTS, len(task.classes), 0, most * count, 1 / count, 0, own * count)
        return Layout((rows, counts) if self._centres(task) else (counts,))

    def _centres(self, task: Task) -> bool:
        return task.feature_dim >= _LEAST_CENTRED if self.centre is None else self.centre

    def _of_patients(self, task: Task, data: ClientData, found: Descent | None) -> Integers:
        """Sum what patients add, each within the bound of one row."""
        check_finite(data.features)
        scale, count, classes = task.quantiser.scale, _count(task), len(task.classes)
        k = self._schedule(task).dimension
        groups = PatientGroups.of(known_patients(data.name, data.patients))
        total = np.zeros(self._first_layout(task).length if found is None else k * classes)
        for places in groups.batches(task.feature_dim + k, len(total)):
            shape, labels = places.shape, data.labels[places.ravel()]
            rows = self._brought(task, data.features[places.ravel()])
            if found is None:
                summed = (count * one_hot(labels, classes)).reshape(*shape, classes).sum(axis=1)
                total[-classes:] += within(summed, count**2).sum(axis=0)
                if self._centres(task):
                    total[:k] += within(rows.reshape(*shape, k).sum(axis=1), scale**2).sum(axis=0)
                continue
            rows = without(rows, found.direction, task.quantiser)
            off = residuals(rows, labels, found.point, scale, found.log_prior)
            # In whole steps, so that a patient's sum is exact in any order of addition.
            steps = np.rint(off * WEIGHT_SCALE).reshape(*shape, classes)
            outer = rows.reshape(*shape, k).transpose(0, 2, 1) @ steps
            terms = outer.reshape(shape[0], -1) * (scale / (WEIGHT_SCALE * CLIP))
            total += within(terms, scale**4).sum(axis=0)
        return total.astype(np.int64)

    def _blocks(self, task: Task, data: ClientData) -> Iterator[tuple[Floats, Integers]]:
        """Yield the client's rows, centred and projected, (n, k), with labels, block by block."""
        for start in range(0, len(data), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            yield self._brought(task, data.features[block], start), data.labels[block]

    def _brought(self, task: Task, features: NDArray[np.floating], first_row: int = 0) -> Floats:
        """Return rows (n, k) as all sums see them."""
        bring = centred if self._centres(task) else projected
        return bring(features, task.quantiser, self._signs(task), first_row)

    def _prior(self, task: Task, counts: Integers) -> Floats:
        """Return class shares from noisy counts, drawn to equal ones as far as noise explains."""
        count, mechanism = _count(task), _mechanism(task)
        sensitivity = self.sensitivity(PrivateGradientPublic(task), mechanism.privacy)
        noisy = NoisySum(mechanism, self._first_layout(task), sensitivity)
        found = [int(entry) / count for entry in counts]
        shares = drawn_together(found, noisy.stds[COUNTS] / count)
        total = math.fsum(shares)
        return np.array([share / total for share in shares])


def _mechanism(task: Task) -> Mechanism:
    if task.mechanism is None:
        raise ConfigError(_NO_PROMISE)
    return task.mechanism


def _count(task: Task) -> int:
    """Return the integer that stands for one row in the counts."""
    return max(1, int(COUNTS_WEIGHT * task.quantiser.scale))
