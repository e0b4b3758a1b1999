"""Unit patient: no pair of patients is further apart than the bound, and some nearly are."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.analytic.patients import rooted
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.statistics import Statistics, statistics_layout
from secure_afl.errors import ConfigError
from secure_afl.privacy.sensitivity import Neighbours, Sensitivity, statistics_sensitivity
from tests.secure_afl.privacy.test_sensitivity import CASES

Floats = NDArray[np.float64]

QUANTISER = Quantiser(2)
LABEL = QUANTISER.label_scale
ROWS = (1, 2, 3, 4, 5, 9, 16, 17)


def bound(neighbours: Neighbours, w: float, v: float | None, non_negative: bool) -> Sensitivity:
    return statistics_sensitivity(
        QUANTISER.scale, "patient", neighbours, 1, w, v, non_negative, LABEL
    )


def integer_rows(several: int, non_negative: bool) -> Integers:
    """All integer rows of two entries that a patient of so many rows may have, longest first."""
    reach = math.isqrt(QUANTISER.scale**2 // several)
    low = 0 if non_negative else -reach
    grid = np.array(list(product(range(low, reach + 1), repeat=2)))
    lengths = (grid**2).sum(axis=1)
    allowed = several * lengths <= QUANTISER.scale**2
    found: Integers = grid[allowed][np.argsort(-lengths[allowed])]
    return found


def part(rows: Integers, labels: Integers, several: int, plain: bool = False) -> Integers:
    """What rows of a patient add to the sums, by hand: G's diagonal and corner, Q, n."""
    marks = np.ones(len(rows), dtype=np.int64) if plain else rooted(LABEL, np.full(1, several))
    targets = np.eye(2, dtype=np.int64)[labels] * marks[:, None]
    gram = rows.T @ rows
    upper = [gram[0, 0], gram[1, 1], gram[0, 1]]
    return np.concatenate([upper, (rows.T @ targets).ravel(), (targets**2).sum(axis=0)])


def scaled(found: Sensitivity, parts: Integers) -> Floats:
    """Parts (k, 9) in the geometry of the noise."""
    relative = dict(found.relative)
    names = ["gram_diagonal"] * 2 + ["gram_upper"] + ["cross"] * 4 + ["counts"] * 2
    found_parts: Floats = parts / np.array([relative.get(name, math.inf) for name in names])
    return found_parts


def patients(non_negative: bool, rng: np.random.Generator) -> Integers:
    """Parts of many patients: copies of each row, one row turned, and rows at random."""
    found = []
    for several in ROWS:
        rows = integer_rows(several, non_negative)
        for row, label in product(rows[:12], (0, 1)):
            copies = np.tile(row, (several, 1))
            labels = np.full(several, label)
            found.append(part(copies, labels, several))
            if several > 1:
                labels[0] = 1 - label
                copies[-1] = rows[rng.integers(len(rows))]
                found.append(part(copies, labels, several))
        for _ in range(20):
            drawn = rows[rng.integers(0, len(rows), several)]
            found.append(part(drawn, rng.integers(0, 2, several), several))
    return np.array(found)


@pytest.mark.parametrize(("neighbours", "w", "v", "non_negative"), CASES)
def test_no_pair_of_patients_exceeds_it_and_some_nearly_reach_it(
    neighbours: Neighbours, w: float, v: float | None, non_negative: bool
) -> None:
    found = bound(neighbours, w, v, non_negative)
    example = statistics_sensitivity(4, "example", neighbours, 1, w, v, non_negative)
    assert found.joint == example.joint
    parts = scaled(found, patients(non_negative, np.random.default_rng(7)))
    ends = np.zeros((1, 9)) if neighbours == "add-remove" else parts
    squares = (parts**2).sum(axis=1)[:, None] + (ends**2).sum(axis=1) - 2 * parts @ ends.T
    greatest = math.sqrt(squares.max())
    # The grid of four steps a unit does not have the worst angle of each pair.
    assert 0.96 * found.joint <= greatest <= found.joint * (1 + 1e-12)


