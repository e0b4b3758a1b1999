import numpy as np
import pytest

from protocols import Additive, Plain
from secure_afl.errors import ConfigError, DataError, LedgerRefusal, OutOfBoundsTotal
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, FedAvg
from secure_afl.methods.evaluated import evaluated
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.presence import check_presence, groups_of
from secure_afl.runs.change import Standing, change
from tests.kit.samples import make_clients

CLIENTS = make_clients((40, 30, 50, 20, 25, 35, 45, 22, 28))
ROWS = make_clients((50,), seed=3)[0].features


def standing(*places: int, method: AFL | None = None) -> Standing:
    clients = [CLIENTS[place] for place in places]
    federation = Federation(method or AFL(), Additive(), feature_bits=9)
    return Standing.of(federation.run(clients, classes=("0", "1", "2")))


@pytest.mark.parametrize("method", [AFL(), AFL(ridge=0.1), AFL(prior="uniform")], ids=repr)
def test_a_model_after_a_change_is_that_of_retraining_byte_for_byte(method: AFL) -> None:
    before = standing(0, 1, 2, 3, 4, 5, method=method)
    after = change(before, Additive(), joining=CLIENTS[6:9], leaving=CLIENTS[0:3])
    anew = standing(3, 4, 5, 6, 7, 8, method=method)
    for one, other in zip(after.statistics.pack(), anew.statistics.pack(), strict=True):
        assert one == other
    assert after.model().weights.tobytes() == anew.model().weights.tobytes()
    assert after.model().scores(ROWS).tobytes() == anew.model().scores(ROWS).tobytes()
    assert after.present == {f"c{i}" for i in range(3, 9)}
    assert any("rows came or went" in warning for warning in after.warnings)


def test_leaving_alone_is_refused_and_leaving_together_is_not() -> None:
    before = standing(0, 1, 2, 3, 4, 5)
    for few in (1, 2):
        with pytest.raises(LedgerRefusal, match=rf"{few} parties alone; allowed: groups of equal"):
            change(before, Additive(), leaving=CLIENTS[:few])
    assert change(before, Additive(), leaving=CLIENTS[:3]).present == {"c3", "c4", "c5"}
    # Three of six leave three, which is a group as well; of five it would leave two.
    with pytest.raises(LedgerRefusal, match="2 parties alone"):
        change(standing(0, 1, 2, 3, 4), Additive(), leaving=CLIENTS[:3])


def test_sets_that_pairwise_differences_would_allow_are_refused() -> None:
    totals = [{"A", "B", "C"}, {"A", "D", "E"}]
    third = {"B", "C", "D", "E"}
    for one in totals:
        assert len(one ^ third) >= 3
    assert len(totals[0] ^ totals[1]) >= 3
    # Together they give A twice over.
    value = {name: 10.0**place for place, name in enumerate("ABCDE")}
    sums = [sum(value[name] for name in total) for total in (*totals, third)]
    assert sums[0] + sums[1] - sums[2] == 2 * value["A"]
    with pytest.raises(LedgerRefusal, match="'A'"):
        check_presence(totals, third, 3)
    with pytest.raises(LedgerRefusal, match="'A'"):
        check_presence(totals[:1], totals[1], 2)


def test_every_combination_of_allowed_totals_tells_of_whole_groups() -> None:
    rng = np.random.default_rng(0)
    names = [f"p{i}" for i in range(14)]
    released: list[frozenset[str]] = [frozenset(names[:9])]
    for _ in range(300):
        proposed = frozenset(rng.choice(names, rng.integers(3, 14), replace=False))
        try:
            check_presence(released, proposed, 3)
        except LedgerRefusal:
            continue
        released.append(proposed)
    assert len(released) >= 2
    groups = groups_of(released)
    assert all(len(group) >= 3 for group in groups)
    incidence = np.array([[name in total for name in names] for total in released], dtype=float)
    for _ in range(200):
        combined = rng.standard_normal(len(released)) @ incidence
        for group in groups:
            factors = {round(float(combined[names.index(name)]), 9) for name in group}
            assert len(factors) == 1


def test_a_second_change_counts_all_totals_before() -> None:
    first = standing(0, 1, 2, 3, 4, 5)
    second = change(first, Plain(), joining=CLIENTS[6:9])
    assert len(second.released) == 2
    with pytest.raises(LedgerRefusal, match="nothing would change"):
        change(second, Plain(), leaving=CLIENTS[6:9])
    with pytest.raises(LedgerRefusal, match="parties alone"):
        change(second, Plain(), leaving=[*CLIENTS[0:2], CLIENTS[6]])


def test_who_cannot_join_or_leave_is_named() -> None:
    before = standing(0, 1, 2, 3, 4, 5)
    with pytest.raises(DataError, match="'c0' joins, but is in the total"):
        change(before, Plain(), joining=CLIENTS[:3])
    with pytest.raises(DataError, match="'c6' leaves, but is not"):
        change(before, Plain(), leaving=CLIENTS[6:9])
    with pytest.raises(DataError, match="nobody"):
        change(before, Plain())


def test_a_leaver_that_takes_off_other_rows_than_it_brought_is_noticed() -> None:
    before = standing(0, 1, 2, 3, 4, 5)
    others = make_clients((400, 300, 500), seed=9)
    with pytest.raises(OutOfBoundsTotal):
        change(before, Plain(), leaving=others)


def test_a_total_that_lacks_kept_out_rows_is_not_changed() -> None:
    """A leaver would take off rows that it never brought."""
    result = Federation(evaluated(AFL(), 0.3), Additive()).run(CLIENTS[:4])
    with pytest.raises(ConfigError, match="run without --evaluate"):
        Standing.of(result)


def test_only_exact_sums_of_statistics_are_changed() -> None:
    noisy = Federation(AFL(), Additive(), privacy=Privacy(4.0)).run(
        CLIENTS[:4], classes=("0", "1", "2"), max_rows=64
    )
    for result in (noisy, Federation(FedAvg(rounds=2), Plain()).run(CLIENTS[:3])):
        with pytest.raises(ConfigError, match="exact sum of statistics"):
            Standing.of(result)
