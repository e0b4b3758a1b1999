"""Small made-up clients, and methods that only tests need."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.layout import Block, Integers, Layout
from protocols.party import Party, Sum
from protocols.roster import CLIENT
from protocols.schemes.plain import SERVER, Plain, PlainClient, PlainServer
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.ridge import ridge
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics, statistics_layout
from secure_afl.errors import ConfigError
from secure_afl.methods import AFL, Memory, Method, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.methods.summed import SummedPublic
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity


def make_client(name: str, rows: int, dim: int = 6, classes: int = 3, seed: int = 0) -> ClientData:
    """Rows around one centre for each class."""
    rng = np.random.default_rng([seed, *name.encode()])
    centres = np.random.default_rng(seed).standard_normal((classes, dim))
    labels = rng.integers(0, classes, rows)
    return ClientData(name, centres[labels] + 0.7 * rng.standard_normal((rows, dim)), labels)


def make_clients(
    sizes: Sequence[int], dim: int = 6, classes: int = 3, seed: int = 0
) -> list[ClientData]:
    """Clients named c0, c1, …"""
    return [make_client(f"c{i}", rows, dim, classes, seed) for i, rows in enumerate(sizes)]


def make_task(
    clients: Sequence[ClientData], classes: int = 3, bits: int = 8, max_rows: int | None = None
) -> Task:
    """The task of these clients, each of which declares `max_rows`, or just what it has."""
    return Task(
        feature_dim=clients[0].features.shape[1],
        classes=tuple(str(i) for i in range(classes)),
        quantiser=Quantiser(bits),
        total_rows=sum(max_rows or len(client) for client in clients),
        client_rows=max(max_rows or len(client) for client in clients),
        clients=len(clients),
        backbone=bytes(32),
    )


def by_hand(
    rows: NDArray[np.floating], labels: Integers, classes: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Gram, cross term and counts of integer rows in Python's own integers."""
    exact = np.array([[int(entry) for entry in row] for row in rows], dtype=object)
    one_hot = np.array([[int(y == c) for c in range(classes)] for y in labels], dtype=object)
    return exact.T @ exact, exact.T @ one_hot, one_hot.sum(axis=0)


class CentredPublic(PublicState, frozen=True, eq=False):
    """After the first sum the integer mean, after the second the weights as well."""

    mean: Integers | None = None
    weights: Floats | None = None


class Centred(Method[CentredPublic], frozen=True, tag="centred"):
    """Two rounds: the mean of all integer rows, then ridge on rows less that mean."""

    name = "centred"
    public = CentredPublic
    row_additive = True
    ridge: float = 0.5

    @property
    def sums(self) -> int:
        return 2

    def begin(self, task: Task) -> CentredPublic:
        return CentredPublic(task)

    def layout(self, public: CentredPublic) -> Layout | None:
        task = public.task
        rows, scale = task.total_rows, task.quantiser.scale
        if public.mean is None:
            total = Block("total", task.feature_dim, -rows * scale, rows * scale)
            return Layout((total, Block("rows", 1, 0, rows)))
        return self._centred_layout(task) if public.weights is None else None

    def sensitivity(self, public: CentredPublic, privacy: Privacy) -> Sensitivity:
        raise ConfigError("of no interest to these tests")

    def contribute(
        self, public: CentredPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        if "integers" not in memory:
            memory["integers"] = public.task.quantiser.integers(data.features).astype(np.int64)
        rows: Integers = np.asarray(memory["integers"], dtype=np.int64)
        if public.mean is None:
            return np.append(rows.sum(axis=0), len(rows))
        centred = rows - public.mean
        one_hot = np.eye(len(public.task.classes), dtype=np.int64)[data.labels]
        return Statistics(centred.T @ centred, centred.T @ one_hot, one_hot.sum(axis=0)).pack()

    def absorb(
        self, public: CentredPublic, total: Integers, included: tuple[str, ...]
    ) -> CentredPublic:
        task = public.task
        if public.mean is None:
            # Toward zero, so that the mean's norm stays within the rows' bound.
            sums, rows = total[:-1], total[-1]
            return CentredPublic(task, np.sign(sums) * (np.abs(sums) // rows))
        layout = self._centred_layout(task)
        gram, cross = Statistics.unpack(total, layout).floats(task.quantiser)
        return CentredPublic(task, public.mean, ridge(gram, cross, self.ridge))

    def model(self, public: CentredPublic) -> LinearModel:
        assert public.weights is not None
        return LinearModel(public.weights, public.task.classes)

    def _centred_layout(self, task: Task) -> Layout:
        # A row less the mean has twice the norm at most.
        twice = Quantiser(task.quantiser.bits + 1)
        return statistics_layout(task.feature_dim, len(task.classes), twice, task.total_rows)


class MiscountingServer(PlainServer):
    """Off by one."""

    @property
    def result(self) -> Sum | None:
        released = super().result
        if released is None:
            return None
        total = released.total.copy()
        total[0] += 1
        return Sum(total, released.included)


class Miscounting(Plain, frozen=True, tag="miscounting"):
    """A protocol whose server is off by one."""

    @classmethod
    def parties(cls) -> Mapping[str, type[Party]]:
        return {CLIENT: PlainClient, SERVER: MiscountingServer}


class NotAdditive(AFL, frozen=True, tag="not-additive"):
    """Claims that pooled rows give the sum of the vectors, but they do not."""

    row_additive = True

    def contribute(
        self, public: SummedPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        vector = super().contribute(public, data, memory, entropy)
        vector[-1] = 1
        return vector
