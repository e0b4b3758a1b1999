"""Noisy gradients of patients: a patient's part is within one row's bound, to the last integer."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import Additive
from protocols.layout import Integers
from protocols.network import FaultPlan
from secure_afl.analytic.residuals import WEIGHT_SCALE, residuals
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import DataError
from secure_afl.features.centring import centred, projection, without
from secure_afl.federation.simulation import Federation
from secure_afl.methods import PrivateGradient, Task
from secure_afl.methods.private_gradient import PrivateGradientPublic
from secure_afl.privacy.mechanism import Mechanism, Privacy
from secure_afl.privacy.schedule import CLIP
from tests.kit.samples import make_client, make_task

CLASSES = ("0", "1", "2")
SHORT = PrivateGradient(centre=True, rounds=5)
SCALE, DIMENSION = 4096, 32


def of_patients(name: str, rows: int) -> ClientData:
    data = make_client(name, rows, dim=40)
    whose = [f"p{place % 4}" if place < rows - 2 else "" for place in range(rows)]
    return ClientData(name, data.features, data.labels, whose)


CLIENTS = [of_patients(f"c{i}", rows) for i, rows in enumerate([14, 5, 9, 31, 8])]


def shortened(part: list[float], longest: int) -> list[int]:
    """One patient's part, entry by entry."""
    norm, reach = math.sqrt(math.fsum(x * x for x in part)), math.sqrt(longest) - 1
    if sum(round(x) ** 2 for x in part) <= longest:
        return [round(x) for x in part]
    entries = [x * min(1.0, reach / norm) for x in part]
    found = [round(x) for x in entries]
    return found if sum(x * x for x in found) <= longest else [math.trunc(x) for x in entries]


def by_hand(public: PrivateGradientPublic, data: ClientData) -> Integers:
    """A client's vector, patient by patient and row by row."""
    quantiser, found = public.task.quantiser, public.descent
    signs = projection(40, DIMENSION, 0)
    parts: dict[str, list[Any]] = {}
    for place, (features, label) in enumerate(zip(data.features, data.labels, strict=True)):
        assert data.patients is not None
        row = centred(features[None], quantiser, signs)
        if found is None:
            marks = [SCALE // 2 * int(label == c) for c in range(3)]
            part = np.array([*map(int, row[0]), *marks], dtype=object)
        else:
            row = without(row, found.direction, quantiser)
            off = residuals(row, np.array([label]), found.point, SCALE, found.log_prior)
            steps = [round(x * WEIGHT_SCALE) for x in off[0]]
            part = np.outer(np.array([*map(int, row[0])], object), steps).ravel()
        parts.setdefault(data.patients[place] or f"row {place}", []).append(part)
    unit = SCALE / (WEIGHT_SCALE * CLIP)
    whole = []
    for rows in parts.values():
        added = list(sum(rows))
        if found is None:
            ours = shortened(added[:DIMENSION], SCALE**2)
            whole.append([*ours, *shortened(added[DIMENSION:], (SCALE // 2) ** 2)])
        else:
            whole.append(shortened([x * unit for x in added], SCALE**4))
    vector: Integers = np.sum(np.array(whole, dtype=np.int64), axis=0)
    return vector


@pytest.mark.parametrize(
    "drop", [[], pytest.param(["c2"], marks=pytest.mark.slow)], ids=["all", "one drops out"]
)
def test_every_sum_is_patients_and_noise_to_the_last_bit(drop: list[str]) -> None:
    privacy = Privacy(4.0, unit="patient")
    federation = Federation(SHORT, Additive(), privacy=privacy, min_cohort=4)
    plan = FaultPlan(reload=True) if drop else None
    result = federation.run(CLIENTS, classes=CLASSES, max_rows=8, record=True, drop=drop, plan=plan)
    assert result.report.exact
    assert len(result.rounds) == 5
    for round_ in result.rounds:
        names = round_.released.included
        assert len(names) == 5 - len(drop)
        public = round_.public
        assert isinstance(public, PrivateGradientPublic)
        clear = np.sum([by_hand(public, c) for c in CLIENTS if c.name in names], axis=0)
        noise = np.sum([round_.noise[name] for name in names], axis=0)
        assert np.array_equal(round_.released.total, clear + noise)


def task_of(privacy: Privacy, bits: int) -> Task:
    bare = make_task([make_client(f"c{i}", 4, dim=6) for i in range(3)], bits=bits, max_rows=4)
    return msgspec.structs.replace(bare, mechanism=Mechanism(privacy, SHORT.sums, 3, 0, 1))


@pytest.mark.parametrize("bits", [3, 12])
@pytest.mark.parametrize("neighbours", ["add-remove", "replace-one"])
def test_no_patient_moves_a_sum_further_and_some_nearly_do(neighbours: Any, bits: int) -> None:
    privacy = Privacy(1.0, unit="patient", neighbours=neighbours)
    task, rng = task_of(privacy, bits), np.random.default_rng(0)
    states = [SHORT.begin(task)]
    states.append(SHORT.absorb(states[0], rng.integers(-900, 900, 6 + 3), ("c0",)))
    states.append(SHORT.absorb(states[1], rng.integers(-(10**7), 10**7, 18), ("c0",)))
    for state in states:
        bound, layout = SHORT.sensitivity(state, privacy).joint, SHORT.layout(state)
        assert layout is not None

        def part(rows: np.ndarray, labels: np.ndarray, state: Any = state) -> Integers:
            whose = ["x"] * len(rows)
            return SHORT.contribute(state, ClientData("c0", rows, labels, whose), {}, b"")

        parts = [np.zeros(layout.length, dtype=np.int64)]
        for several in (1, 2, 3, 7, 40):
            for trial in range(8):
                rows = rng.standard_normal((several, 6))
                if trial % 2:
                    rows[:] = rows[0]
                labels = rng.integers(0, 3, several) if trial < 4 else np.full(several, trial % 3)
                parts += [part(rows, labels), part(-rows, labels)]
                layout.check(parts[-1])
        ends = parts[:1] if neighbours == "add-remove" else parts
        greatest = max(float(np.linalg.norm(one - other)) for one in parts for other in ends)
        assert greatest <= bound
        # At three bits a unit of rounding is an eighth.
        assert greatest > (0.97 if bits == 12 else 0.6) * bound


def test_other_patients_do_not_turn_on_one() -> None:
    """Also where their rows lie between its rows."""
    task = task_of(Privacy(1.0, unit="patient"), 12)
    rng, first = np.random.default_rng(4), SHORT.begin(task)
    state = SHORT.absorb(first, rng.integers(-900, 900, 6 + 3), ("c0",))
    rows, labels = rng.standard_normal((30, 6)), rng.integers(0, 3, 30)
    whose = np.array([f"p{place * place % 7}" for place in range(30)])
    for public in (first, state):
        whole = SHORT.contribute(public, ClientData("c0", rows, labels, list(whose)), {}, b"")
        apart = [
            SHORT.contribute(
                public, ClientData("c0", rows[its], labels[its], list(whose[its])), {}, b""
            )
            for its in (whose == name for name in np.unique(whose))
        ]
        assert np.array_equal(np.sum(apart, axis=0), whole)


def test_rows_of_nobody_known_are_refused() -> None:
    task = task_of(Privacy(1.0, unit="patient"), 12)
    with pytest.raises(DataError, match="does not say whose"):
        SHORT.contribute(SHORT.begin(task), make_client("c0", 4, dim=6), {}, b"")
