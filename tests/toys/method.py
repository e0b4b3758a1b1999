"""A method in one file: the nearest class mean, from class sums and counts.

It shows that a method is added by adding a file.
"""

from typing import Annotated

import numpy as np
from msgspec import Meta

from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import METHODS, Method, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity


class ToyPublic(PublicState, frozen=True, eq=False):
    """After the sum, the class means (C, d)."""

    means: Floats | None = None


@METHODS.register
class ToyMeans(Method[ToyPublic], frozen=True, tag="toy-means"):
    """Nearest class mean.

    Attributes:
        stretch: what scores are multiplied by.
    """

    name = "toy-means"
    summary = "the nearest class mean"
    public = ToyPublic
    row_additive = True
    ignores = ("same_set",)
    stretch: Annotated[
        float,
        Meta(gt=0, le=100, description="what scores are multiplied by.", extra={"metavar": "S"}),
    ] = 1.0

    def begin(self, task: Task) -> ToyPublic:
        return ToyPublic(task)

    def layout(self, public: ToyPublic) -> Layout | None:
        return None if public.means is not None else self._layout(public.task)

    def sensitivity(self, public: ToyPublic, privacy: Privacy) -> Sensitivity:
        raise ConfigError("toy-means promises nothing; leave --epsilon out")

    def contribute(
        self, public: ToyPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        rows = public.task.quantiser.integers(data.features).astype(np.int64)
        one_hot = np.eye(len(public.task.classes), dtype=np.int64)[data.labels]
        return np.concatenate([(one_hot.T @ rows).ravel(), one_hot.sum(axis=0)])

    def absorb(self, public: ToyPublic, total: Integers, included: tuple[str, ...]) -> ToyPublic:
        parts = self._layout(public.task).split(total)
        counts = np.maximum(parts["counts"], 1)
        sums = parts["sums"].reshape(len(counts), -1)
        return ToyPublic(public.task, sums / counts[:, None] / public.task.quantiser.scale)

    def model(self, public: ToyPublic) -> LinearModel:
        assert public.means is not None
        means = self.stretch * public.means
        offset = -0.5 / self.stretch * (means**2).sum(axis=1)
        return LinearModel(np.ascontiguousarray(means.T), public.task.classes, offset)

    def _layout(self, task: Task) -> Layout:
        bound, classes = task.total_rows * task.quantiser.scale, len(task.classes)
        sums = Block("sums", classes * task.feature_dim, -bound, bound, 1 / task.quantiser.scale)
        return Layout((sums, Block("counts", classes, 0, task.total_rows)))
