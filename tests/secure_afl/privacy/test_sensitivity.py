"""Sensitivities against the worst pairs of rows that can be found."""

import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.statistics import Statistics, class_squares, statistics_layout
from secure_afl.errors import ConfigError
from secure_afl.privacy.sensitivity import (
    Neighbours,
    Sensitivity,
    Unit,
    statistics_sensitivity,
    update_sensitivity,
)

Floats = NDArray[np.float64]

BOUND = 16
CASES = [
    # neighbours, w, v, non-negative
    ("add-remove", 0.8, None, False),
    ("add-remove", 2.5, 0.4, False),
    ("replace-one", 0.8, None, False),
    ("replace-one", 1.3, None, False),
    ("replace-one", 2.0, None, False),
    ("replace-one", 0.8, 0.2, False),
    ("replace-one", 0.8, 1.0, False),
    ("replace-one", 0.8, None, True),
    ("replace-one", 2.0, 0.3, True),
]


def vector(row: Floats, label: int, counts: bool) -> dict[str, Floats]:
    """One row's statistics in float64, block by block."""
    gram = np.outer(row, row)
    cross, count = np.zeros((len(row), 2)), np.zeros(2)
    cross[:, label], count[label] = row, 1.0
    blocks = {
        "gram_diagonal": gram.diagonal(),
        "gram_upper": gram[np.triu_indices(len(row), 1)],
        "cross": cross.ravel(),
    }
    return blocks | {"counts": count} if counts else blocks


def distance(
    sensitivity: Sensitivity, first: dict[str, Floats], second: dict[str, Floats] | None
) -> float:
    squared = 0.0
    for name, relative in sensitivity.relative:
        block = first[name] - (0.0 if second is None else second[name])
        squared += float(block @ block) / relative**2
    return math.sqrt(squared)


def within(raw: Floats, non_negative: bool) -> Floats:
    """Any numbers as a row of norm ≤ BOUND."""
    row = np.abs(raw) if non_negative else raw
    norm = float(np.linalg.norm(row))
    shortened: Floats = row * (BOUND / norm) if norm > BOUND else row
    return shortened


@pytest.mark.slow
@pytest.mark.parametrize(("neighbours", "w", "v", "non_negative"), CASES)
def test_the_worst_pair_of_rows_reaches_it_and_none_exceeds_it(
    neighbours: Neighbours, w: float, v: float | None, non_negative: bool
) -> None:
    sensitivity = statistics_sensitivity(BOUND, "example", neighbours, 1, w, v, non_negative)

    def apart(raw: Floats, label: int) -> float:
        first = vector(within(raw[:3], non_negative), 0, v is not None)
        if neighbours == "add-remove":
            return distance(sensitivity, first, None)
        other = vector(within(raw[3:], non_negative), label, v is not None)
        return distance(sensitivity, first, other)

    def gap(label: int, raw: Floats) -> float:
        return -apart(raw, label)

    rng = np.random.default_rng(3)
    worst = 0.0
    for label in (0, 1):
        for _ in range(500):
            worst = max(worst, apart(rng.standard_normal(6) * rng.uniform(1, 3 * BOUND), label))
        for _ in range(4):
            start = rng.standard_normal(6) * BOUND / 2
            found = minimize(
                partial(gap, label),
                start,
                method="Nelder-Mead",
                options={"maxiter": 1500, "xatol": 1e-7, "fatol": 1e-7},
            )
            worst = max(worst, -float(found.fun))
    assert 0.999 * sensitivity.joint <= worst <= sensitivity.joint * (1 + 1e-12)


rows = st.lists(st.integers(-BOUND, BOUND), min_size=2, max_size=2).filter(
    lambda row: sum(x * x for x in row) <= BOUND**2
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(CASES), rows, rows, st.integers(0, 1))
def test_no_pair_of_integer_rows_exceeds_it(
    case: tuple[Neighbours, float, float | None, bool], f: list[int], g: list[int], label: int
) -> None:
    neighbours, w, v, non_negative = case
    sensitivity = statistics_sensitivity(BOUND, "example", neighbours, 1, w, v, non_negative)
    if non_negative:
        f, g = [abs(x) for x in f], [abs(x) for x in g]
    first = vector(np.array(f, dtype=float), 0, v is not None)
    second = vector(np.array(g, dtype=float), label, v is not None)
    other = None if neighbours == "add-remove" else second
    assert distance(sensitivity, first, other) <= sensitivity.joint * (1 + 1e-12)


