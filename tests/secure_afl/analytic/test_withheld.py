"""What is printed fixes no small count: the widest range that it leaves is found by programs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog

from secure_afl.analytic.withheld import (
    table_groups,
    withheld_classes,
    withheld_pairs,
    withheld_rows,
)

LEAST = 5


def test_a_small_class_takes_another_with_it() -> None:
    counts = np.array([3.0, 400.0, 50.0, 60.0])
    assert withheld_classes(counts, LEAST).tolist() == [True, False, True, False]
    assert withheld_classes(np.array([3.0, 4.0, 50.0]), LEAST).tolist() == [True, True, False]
    assert withheld_classes(np.array([1.0, 2.0, 50.0]), LEAST).all()
    assert withheld_classes(np.array([3.0, 400.0]), LEAST).all()
    assert not withheld_classes(np.array([5.0, 5.0]), LEAST).any()
    assert withheld_classes(np.array([0.0, 30.0, 40.0]), LEAST).tolist() == [True, True, False]


@given(arrays(np.int64, st.integers(2, 6), elements=st.integers(0, 12)))
def test_classes_withheld_are_never_few(counts: np.ndarray) -> None:
    hidden = withheld_classes(counts.astype(float), LEAST)
    assert not (counts[~hidden] < LEAST).any()
    if hidden.any() and not hidden.all():
        assert hidden.sum() >= 2
        assert counts[hidden].sum() >= LEAST


def test_a_small_complement_takes_its_indicator_with_it() -> None:
    # The first category is never printed, and follows from the others.
    assert withheld_rows(np.array([[2.0], [90.0]]), LEAST)[1]
    assert withheld_rows(np.array([[90.0], [2.0]]), LEAST)[1]
    assert not withheld_rows(np.array([[5.0], [5.0]]), LEAST).any()
    # With a third category that is large, the first two stand together.
    assert withheld_rows(np.array([[90.0], [2.0], [60.0]]), LEAST).tolist() == [True, True, False]
    assert withheld_rows(np.array([[2.0], [8.0], [60.0]]), LEAST).tolist() == [True, True, False]


def possible(cells: np.ndarray, totals: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """How wide the range of each cell is that fits all that is printed, by linear programs."""
    rows, columns = cells.shape
    sums, right = [], []
    for column in range(columns):
        mask = np.zeros((rows, columns))
        mask[:, column] = 1
        sums.append(mask.ravel())
        right.append(cells[:, column].sum())
    for row in range(1, rows):
        if not totals[row]:
            mask = np.zeros((rows, columns))
            mask[row] = 1
            sums.append(mask.ravel())
            right.append(cells[row].sum())
        if not hidden[row]:
            for column in range(columns):
                mask = np.zeros((rows, columns))
                mask[row, column] = 1
                sums.append(mask.ravel())
                right.append(cells[row, column])
    widths = np.zeros(cells.size)
    for cell in range(cells.size):
        goal = np.zeros(cells.size)
        goal[cell] = 1
        ends = [
            float(linprog(sign * goal, A_eq=np.array(sums), b_eq=right, bounds=(0, None)).fun or 0)
            for sign in (1, -1)
        ]
        widths[cell] = -ends[1] - ends[0]
    return widths.reshape(rows, columns)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    arrays(
        np.int64,
        st.tuples(st.integers(2, 4), st.integers(1, 3)),
        elements=st.integers(0, 4) | st.integers(0, 30),
    )
)
def test_no_small_cell_is_known_to_less_than_the_least_count(cells: np.ndarray) -> None:
    """Columns are classes shown, so of `LEAST` rows at least; their sums are printed."""
    cells[0] += LEAST * (cells.sum(axis=0) < LEAST)
    table = cells.astype(float)
    totals = withheld_rows(table.sum(axis=1, keepdims=True), LEAST)
    hidden = withheld_rows(table, LEAST, totals) | totals
    widths = possible(table, totals, hidden)
    assert (widths[table < LEAST] >= LEAST - 1e-6).all()


def test_a_pair_of_indicators_may_show_a_small_cell() -> None:
    both = np.array([[20.0, 3.0], [3.0, 40.0]])
    ones = np.array([20.0, 40.0])
    shown = withheld_pairs(both, ones, ones, 100, LEAST)
    assert shown[0, 1]
    assert shown[1, 0]
    both[0, 1] = both[1, 0] = 8
    shown = withheld_pairs(both, ones, ones, 100, LEAST)
    assert not shown[0, 1]
    assert not shown[1, 0]


def test_missing_is_grouped_with_its_categories_and_by_itself() -> None:
    names = ("sex[male]", "age", "sex[other]", "age[missing]", "sex[missing]")
    chosen = np.array([True, False, True, True, True])
    assert sorted(table_groups(names, chosen)) == [[0, 2], [0, 2, 4], [3], [4]]
