"""A method whose two sums differ in layout and sensitivity: no registry holds it."""

import numpy as np

from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import Method, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity


class TwoRoundsPublic(PublicState, frozen=True, eq=False):
    """After the first sum the dimensions kept (k,), after the second the class sums (C, k) too."""

    kept: Integers | None = None
    sums: Floats | None = None


class TwoRounds(Method[TwoRoundsPublic], frozen=True, tag="two-rounds"):
    """The half of the dimensions that has most energy, then the class sums in it.

    Attributes:
        foresees: noise is calibrated for both sums, and not for the first alone.
    """

    name = "two-rounds"
    summary = "class sums in half of the dimensions"
    public = TwoRoundsPublic
    row_additive = True
    foresees: bool = True

    @property
    def sums(self) -> int:
        return 2

    def begin(self, task: Task) -> TwoRoundsPublic:
        return TwoRoundsPublic(task)

    def foreseen(self, task: Task) -> tuple[TwoRoundsPublic, ...]:
        # Which dimensions are kept makes no difference to the noise.
        second = TwoRoundsPublic(task, np.arange(_half(task)))
        return (self.begin(task), second) if self.foresees else (self.begin(task),)

    def layout(self, public: TwoRoundsPublic) -> Layout | None:
        task = public.task
        rows, scale = task.total_rows, task.quantiser.scale
        if public.kept is None:
            return Layout((Block("squares", task.feature_dim, 0, rows * scale**2, scale**-2),))
        length, bound = len(task.classes) * len(public.kept), rows * scale
        block = Block("sums", length, -bound, bound, 1 / scale)
        return Layout((block,)) if public.sums is None else None

    def sensitivity(self, public: TwoRoundsPublic, privacy: Privacy) -> Sensitivity:
        if (privacy.unit, privacy.neighbours) != ("example", "add-remove"):
            raise ConfigError("two-rounds hides that an example was there, and nothing else")
        # A row of norm ≤ B has squares of norm ≤ B².
        scale = public.task.quantiser.scale
        if public.kept is None:
            return Sensitivity(float(scale**2), (("squares", 1.0),))
        return Sensitivity(float(scale), (("sums", 1.0),))

    def contribute(
        self, public: TwoRoundsPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        rows: Integers = public.task.quantiser.integers(data.features).astype(np.int64)
        if public.kept is None:
            squares: Integers = (rows**2).sum(axis=0)
            return squares
        one_hot = np.eye(len(public.task.classes), dtype=np.int64)[data.labels]
        return (one_hot.T @ rows[:, public.kept]).ravel()

    def absorb(
        self, public: TwoRoundsPublic, total: Integers, included: tuple[str, ...]
    ) -> TwoRoundsPublic:
        task = public.task
        if public.kept is None:
            largest = np.argsort(-total, kind="stable")[: _half(task)]
            return TwoRoundsPublic(task, np.sort(largest).astype(np.int64))
        sums = total.reshape(len(task.classes), -1) / task.quantiser.scale
        return TwoRoundsPublic(task, public.kept, sums)

    def model(self, public: TwoRoundsPublic) -> LinearModel:
        assert public.kept is not None
        assert public.sums is not None
        weights = np.zeros((public.task.feature_dim, len(public.task.classes)))
        weights[public.kept] = public.sums.T
        return LinearModel(weights, public.task.classes)


def _half(task: Task) -> int:
    return (task.feature_dim + 1) // 2