@pytest.mark.parametrize("unit", ["example", "client"])
@pytest.mark.parametrize("neighbours", ["add-remove", "replace-one"])
def test_no_statistics_of_real_quantised_rows_exceed_it(unit: Unit, neighbours: Neighbours) -> None:
    """In exact arithmetic, from data that differ by one unit to the packed integers."""
    quantiser, max_rows, w, v = Quantiser(2), 3, Fraction(4, 5), Fraction(1, 2)
    layout = statistics_layout(2, 2, quantiser, 100)
    sensitivity = statistics_sensitivity(
        quantiser.scale, unit, neighbours, max_rows, float(w), float(v)
    )
    weights = {
        "gram_diagonal": Fraction(1),
        "gram_upper": Fraction(2),
        "cross": (quantiser.scale * w) ** 2,
        "counts": (quantiser.scale**2 * v) ** 2,
    }
    assert [name for name, _ in sensitivity.relative] == [block.name for block in layout.blocks]
    for name, relative in sensitivity.relative:
        assert relative**-2 == pytest.approx(float(weights[name]))
    rng = np.random.default_rng(5)
    changed = max_rows if unit == "client" else 1
    greatest = Fraction(0)
    for trial in range(400):
        common = rng.standard_normal((3, 2)), rng.integers(0, 2, 3)
        packed = []
        for side in range(2):
            count = int(rng.integers(1, changed + 1))
            fresh = rng.standard_normal((count, 2)), rng.integers(0, 2, count)
            if trial % 4 == 0:  # the worst there is: equal rows along one axis, of opposite label
                turn = np.eye(2)[side] if neighbours == "replace-one" else np.eye(2)[0]
                fresh = np.tile(turn, (changed, 1)), np.full(changed, side)
            if neighbours == "add-remove" and side:
                fresh = fresh[0][:0], fresh[1][:0]
            features = np.concatenate([common[0], fresh[0]])
            labels = np.concatenate([common[1], fresh[1]]).astype(np.int64)
            packed.append(Statistics.of(features, labels, 2, quantiser).pack())
        difference = layout.split(packed[0] - packed[1])
        squared = sum(
            (weights[name] * sum(int(x) ** 2 for x in block) for name, block in difference.items()),
            Fraction(0),
        )
        greatest = max(greatest, squared)
    assert greatest <= Fraction(sensitivity.joint) ** 2 * (1 + Fraction(1, 10**12))
    # Rows along an axis become 3 of the 4 that the bound allows.
    assert greatest >= Fraction(sensitivity.joint) ** 2 * Fraction(3**4, 4**4)


@pytest.mark.parametrize(("neighbours", "w", "v", "non_negative"), CASES)
def test_a_client_counts_as_its_rows(
    neighbours: Neighbours, w: float, v: float | None, non_negative: bool
) -> None:
    row = statistics_sensitivity(BOUND, "example", neighbours, 40, w, v, non_negative)
    client = statistics_sensitivity(BOUND, "client", neighbours, 40, w, v, non_negative)
    assert client.joint == pytest.approx(40 * row.joint, rel=1e-14)
    assert client.relative == row.relative
    # Replacing a row moves at least as much as removing it: rows need not be equally many.
    removed = statistics_sensitivity(BOUND, "example", "add-remove", 40, w, v, non_negative)
    assert row.joint >= removed.joint


SQUARES = [
    # neighbours, w, v, u, non-negative
    ("add-remove", 1.2, 0.3, 0.5, False),
    ("replace-one", 0.8, None, 0.5, False),
    ("replace-one", 0.8, 0.2, 1.5, False),
    ("replace-one", 1.2, 0.3, 0.5, False),
    ("replace-one", 1.7, None, 0.8, False),
    ("replace-one", 2.4, None, 0.5, False),
    ("replace-one", 0.8, 0.2, 0.5, True),
]


@pytest.mark.slow
@pytest.mark.parametrize(("neighbours", "w", "v", "u", "non_negative"), SQUARES)
def test_squares_by_class_move_no_further_and_some_pair_reaches_it(
    neighbours: Neighbours, w: float, v: float | None, u: float, non_negative: bool
) -> None:
    sensitivity = statistics_sensitivity(
        BOUND, "example", neighbours, 1, w, v, non_negative, squares_weight=u
    )
    assert dict(sensitivity.relative)["squares"] == 1 / u

    def blocks(raw: Floats, label: int) -> dict[str, Floats]:
        row = within(raw, non_negative)
        squares = np.zeros((len(row), 2))
        squares[:, label] = row**2
        return vector(row, label, v is not None) | {"squares": squares.ravel()}

    def apart(first: Floats, second: Floats, label: int) -> float:
        other = None if neighbours == "add-remove" else blocks(second, label)
        return distance(sensitivity, blocks(first, 0), other)

    rng = np.random.default_rng(3)
    tried = []
    for label in [0, 1] * 750:
        first, second = rng.standard_normal((2, 3)) * rng.uniform(1, 3 * BOUND)
        tried.append(apart(first, second, label))
    # Two of one label at an angle, on either side of the axes' middle; two along axes; opposites.
    turn = math.asin(max(-1.0, -(w**2) / (2 * (1 + u**2)))) / 2
    a, b = BOUND * math.cos(turn), BOUND * math.sin(turn)
    one, two = np.array([a, b, 0.0]), np.array([b, a, 0.0])
    axes = BOUND * np.eye(3)
    worst = [apart(one, two, 0), apart(axes[0], axes[1], 1), apart(axes[0], -axes[0], 0)]
    assert max(tried) <= sensitivity.joint * (1 + 1e-12)
    assert max(worst) == pytest.approx(sensitivity.joint, rel=1e-9)


