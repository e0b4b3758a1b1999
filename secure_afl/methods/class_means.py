"""Nearest class means from class sums and counts alone: no Gram matrix is ever summed."""

import math

import numpy as np

from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.heads.head import Fitted, Head
from secure_afl.analytic.heads.means import Means
from secure_afl.analytic.moments import Moments
from secure_afl.analytic.patients import rooted
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import count_labels
from secure_afl.errors import ConfigError
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import METHODS, Method, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity

CROSS, COUNTS = "cross", "counts"


class ClassMeansPublic(PublicState, frozen=True, eq=False):
    """The task, and after the sum the classifier."""

    fitted: Fitted | None = None


@METHODS.register
class ClassMeans(Method[ClassMeansPublic], frozen=True, tag="class-means"):
    """The nearest class mean from (ΣQ, Σn).

    It is the safest release that there is here: without a Gram matrix neither a rotation of it nor
    lattice reduction gives rows. A class of one row still hands over that row.
    """

    name = "class-means"
    summary = "nearest class means, from class sums and counts alone"
    public = ClassMeansPublic
    row_additive = True
    hides_patients = True
    ignores = ("same_set", "cross_weight")

    def heads(self, task: Task) -> tuple[Head, ...]:
        """Return the one head, of class means."""
        return (Means(),)

    def fitted(self, public: ClassMeansPublic) -> Fitted | None:
        """Return the classifier, once it is there."""
        return public.fitted

    def begin(self, task: Task) -> ClassMeansPublic:
        """Return the task with no classifier yet."""
        return ClassMeansPublic(task)

    def layout(self, public: ClassMeansPublic) -> Layout | None:
        """Return the layout of (Q, n); None once the classifier is there."""
        return None if public.fitted is not None else self._layout(public.task)

    def sensitivity(self, public: ClassMeansPublic, privacy: Privacy) -> Sensitivity:
        """Bound how far one unit moves (Q, n), counts having a quarter of Q's μ.

        With B the norm of a row and v = ¼, an example that comes or goes moves (Q, n·Bv) by
        B√(1 + v²); one that becomes another by 2B within its class, and by B√(2 + 2v²), which is
        less, between two. A client has as many times that as it declares rows. All rows of a
        patient have what one has: rows of norm ≤ B/√m and labels ≤ A/√m make its part a mean of
        single rows' parts.
        """
        bound, label = public.task.quantiser.scale, public.task.label_scale
        v2 = _COUNTS_WEIGHT**2
        replaced = privacy.neighbours == "replace-one"
        row = bound * label * (2.0 if replaced else math.sqrt(1 + v2))
        rows = public.task.client_rows if privacy.unit == "client" else 1
        counts = label / (bound * _COUNTS_WEIGHT)
        return Sensitivity(row * rows, ((CROSS, 1.0), (COUNTS, counts)))

    def contribute(
        self, public: ClassMeansPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Sum the client's integer rows by class, (d·C + C,) int64; with weights times labels.

        Raises:
            DataError: features that are not finite, or rows that do not say whose they are where
                patients are the unit.
        """
        task = public.task
        rows_each = task.rows_each(data)
        rows = task.quantiser.integers(data.features, rows_each=rows_each)
        marks = None if rows_each is None else rooted(task.label_scale, rows_each)
        if marks is not None:
            rows *= marks[:, None]
        classes = len(task.classes)
        sums = np.zeros((task.feature_dim, classes), dtype=np.int64)
        for place in range(classes):
            # Integers below 2^53 are added exactly in any order.
            sums[:, place] = rows[data.labels == place].sum(axis=0).astype(np.int64)
        counts = count_labels(data.labels, classes, marks)
        return np.concatenate([sums.ravel(), counts])

    def absorb(
        self, public: ClassMeansPublic, total: Integers, included: tuple[str, ...]
    ) -> ClassMeansPublic:
        """Divide class sums by counts; noisy counts below one row, or patient, count as none.

        Raises:
            ConfigError: no class has rows.
        """
        task = public.task
        blocks = self._layout(task).split(total)
        counts = blocks[COUNTS] / task.label_scale**2
        if task.mechanism is not None:
            counts = np.where(counts >= 1, counts, 0.0)
        if not counts.any():
            raise ConfigError("no class has rows in this sum; give more rows, or a larger ε")
        unit = task.quantiser.scale * task.label_scale
        cross = blocks[CROSS].reshape(task.feature_dim, -1) / unit
        fit = Means().fit(Moments(None, cross, counts), task.classes)
        return ClassMeansPublic(task, fit.fitted)

    def model(self, public: ClassMeansPublic) -> LinearModel:
        """Return the linear model; call it after the sum."""
        assert public.fitted is not None, "the model exists after the sum"
        return LinearModel.fitted(public.fitted, public.task.classes, public.task.quantiser)

    def _layout(self, task: Task) -> Layout:
        scale, mass = task.quantiser.scale * task.label_scale, task.label_scale**2
        rows, one, classes = task.total_rows, task.client_rows, len(task.classes)
        reach, own = rows * scale, one * scale
        return Layout(
            (
                Block(CROSS, task.feature_dim * classes, -reach, reach, 1 / scale, -own, own),
                Block(COUNTS, classes, 0, rows * mass, 1 / mass, 0, one * mass),
            )
        )


# μ of the counts in units of that of the class sums: a mean is divided by its count, which matters
# less than its direction.
_COUNTS_WEIGHT = 0.25
