"""Rows less their mean and direction: exact integers, whoever else is there, and one linear map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.features.centring import (
    DIRECTION_SCALE,
    centred,
    direction_of,
    is_direction,
    projection,
    row_map,
    without,
)

QUANTISER = Quantiser(12)


def rows_like_features(rows: int, dim: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    found: Floats = np.maximum(rng.standard_normal((rows, dim)) + 1, 0) * rng.uniform(0.1, 9)
    return found


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(3, 90), st.integers(1, 100))
def test_rows_are_integers_of_bounded_norm_alone_as_in_company(
    seed: int, count: int, dim: int, k: int
) -> None:
    features = rows_like_features(count, dim, seed)
    signs = projection(dim, k, 3)
    direction = direction_of(np.random.default_rng(seed).integers(-(10**7), 10**7, min(k, dim)))
    rows = centred(features, QUANTISER, signs)
    left = without(rows, direction, QUANTISER)
    for found in (rows, left):
        assert found.shape == (count, min(k, dim))
        assert np.array_equal(found, np.rint(found))
        assert ((found**2).sum(axis=1) <= QUANTISER.scale**2).all()
    for at in range(count):
        alone = centred(features[at : at + 1], QUANTISER, signs)
        assert np.array_equal(alone[0], rows[at])
        assert np.array_equal(without(alone, direction, QUANTISER)[0], left[at])


@pytest.mark.parametrize("k", [40, 16])
def test_the_models_row_map_is_the_clients_but_for_rounding(k: int) -> None:
    features = rows_like_features(30, 40, 1)
    signs = projection(40, k, 0)
    rows = centred(features, QUANTISER, signs)
    direction = direction_of(rows.sum(axis=0).astype(np.int64))
    ours = without(rows, direction, QUANTISER) / QUANTISER.scale
    mapped = QUANTISER.scaled(row_map(40, signs, direction, centre=True).apply(features))
    assert np.abs(ours - mapped).max() < 2e-3
    assert np.abs(mapped @ direction).max() < 1e-9 * DIRECTION_SCALE


def test_what_rows_share_is_gone() -> None:
    features = rows_like_features(200, 30, 2) + 5
    rows = centred(features, QUANTISER, None)
    before = np.linalg.norm(rows.sum(axis=0)) / len(rows)
    left = without(rows, direction_of(rows.sum(axis=0).astype(np.int64)), QUANTISER)
    assert np.linalg.norm(left.sum(axis=0)) / len(rows) < 0.1 * before


def test_rows_without_a_direction_become_zeros_and_a_sum_of_zeros_takes_nothing_off() -> None:
    rows = centred(np.ones((2, 5)), QUANTISER, None)
    assert not rows.any()
    nothing = direction_of(np.zeros(5, dtype=np.int64))
    assert not nothing.any()
    assert is_direction(nothing)
    kept = centred(rows_like_features(3, 5, 0), QUANTISER, None)
    assert np.array_equal(without(kept, nothing, QUANTISER), kept)
    assert np.array_equal(row_map(5, None, nothing, centre=True).basis, np.eye(5) - 0.2)
    assert np.array_equal(row_map(5, None, nothing, centre=False).basis, np.eye(5))


def test_directions_are_whole_numbers_of_one_norm() -> None:
    found = direction_of(np.array([3, -4, 0]) * 10**12)
    assert found.tolist() == [0.6 * DIRECTION_SCALE // 1 + 1, -838861.0, 0.0]
    assert is_direction(found)
    assert not is_direction(found + 0.5)
    assert not is_direction(3 * found)
    assert not is_direction(found * np.nan)
