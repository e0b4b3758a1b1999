"""Softmax regression in a few blind sums after AFL's: a fair iterative baseline."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from msgspec import Meta

from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.heads.head import Fitted
from secure_afl.analytic.heads.ridge import Ridge
from secure_afl.analytic.moments import Moments
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.residuals import MAX_WEIGHT, is_on_grid, on_grid, residuals
from secure_afl.analytic.rows import ClientData, check_rows
from secure_afl.analytic.statistics import Statistics, packed_statistics, statistics_layout
from secure_afl.checks import settle_float, settle_int
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import METHODS, Method, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity

GRADIENT = "gradient"

# Residuals are integers of this scale.
RESIDUAL_SCALE = 1 << 12


class SoftmaxPublic(PublicState, frozen=True, eq=False):
    """The task, and after a sum the weights.

    Attributes:
        done: sums that are over.
        weights: W, (d, C) float64, in steps of 2^-16.
        point: Nesterov's point, at which clients take the next gradient, likewise.
    """

    done: int = 0
    weights: Floats | None = None
    point: Floats | None = None


@METHODS.register
class Softmax(Method[SoftmaxPublic], frozen=True, tag="softmax"):
    """Multinomial logistic regression: one sum of (G, Q, n), then sums of gradients.

    g = ΣFᵀ(softmax(FV) − Y) is d·C integers a sum, and W ← V − (½G + λI)⁻¹(g + λV): ½G bounds the
    Hessian (Böhning 1992), so that there is no learning rate. V is Nesterov's point, taken back to
    W where the step turns against the last. The start is ridge's classifier, four times its size.

    Attributes:
        steps: gradient sums after the first, 1 to 50.
        penalty: λ of the L2 penalty, 1e-9 to 1e9.
    """

    name = "softmax"
    summary = "softmax regression: afl's sum, then one small sum a step"
    public = SoftmaxPublic
    row_additive = True
    releases_statistics = True
    steps: Annotated[
        int,
        Meta(ge=1, le=50, description="gradient sums after the first.", extra={"metavar": "N"}),
    ] = 4
    penalty: Annotated[
        float,
        Meta(
            ge=1e-9,
            le=1e9,
            description="λ of the L2 penalty, in squared norms of the rows, which are 1.",
            extra={"metavar": "λ"},
        ),
    ] = 0.03

    def __post_init__(self) -> None:
        settle_int(self, "steps", 1, 50)
        settle_float(self, "penalty", 1e-9, 1e9)

    @property
    def sums(self) -> int:
        """One for the statistics, and one a step."""
        return 1 + self.steps

    @property
    def needs_totals(self) -> bool:
        """The Gram matrix of the first sum is the receiver's, and needed after every other."""
        return True

    @property
    def liar_reads(self) -> str:
        """Rows: gradients at two points may differ by one alone."""
        return "single rows"

    def begin(self, task: Task) -> SoftmaxPublic:
        """Return the task with no weights yet.

        Raises:
            ConfigError: a task with noise.
        """
        if task.mechanism is not None:
            raise ConfigError(
                "softmax has no form for sums with noise; leave --epsilon out, or take --method afl"
            )
        return SoftmaxPublic(task)

    def check(self, public: SoftmaxPublic, round: int) -> None:
        """Check that weights are the task's, finite, and of this round.

        Raises:
            DataError: they are not.
        """
        shape = (public.task.feature_dim, len(public.task.classes))
        for array in (public.weights, public.point):
            if (array is None) != (round == 1):
                raise DataError(
                    f"weights in round {round}: {array is not None}; the first has none"
                )
            if array is not None and not (array.shape == shape and is_on_grid(array)):
                raise DataError(
                    f"weights {list(array.shape)}; wanted {list(shape)}, on the grid within "
                    f"±{MAX_WEIGHT}"
                )
        if public.done != round - 1:
            raise DataError(f"a state after {public.done} sums in round {round}")

    def foreseen(self, task: Task) -> tuple[SoftmaxPublic, ...]:
        """List the state before the statistics, and one before a gradient."""
        zeros = np.zeros((task.feature_dim, len(task.classes)))
        return self.begin(task), SoftmaxPublic(task, 1, zeros, zeros)

    def layout(self, public: SoftmaxPublic) -> Layout | None:
        """Return the layout of the statistics, then of gradients; None after the last step.

        A row of integer norm ≤ s and a residual of size ≤ 1 add at most s times the residuals'
        scale to an entry of the gradient.
        """
        task = public.task
        if public.done > self.steps:
            return None
        if public.done == 0:
            return _statistics_layout(task)
        unit = task.quantiser.scale * RESIDUAL_SCALE
        reach, own = task.total_rows * unit, task.client_rows * unit
        length = task.feature_dim * len(task.classes)
        return Layout((Block(GRADIENT, length, -reach, reach, 1 / unit, -own, own),))

    def sensitivity(self, public: SoftmaxPublic, privacy: Privacy) -> Sensitivity:
        """Refuse: there is no noisy form.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("softmax promises nothing; leave --epsilon out, or take --method afl")

    def contribute(
        self, public: SoftmaxPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Pack the client's statistics, then its gradients, as int64.

        Raises:
            DataError: rows that the task does not take.
        """
        task = public.task
        classes = len(task.classes)
        if public.point is None:
            return packed_statistics(data.features, data.labels, classes, task.quantiser)
        check_rows(data.features, data.labels, classes)
        total = np.zeros((task.feature_dim, classes), dtype=np.int64)
        for start in range(0, len(data), _BLOCK_ROWS):
            rows = task.quantiser.integers(data.features[start : start + _BLOCK_ROWS], start)
            labels = data.labels[start : start + len(rows)]
            of_rows = residuals(rows, labels, public.point, task.quantiser.scale)
            total += (rows.T @ np.rint(RESIDUAL_SCALE * of_rows)).astype(np.int64)
        return total.ravel()

    def absorb(
        self, public: SoftmaxPublic, total: Integers, included: tuple[str, ...]
    ) -> SoftmaxPublic:
        """Refuse: a step needs the first total, see `advance`."""
        raise ConfigError("softmax steps from all totals of a run; call advance")

    def advance(
        self, public: SoftmaxPublic, totals: Sequence[Integers], included: tuple[str, ...]
    ) -> SoftmaxPublic:
        """Take a step with the first total's Gram matrix and the last total's gradient."""
        task = public.task
        statistics = Statistics.unpack(totals[0], _statistics_layout(task))
        moments = Moments.of(statistics, task.quantiser)
        if public.weights is None or public.point is None:
            start = on_grid(_start(moments, task))
            return SoftmaxPublic(task, 1, start, start)
        from scipy.linalg import cho_factor, cho_solve

        shape = public.weights.shape
        gradient = totals[-1].reshape(shape) / (task.quantiser.scale * RESIDUAL_SCALE)
        bound = 0.5 * moments.known_gram + self.penalty * np.eye(len(moments.known_gram))
        slope = gradient + self.penalty * public.point
        weights = public.point - cho_solve(cho_factor(bound), slope)
        moved = weights - public.weights
        # Restart where the step points uphill (O'Donoghue and Candès 2015).
        steps = public.done if float((slope * moved).sum()) <= 0 else 0
        point = weights + steps / (steps + 3) * moved
        return SoftmaxPublic(task, public.done + 1, on_grid(weights), on_grid(point))

    def fitted(self, public: SoftmaxPublic) -> Fitted | None:
        """Return nothing: softmax regression is no head of a sum."""
        return None

    def model(self, public: SoftmaxPublic) -> LinearModel:
        """Return the linear model; its scores of rows of norm 1 are log-odds."""
        assert public.weights is not None, "the model exists after the sums"
        classes = public.task.classes
        fitted = Fitted(public.weights, np.zeros(len(classes)), temperature=1.0)
        return LinearModel.fitted(fitted, classes, public.task.quantiser)


_BLOCK_ROWS = 4096


def _statistics_layout(task: Task) -> Layout:
    return statistics_layout(
        task.feature_dim, len(task.classes), task.quantiser, task.total_rows, task.client_rows
    )


def _start(moments: Moments, task: Task) -> Floats:
    """Return ridge's classifier, by a factor that brings scores to the size of log-odds."""
    weights = Ridge(ridge=0.1).fit(moments, task.classes).fitted.weights
    centred: Floats = weights - weights.mean(axis=1, keepdims=True)
    # Scores of ridge spread by about 1 between classes; log-odds of a good classifier by several.
    return np.asarray(4.0 * centred)
