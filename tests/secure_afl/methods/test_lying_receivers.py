"""What a receiver reads that lies about the state between exact sums, as SECURITY.md says it can.

All others are honest, pin one another, and want the same set in every round. Tests here fail where
SECURITY.md and a run's warnings say too much, or too little.
"""

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace

from protocols import Additive
from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.residuals import on_grid
from secure_afl.analytic.rows import ClientData
from secure_afl.federation.task import Terms
from secure_afl.federation.warnings import warnings
from secure_afl.methods import (
    AFL,
    AnyMethod,
    FedACnnL,
    Logistic,
    PFedACnnL,
    PublicState,
    Softmax,
    Task,
)
from secure_afl.methods.personal.personal import halves
from secure_afl.methods.pfedacnnl import GroupedPublic
from secure_afl.methods.softmax import RESIDUAL_SCALE, SoftmaxPublic
from tests.kit.halves import Halves
from tests.kit.samples import make_clients, make_task
from tests.secure_afl.methods.test_fedacnnl import CLASSES
from tests.secure_afl.methods.test_pfedacnnl import SMALL, turned


class Liar:
    """A receiver that says what the next state is, whatever follows from the sum that it has."""

    def __init__(self, method: AnyMethod, task: Task, clients: Sequence[ClientData]) -> None:
        terms = Terms(method, Additive())
        wishes: Any = {"max_rows": 64, "min_cohort": len(clients) // 2 + 1, "same_set": True}
        self._world = Halves(terms, task, clients, **wishes)
        self._members = {
            client.name: self._world.client(client.name, pinned=self._world.roster, same_set=True)
            for client in clients
        }

    @property
    def state(self) -> PublicState:
        return self._world.server.public

    def blind_sum(self) -> Integers:
        """The sum that everybody makes honestly under the present state."""
        self._session, enrolments = self._world.form()
        released, _, _ = self._world.carry(self._session, enrolments, self._members)
        assert released.included == self._session.clients
        self._total = released.total
        return released.total

    def say(self, state: PublicState) -> None:
        """Go on from a state of one's own, over the release that was really signed."""
        self._world.pretend(state, self._session, self._total)
        # A total that follows from no state is shown to nobody.
        self._world.server._ended = None


def test_one_row_comes_out_of_softmax_for_a_receiver_that_chooses_points() -> None:
    """Bisect the angle of a plane until one row alone changes its side."""
    clients = make_clients((40,) * 5, classes=2)
    task = make_task(clients, classes=2, bits=10, max_rows=64)
    liar = Liar(Softmax(steps=14), task, clients)
    liar.blind_sum()
    search = one_row_apart(task.quantiser.scale)
    angle, sums = next(search), 0
    while True:
        weights = on_grid(plane(angle))
        liar.say(SoftmaxPublic(task, sums + 1, weights, weights))
        gradient = liar.blind_sum().reshape(6, 2)[:, 1] / RESIDUAL_SCALE
        sums += 1
        try:
            angle = search.send(gradient)
        except StopIteration as found:
            row = np.rint(found.value).astype(int)
            break
    rows = np.vstack([task.quantiser.integers(c.features, 0) for c in clients])
    apart = np.minimum(np.abs(rows - row).max(axis=1), np.abs(rows + row).max(axis=1))
    assert sums <= 14
    assert sorted(apart)[0] <= 2 < sorted(apart)[1]


def plane(angle: float) -> Floats:
    """Weights so steep that every row's residual is 0 or 1, of a plane through the origin."""
    one, other = np.linalg.qr(np.random.default_rng(3).standard_normal((6, 2)))[0].T
    steep: Floats = (np.cos(angle) * one + np.sin(angle) * other) * 4000
    return np.column_stack((np.zeros(6), steep))


def one_row_apart(scale: int) -> Generator[float, Floats, Floats]:
    """Ask for gradients at angles; returns the difference of two that is one row's."""
    low, high = 0.0, 0.5
    at_low = yield low
    at_high = yield high
    while True:
        middle = (low + high) / 2
        at_middle = yield middle
        left, right = at_middle - at_low, at_high - at_middle
        # Go on where fewer rows change sides, but not where none does.
        if scale / 2 < np.linalg.norm(left) <= max(float(np.linalg.norm(right)), scale / 2):
            high, at_high, change = middle, at_middle, left
        elif np.linalg.norm(right) > scale / 2:
            low, at_low, change = middle, at_middle, right
        else:
            high, at_high, change = middle, at_middle, left
        if abs(np.linalg.norm(change) / scale - 1) < 0.01:
            return change


def test_a_clients_sum_comes_out_of_groups_that_a_receiver_does_not_join() -> None:
    clients, _ = turned(clients=6)
    method = PFedACnnL(groups=4, regroupings=1, least_clients=3, personal="none", **SMALL)
    task = replace(make_task(clients, max_rows=64), classes=tuple(CLASSES))
    liar = Liar(method, task, clients)
    liar.say(method.absorb(state_of(liar), liar.blind_sum(), ()))
    counts = liar.blind_sum()
    assert set(method.absorb(state_of(liar), counts, ()).joins) == {0}  # type: ignore[attr-defined]
    liar.say(replace(state_of(liar), joins=tuple(range(4))))
    before = state_of(liar)
    blocks = liar.blind_sum().reshape(4, -1)
    alone = np.flatnonzero(counts == 1)
    assert len(alone)
    plain = FedACnnL(**SMALL)
    vectors = [plain.contribute(before, halves(c)[0], {}, b"") for c in clients]
    for group in alone:
        assert sum(np.array_equal(blocks[group], vector) for vector in vectors) == 1


def state_of(liar: Liar) -> GroupedPublic:
    assert isinstance(liar.state, GroupedPublic)
    return liar.state


def test_runs_of_these_methods_say_so() -> None:
    rows, (images, _) = make_clients((240, 240, 240)), turned(clients=3)
    for method, clients, read in (
        (Softmax(), rows, "single rows"),
        (Logistic(), rows, "single rows"),
        (PFedACnnL(groups=2, **SMALL), images, "the sums of single clients"),
    ):
        said = [w for w in warned(method, clients) if "lies" in w]
        assert len(said) == 1
        assert said[0].startswith(f"The collector could read {read}, if it lies")
    assert not warned(AFL(), rows)
    assert not [w for w in warned(PFedACnnL(**SMALL), images) if "lies" in w]


def warned(method: AnyMethod, clients: Sequence[ClientData]) -> Sequence[str]:
    return warnings(Terms(method, Additive()), make_task(clients), clients)