def test_squares_of_real_quantised_rows_do_not_exceed_it() -> None:
    """Every pair of rows of a small grid, in whole numbers."""
    quantiser = Quantiser(2, "clip")
    sensitivity = statistics_sensitivity(
        quantiser.scale, "example", "replace-one", 1, 0.8, 0.5, squares_weight=0.5
    )
    layout = statistics_layout(2, 2, quantiser, 100, squares=True)
    assert [name for name, _ in sensitivity.relative] == [block.name for block in layout.blocks]
    steps = np.linspace(-1, 1, 7)
    rows = np.array([[x, y] for x in steps for y in steps])
    vectors = []
    for label in (0, 1):
        for row in rows:
            one = row[None], np.array([label])
            packed = Statistics.of(*one, 2, quantiser).pack()
            vectors.append(np.concatenate([packed, class_squares(*one, 2, quantiser).ravel()]))
    scale = np.concatenate(
        [np.full(block.length, dict(sensitivity.relative)[block.name]) for block in layout.blocks]
    )
    spread = np.array(vectors) / scale
    far = np.linalg.norm(spread[:, None] - spread, axis=2).max()
    assert 0.5 * sensitivity.joint < far <= sensitivity.joint


def test_counts_are_free_up_to_half_of_w_squared() -> None:
    free = statistics_sensitivity(BOUND, "example", "replace-one", 1, 0.8, 0.32)
    assert free.joint == statistics_sensitivity(BOUND, "example", "replace-one", 1, 0.8).joint
    more = statistics_sensitivity(BOUND, "example", "replace-one", 1, 0.8, 0.33)
    assert more.joint > free.joint
    assert dict(free.relative)["counts"] == pytest.approx(1 / (BOUND**2 * 0.32))


def test_updates() -> None:
    assert update_sensitivity(10, "client", "add-remove").joint == 1024
    assert update_sensitivity(10, "client", "replace-one").joint == 2048
    assert update_sensitivity(10, "example", "add-remove").joint == 2048
    assert update_sensitivity(10, "example", "replace-one").joint == 2048
    assert update_sensitivity(10, "client", "add-remove").relative == (
        ("update", 1.0),
        ("weight", 0.0),
    )


def test_what_has_no_formula_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cross_weight is 1\.5"):
        statistics_sensitivity(BOUND, "example", "replace-one", 1, 1.5, 0.1)
    with pytest.raises(ConfigError, match="squares_weight is 0"):
        statistics_sensitivity(BOUND, "example", "add-remove", 1, 0.8, squares_weight=0.0)
    with pytest.raises(ConfigError, match="counts_weight is 0"):
        statistics_sensitivity(BOUND, "example", "add-remove", 1, 0.8, 0.0)
    with pytest.raises(ConfigError, match="cross_weight is nan"):
        statistics_sensitivity(BOUND, "example", "add-remove", 1, math.nan)
    with pytest.raises(ConfigError, match="bound is 0"):
        statistics_sensitivity(0, "example", "add-remove", 1)
    with pytest.raises(ConfigError, match="max_rows is 0"):
        statistics_sensitivity(BOUND, "client", "add-remove", 0)
    with pytest.raises(ConfigError, match="unit is 'row'"):
        statistics_sensitivity(BOUND, "row", "add-remove", 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="bits is 31"):
        update_sensitivity(31, "client", "add-remove")
    for joint in (0.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="sensitivity is"):
            Sensitivity(joint, (("a", 1.0),))
    with pytest.raises(ConfigError, match="block 'a' is -1"):
        Sensitivity(1.0, (("a", -1.0),))
    with pytest.raises(ConfigError, match="two relative noises"):
        Sensitivity(1.0, (("a", 1.0), ("a", 0.5)))
