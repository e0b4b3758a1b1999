"""Rows by patient: groups, weights that never exceed one, and statistics by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_afl.analytic.moments import Moments
from secure_afl.analytic.patients import PatientGroups, divided, known_patients, rooted, within
from secure_afl.analytic.quantise import MAX_BITS, Quantiser
from secure_afl.analytic.statistics import Statistics, statistics_layout
from secure_afl.errors import DataError
from tests.secure_afl.analytic.test_quantise import adversarial, squared_norms


def test_rows_are_grouped_by_patient_and_nameless_ones_are_alone() -> None:
    # "row 1" is nobody's name for the second row, which has none.
    groups = PatientGroups.of(["a", "", "row 1", "a", "", "a\0"])
    assert len(groups) == 5
    assert groups.rows.tolist() == [2, 1, 1, 1, 1]
    assert groups.rows_each.tolist() == [2, 1, 1, 2, 1, 1]
    assert groups.order.tolist() == [0, 3, 1, 2, 4, 5]
    values = np.arange(12).reshape(6, 2)
    assert np.array_equal(groups.sums(values), [[6, 8], [2, 3], [4, 5], [8, 9], [10, 11]])
    alone = PatientGroups.of(["x"])
    assert (len(alone), alone.rows_each.tolist()) == (1, [1])


def test_one_patients_sum_does_not_turn_on_other_rows() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((30, 4))
    names = [f"p{place % 7}" for place in range(30)]
    whole = PatientGroups.of(names).sums(values)
    few = [place for place, name in enumerate(names) if name in ("p2", "p5")]
    part = PatientGroups.of([names[place] for place in few]).sums(values[few])
    assert np.array_equal(part, whole[[2, 5]])


def test_rows_that_say_nothing_are_refused() -> None:
    assert known_patients("x", ["a"]) == ["a"]
    with pytest.raises(DataError, match=r"client 'x' does not say whose .* --id"):
        known_patients("x", None)


@settings(deadline=None)
@given(st.integers(1, 2**26), st.lists(st.integers(1, 2**40), min_size=1, max_size=50))
def test_weights_of_a_patient_never_exceed_one(whole: int, several: list[int]) -> None:
    rows = np.array(several, dtype=np.int64)
    marks = [math.isqrt(whole**2 // m) for m in several]
    assert rooted(whole, rows).tolist() == marks
    assert divided(whole, rows).tolist() == [whole // m for m in several]
    assert all(m * mark**2 <= whole**2 for m, mark in zip(several, marks, strict=True))


def test_the_root_of_a_square_less_one_is_rounded_down() -> None:
    # Where a float's root would be nearest to the next whole number.
    whole = np.array([2**26, 2**26 - 1, 3 * 2**24 + 1])
    for number in whole.tolist():
        square_less_one = np.sqrt(np.array([number**2 - 1])).astype(np.int64)
        assert square_less_one.tolist() == [number - 1]


@pytest.mark.parametrize("longest", [1, 2, 5, 2**10, 3 * 2**20 + 1, 2**48, 2**52])
def test_no_vector_is_longer_than_it_may_be(longest: int) -> None:
    rng, root = np.random.default_rng(0), math.sqrt(longest)
    for dim in (1, 3, 200):
        lines = np.concatenate([rng.standard_normal((50, dim)), np.ones((1, dim)), np.eye(dim)[:1]])
        lines /= np.linalg.norm(lines, axis=1, keepdims=True)
        sizes = [0.0, 0.3, root / 2, root - 1, root, math.nextafter(root, 0), root + 1, 1e9 * root]
        for size in sizes:
            found = within(lines * size, longest)
            squares = [sum(int(x) ** 2 for x in row) for row in found.tolist()]
            assert max(squares) <= longest
            # As near as rounding allows, or a unit shorter, and toward zero at worst.
            assert np.abs(found - lines * min(size, root)).max() <= 2
            assert np.array_equal(within(found, longest), found)
        one = within(lines[:1] * root, longest)
        assert np.array_equal(one, within(lines * root, longest)[:1])


def test_batches_hold_every_row_once_and_whole_patients() -> None:
    names = [f"p{place * place % 11}" if place % 5 else "" for place in range(90)]
    groups = PatientGroups.of(names)
    for row, patient in ((1, 1), (1 << 16, 1 << 18), (1 << 30, 0)):
        batches = list(groups.batches(row, patient))
        assert sorted(place for batch in batches for place in batch.ravel()) == list(range(90))
        for places in (places for batch in batches for places in batch):
            names_of = {names[place] for place in places}
            assert len(names_of) == 1
            assert len(places) == (names.count(names_of.pop()) if names[places[0]] else 1)
        assert all(len(b) == 1 or b.size * row + len(b) * patient <= 1 << 21 for b in batches)


@pytest.mark.parametrize("bits", [1, 4, 8, MAX_BITS])
def test_no_row_is_longer_than_its_share(bits: int) -> None:
    quantiser = Quantiser(bits)
    rng = np.random.default_rng(bits)
    for dim in (1, 3, 257):
        rows = adversarial(dim)
        several = rng.integers(1, 50, len(rows))
        several[::17] = 4**bits  # of length 1
        several[::19] = 4**bits + 1  # of no length
        integers = quantiser.integers(rows, rows_each=several)
        assert (several * squared_norms(integers)).max() <= 4**bits
        # Alone, a patient's row is what it always was.
        ones = np.ones(len(rows), dtype=np.int64)
        assert np.array_equal(quantiser.integers(rows, rows_each=ones), quantiser.integers(rows))


def test_few_rows_are_much_shorter_than_their_share() -> None:
    rows = np.random.default_rng(0).standard_normal((400, 256))
    several = np.repeat([1, 2, 5, 20], 100)
    squared = several * squared_norms(Quantiser(12).integers(rows, rows_each=several)) / 4**12
    assert squared.min() > 0.99


def test_statistics_are_weighted_sums_of_integers() -> None:
    quantiser, rng = Quantiser(12), np.random.default_rng(1)
    rows, labels = rng.standard_normal((300, 5)), rng.integers(0, 3, 300)
    groups = PatientGroups.of([f"p{place}" for place in rng.integers(0, 80, 300)])
    several = groups.rows_each
    found = Statistics.of(rows, labels, 3, quantiser, several)
    integers = quantiser.integers(rows, rows_each=several).astype(np.int64)
    marks = np.array([math.isqrt(4096**2 // m) for m in several.tolist()])
    targets = np.eye(3, dtype=np.int64)[labels] * marks[:, None]
    assert np.array_equal(found.gram, integers.T @ integers)
    assert np.array_equal(found.cross, integers.T @ targets)
    assert np.array_equal(found.counts, (targets**2).sum(axis=0))
    layout = statistics_layout(5, 3, quantiser, len(groups), label_scale=quantiser.label_scale)
    layout.check(found.pack())
    again = Statistics.unpack(found.pack(), layout)
    assert np.array_equal(again.pack(), found.pack())
    # In floats: the moments of rows that weigh 1/m each.
    moments = Moments.of(found, quantiser, label_scale=quantiser.label_scale)
    scaled, weights = quantiser.scaled(rows), 1 / several
    one_hots = np.eye(3)[labels] * weights[:, None]
    assert np.allclose(
        moments.known_gram, (scaled * weights[:, None]).T @ scaled, rtol=0.01, atol=0.1
    )
    assert np.allclose(moments.known_counts, one_hots.sum(axis=0), rtol=0.002)
    assert np.allclose(moments.cross, scaled.T @ one_hots, rtol=0.01, atol=0.1)


@pytest.mark.parametrize(("bits", "label"), [(1, 64), (6, 64), (12, 4096)])
def test_labels_are_as_fine_as_rows_and_never_coarse(bits: int, label: int) -> None:
    assert Quantiser(bits).label_scale == label
