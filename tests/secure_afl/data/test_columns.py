"""Columns of tables: scales there and back, and what a task says of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData, digest_rows, pooled
from secure_afl.data.columns import Column, Columns
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.method import Task

AGE, BMI = Column.over("age", 0, 120, "years"), Column.over("bmi", 10, 70)
COLUMNS = Columns((AGE, BMI))


def test_a_column_knows_the_ends_of_its_range() -> None:
    assert (AGE.low, AGE.high, AGE.centre, AGE.half) == (0, 120, 60, 60)
    assert COLUMNS.names == ("age", "bmi")


@given(st.lists(st.tuples(st.floats(0, 120), st.floats(10, 70)), min_size=1, max_size=20))
def test_values_in_range_come_back_and_rows_are_short(rows: list[tuple[float, float]]) -> None:
    values = np.array(rows)
    features = COLUMNS.features(values)
    assert np.allclose(COLUMNS.values(features), values, atol=1e-12)
    assert (np.linalg.norm(features, axis=1) <= 1 + 1e-12).all()
    quantiser = Quantiser(12, "columns")
    integers = quantiser.integers(features)
    # Rounding is all that happens to such rows.
    assert (np.abs(integers - features * quantiser.steps(2)) <= 0.5 + 1e-9).all()


def test_values_out_of_range_are_cut() -> None:
    features = COLUMNS.features(np.array([[200.0, -5.0]]))
    assert np.allclose(COLUMNS.values(features), [[120.0, 10.0]])


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_a_range_without_width_is_refused(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match="column 'x' ranges over"):
        Column.over("x", low, high)


def test_a_task_has_a_column_for_each_feature() -> None:
    with pytest.raises(ConfigError, match="2 columns of 3 features"):
        Task(3, ("y",), Quantiser(8, "columns"), 10, 10, 1, bytes(32), columns=COLUMNS)


def test_targets_stay_with_their_rows() -> None:
    data = ClientData("a", np.eye(3), np.zeros(3, dtype=np.int64), targets=np.array([0.1, -1, 1]))
    part = data.take(np.array([2, 0]))
    assert part.targets is not None
    assert part.targets.tolist() == [1.0, 0.1]
    both = pooled([part, data])
    assert both.targets is not None
    assert both.targets.tolist() == [1.0, 0.1, 0.1, -1.0, 1.0]
    other = ClientData("a", np.eye(3), data.labels, targets=np.array([0.2, -1, 1]))
    assert digest_rows([data]) != digest_rows([other])


@pytest.mark.parametrize("targets", [[0.0, 0.0, 1.01], [0.0, float("nan"), 0.0], [0.0, 0.0]])
def test_targets_are_numbers_in_range_one_a_row(targets: list[float]) -> None:
    with pytest.raises(DataError, match=r"client 'a': targets .* scale them"):
        ClientData("a", np.eye(3), np.zeros(3, dtype=np.int64), targets=np.array(targets))