@pytest.mark.parametrize(("neighbours", "w", "v", "non_negative"), CASES)
def test_the_bound_holds_for_rows_and_labels_of_any_smaller_size(
    neighbours: Neighbours, w: float, v: float | None, non_negative: bool
) -> None:
    """The single rows that a patient's part is a mean of: labels of two ends need not be alike."""
    found = statistics_sensitivity(1, "example", neighbours, 1, w, v, non_negative)
    rng, pairs = np.random.default_rng(11), 20_000

    def single() -> Floats:
        angles = rng.uniform(0, math.pi / 2 if non_negative else 2 * math.pi, pairs)
        lengths, sizes = (np.minimum(rng.uniform(0, 1.5, pairs), 1) for _ in range(2))
        rows = lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        marks = np.eye(2)[rng.integers(0, 2, pairs)] * sizes[:, None]
        gram = [rows[:, 0] ** 2, rows[:, 1] ** 2, rows[:, 0] * rows[:, 1]]
        cross = (rows[:, :, None] * marks[:, None, :]).reshape(pairs, 4)
        relative = dict(found.relative)
        names = ["gram_diagonal"] * 2 + ["gram_upper"] + ["cross"] * 4 + ["counts"] * 2
        blocks = np.column_stack([*gram, cross, marks**2])
        scaled: Floats = blocks / np.array([relative.get(name, math.inf) for name in names])
        return scaled

    other = 0.0 if neighbours == "add-remove" else single()
    distances = np.linalg.norm(single() - other, axis=1)
    assert 0.97 * found.joint <= distances.max() <= found.joint * (1 + 1e-12)


@pytest.mark.parametrize("neighbours", ["add-remove", "replace-one"])
def test_no_real_patients_exceed_it(neighbours: Neighbours) -> None:
    """In exact arithmetic, from data that differ by one patient to the packed integers."""
    quantiser, w, v = Quantiser(12), Fraction(4, 5), Fraction(1, 2)
    label = quantiser.label_scale
    layout = statistics_layout(3, 2, quantiser, 100, label_scale=label)
    found = statistics_sensitivity(
        quantiser.scale, "patient", neighbours, 1, float(w), float(v), label_scale=label
    )
    weights = {
        "gram_diagonal": Fraction(1),
        "gram_upper": Fraction(2),
        "cross": (quantiser.scale * w / label) ** 2,
        "counts": (quantiser.scale**2 * v / label**2) ** 2,
    }
    for name, relative in found.relative:
        assert relative**-2 == pytest.approx(float(weights[name]))
    rng = np.random.default_rng(5)
    common = rng.standard_normal((3, 3)), rng.integers(0, 2, 3), np.array([1, 2, 2])
    greatest = Fraction(0)
    for trial in range(300):
        packed = []
        for side in range(2):
            several = int(rng.choice([1, 2, 3, 4, 7, 30]))
            rows, labels = rng.standard_normal((several, 3)), rng.integers(0, 2, several)
            if trial % 4 == 0:  # the worst there is: all of its rows alike, in either class
                turn = np.eye(3)[side if neighbours == "replace-one" else 0]
                rows, labels = np.tile(turn, (several, 1)), np.full(several, side)
            if neighbours == "add-remove" and side:
                several, rows, labels = 0, rows[:0], labels[:0]
            packed.append(
                Statistics.of(
                    np.concatenate([common[0], rows]),
                    np.concatenate([common[1], labels]),
                    2,
                    quantiser,
                    np.concatenate([common[2], np.full(several, several)]),
                ).pack()
            )
        difference = layout.split(packed[0] - packed[1])
        squared = sum(
            (weights[name] * sum(int(x) ** 2 for x in block) for name, block in difference.items()),
            Fraction(0),
        )
        greatest = max(greatest, squared)
    assert greatest <= Fraction(found.joint) ** 2 * (1 + Fraction(1, 10**12))
    assert greatest >= Fraction(found.joint) ** 2 * Fraction(996, 1000)


def test_shorter_rows_alone_would_break_the_promise() -> None:
    """A plain sum of rows of norm B/√m weighs them 1/√m in Q, and 1 in n."""
    for v in (None, 0.5):
        found = bound("add-remove", 0.8, v, non_negative=False)
        for several in (4, 16):
            row = integer_rows(several, non_negative=False)[:1]
            copies, labels = np.tile(row, (several, 1)), np.zeros(several, dtype=np.int64)
            right = scaled(found, part(copies, labels, several)[None])
            assert 0.99 * found.joint <= np.linalg.norm(right) <= found.joint * (1 + 1e-12)
            # Noise for labels of 1, as for single rows.
            unweighted = statistics_sensitivity(4, "patient", "add-remove", 1, 0.8, v)
            wrong = scaled(unweighted, part(copies, labels, several, plain=True)[None])
            assert np.linalg.norm(wrong) > 1.4 * unweighted.joint


def test_label_scales_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="label_scale is 0"):
        statistics_sensitivity(4, "patient", "add-remove", 1, label_scale=0)
