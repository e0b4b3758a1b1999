import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.layout import Block, Layout
from secure_afl.analytic.heads.head import Fitted
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.methods.groups import (
    counts_layout,
    drawn_group,
    fitting_group,
    joined,
    nearest_profile,
    placed,
    read_profiles,
    repeated,
    settle_profiles,
)

MOSTLY_A, MOSTLY_B = {"a": 8, "b": 2}, {"a": 2, "b": 8}


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(2, 6))
def test_small_groups_are_joined_until_each_has_enough(counts: list[int], least: int) -> None:
    found = joined(np.array(counts), least)
    left = sorted(set(found))
    assert left == list(range(len(left)))
    sizes = [sum(c for c, to in zip(counts, found, strict=True) if to == g) for g in left]
    assert len(left) == 1 or min(sizes) >= least
    # Nothing is joined that is large enough already.
    if min(counts) >= least:
        assert found == tuple(range(len(counts)))


def test_the_smallest_goes_to_the_next_smallest() -> None:
    assert joined(np.array([5, 1, 9, 2]), 3) == (0, 1, 2, 1)
    assert joined(np.array([1, 1]), 3) == (0, 0)
    assert joined(np.array([0, 4, 0, 4]), 3) == (0, 0, 0, 1)


def test_a_vector_has_a_place_for_each_group() -> None:
    one = Layout((Block("x", 2, 0, 5, 1.0, 0, 1), Block("y", 1, -5, 5, 0.5, -1, 1)))
    whole = repeated(one, 3)
    assert [block.name for block in whole.blocks][:3] == ["group_0_x", "group_0_y", "group_1_x"]
    vector = placed(np.array([1, 1, -1]), 1, 3)
    whole.check(vector)
    assert np.array_equal(vector.reshape(3, -1)[1], [1, 1, -1])
    assert vector.any() == vector.reshape(3, -1)[1].any()
    counts_layout(3, 9).check(placed(np.ones(1, dtype=np.int64), 2, 3))


def test_a_client_picks_the_nearest_profile_or_the_best_fit() -> None:
    profiles = settle_profiles([MOSTLY_A, MOSTLY_B])
    assert nearest_profile(profiles, ("a", "b"), np.array([0, 0, 0, 1])) == 0
    assert nearest_profile(profiles, ("a", "b"), np.array([1, 0, 1])) == 1
    rows, targets = np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0]])
    assert fitting_group([Fitted(np.eye(2)), Fitted(targets)], rows, targets) == 1


def test_a_first_group_is_drawn_from_the_rows_alike_every_time() -> None:
    data = [
        ClientData(f"c{i}", np.full((2, 2), float(i)), np.zeros(2, dtype=np.int64))
        for i in range(60)
    ]
    first = [drawn_group(0, client, 3) for client in data]
    assert first == [drawn_group(0, client, 3) for client in data]
    assert first != [drawn_group(1, client, 3) for client in data]
    assert min(np.bincount(first)) > 8


def test_profiles_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "profiles.json"
    path.write_text(json.dumps([MOSTLY_A, MOSTLY_B]))
    assert read_profiles(path) == settle_profiles([MOSTLY_A, MOSTLY_B])
    for text in ("{}", "[1, 2]", '[{"a": 1}]', "no", '[{"a": -1}, {"a": 1}]', '[{"a": "x"}, {}]'):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"profile|prior"):
            read_profiles(path)
    with pytest.raises(ConfigError, match="no readable JSON"):
        read_profiles(tmp_path / "none.json")
