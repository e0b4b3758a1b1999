"""Rows come out of unprotected statistics; of wrong statistics, nothing does."""

import sys
from typing import ClassVar

import numpy as np
import pytest

from attacks.attack import ATTACKS, Known
from attacks.statistics.rows import (
    LatticeRows,
    NonNegativeRows,
    Recovered,
    RowAttack,
    SingleRows,
    compare,
    lattice_rows,
    non_negative_rows,
    small_classes,
)
from attacks.views.run import Record
from protocols.layout import Integers
from protocols.protocol import Protocol
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import ConfigError
from tests.kit.runs import (
    ADDITIVE,
    CKKS,
    PAIRWISE,
    PLAIN,
    by_metric,
    record,
    relu_clients,
    relu_rows,
    truth_of,
)


def statistics_and_rows(
    rows: int, dim: int, classes: int = 3, bits: int = 8, seed: int = 0
) -> tuple[Statistics, Floats, Integers]:
    features, labels = relu_rows(rows, dim, seed, classes)
    quantiser = Quantiser(bits)
    statistics = Statistics.of(features, labels, classes, quantiser)
    return statistics, quantiser.integers(features), labels


def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def same_rows(recovered: Recovered | None, rows: Floats, labels: Integers) -> bool:
    if recovered is None:
        return False
    ours = sorted(map(tuple, np.column_stack([recovered.rows, recovered.labels])))
    return ours == sorted(map(tuple, np.column_stack([rows, labels])))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [12, 40])
def test_labels_and_non_negativity_give_all_rows(rows: int) -> None:
    statistics, true, labels = statistics_and_rows(rows, 256)
    recovered = non_negative_rows(statistics, rng())
    assert recovered is not None
    _, cosines = compare(recovered, true, labels)
    assert cosines.mean() > 0.99
    assert same_rows(recovered, true, labels)


def test_without_a_rotation_left_one_step_is_enough() -> None:
    """As many rows as classes: the labels fix everything."""
    features, _ = relu_rows(4, 30, 0)
    labels = np.arange(4)
    quantiser = Quantiser(8)
    recovered = non_negative_rows(Statistics.of(features, labels, 4, quantiser), rng())
    assert recovered is not None
    assert same_rows(
        Recovered(np.rint(recovered.rows), recovered.labels), quantiser.integers(features), labels
    )


@pytest.mark.slow
def test_signed_rows_do_not_yield_to_non_negativity() -> None:
    features = np.random.default_rng(0).standard_normal((20, 100))
    labels = np.arange(20) % 3
    quantiser = Quantiser(8)
    recovered = non_negative_rows(Statistics.of(features, labels, 3, quantiser), rng())
    assert recovered is not None
    exact, cosines = compare(recovered, quantiser.integers(features), labels)
    assert not exact.any()
    assert cosines.mean() < 0.9


@pytest.mark.parametrize(("rows", "bits"), [(5, 8), (40, 8), (40, 12)])
def test_lattice_reduction_gives_all_rows_exactly(rows: int, bits: int) -> None:
    pytest.importorskip("fpylll")
    statistics, true, labels = statistics_and_rows(rows, 128, bits=bits)
    assert same_rows(lattice_rows(statistics, rng()), true, labels)


def test_lattice_reduction_needs_no_signs() -> None:
    pytest.importorskip("fpylll")
    features = np.random.default_rng(0).standard_normal((20, 100))
    labels, quantiser = np.arange(20) % 3, Quantiser(8)
    recovered = lattice_rows(Statistics.of(features, labels, 3, quantiser), rng())
    assert same_rows(recovered, quantiser.integers(features), labels)


def test_more_rows_than_dimensions_give_nothing() -> None:
    pytest.importorskip("fpylll")
    many, _, _ = statistics_and_rows(30, 20)
    assert lattice_rows(many, rng()) is None
    assert non_negative_rows(many, rng()) is None


def test_rows_that_occur_several_times() -> None:
    """Lattice reduction counts them, with their labels; the rotation by labels cannot."""
    pytest.importorskip("fpylll")
    features, labels = relu_rows(9, 60, 0)
    repeated = np.concatenate([features, features[:4], features[2:3]])
    relabelled = np.concatenate([labels, (labels[:4] + 1) % 3, labels[2:3]])
    quantiser = Quantiser(8)
    statistics = Statistics.of(repeated, relabelled, 3, quantiser)
    assert same_rows(lattice_rows(statistics, rng()), quantiser.integers(repeated), relabelled)
    assert non_negative_rows(statistics, rng()) is None


def test_rows_that_depend_on_each_other_otherwise_give_nothing() -> None:
    pytest.importorskip("fpylll")
    rows = Quantiser(8).integers(relu_rows(6, 60, 0)[0]).astype(np.int64)
    rows = np.concatenate([rows, rows[:1] + rows[1:2]])
    labels = np.arange(7) % 3
    one_hots = np.eye(3, dtype=np.int64)[labels]
    statistics = Statistics(rows.T @ rows, rows.T @ one_hots, one_hots.sum(axis=0))
    assert lattice_rows(statistics, rng()) is None


def test_a_gram_matrix_of_noise_gives_nothing() -> None:
    pytest.importorskip("fpylll")
    statistics, _, _ = statistics_and_rows(10, 60)
    noise = rng().integers(-500, 500, statistics.gram.shape)
    noisy = Statistics(statistics.gram + noise + noise.T, statistics.cross, statistics.counts)
    assert lattice_rows(noisy, rng()) is None


def test_without_fpylll_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fpylll", None)
    statistics, _, _ = statistics_and_rows(5, 20)
    with pytest.raises(ConfigError, match=r"secure-afl\[lattice\]"):
        lattice_rows(statistics, rng())


def test_single_rows_and_the_one_row_too_many() -> None:
    features, _ = relu_rows(5, 20, 0)
    quantiser = Quantiser(8)
    rows = quantiser.integers(features)
    single = np.array([0, 1, 1, 1, 3])
    found = small_classes(Statistics.of(features, single, 5, quantiser))
    assert same_rows(found, rows[[0, 4]], single[[0, 4]])
    one_more = np.array([0, 1, 2, 1, 3])
    found = small_classes(Statistics.of(features, one_more, 5, quantiser))
    assert same_rows(found, rows, one_more)
    many = np.array([0, 0, 1, 1, 1])
    assert small_classes(Statistics.of(features, many, 5, quantiser)) is None
    statistics = Statistics.of(features, many, 5, quantiser)
    noisy = Statistics(statistics.gram, statistics.cross, np.array([4, -1, 0, 0, 0]))
    assert small_classes(noisy) is None


def test_compare_counts_what_is_missing() -> None:
    rows = np.eye(4) * 8
    labels = np.array([0, 0, 1, 1])
    half = Recovered(rows[[1, 2]], labels[[1, 2]])
    exact, cosines = compare(half, rows, labels)
    assert exact.tolist() == [False, True, True, False]
    np.testing.assert_allclose(cosines, [0, 1, 1, 0])
    wrong_labels = Recovered(rows, 1 - labels)
    exact, _ = compare(wrong_labels, rows, labels)
    assert not exact.any()


CLIENTS = relu_clients([5, 7, 6], dim=128, classes=4)
ALL_AGGREGATORS = ["collector", "aggregator_1", "aggregator_2"]


@pytest.mark.parametrize("attack", [NonNegativeRows(), LatticeRows()], ids=lambda a: a.name)
@pytest.mark.parametrize(
    ("protocol", "coalition"),
    [
        (PLAIN, ["server"]),
        (PAIRWISE, ["server"]),
        (PAIRWISE, ["server", "c0", "c1"]),
        (ADDITIVE, ALL_AGGREGATORS),
        (CKKS, ["server", "key_holder"]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_rows_of_small_sums_fall_blind_or_not(
    attack: NonNegativeRows | LatticeRows, protocol: Protocol, coalition: list[str]
) -> None:
    """A blind sum hides whose the rows are, not the rows."""
    if isinstance(attack, LatticeRows):
        pytest.importorskip("fpylll")
    run = record(CLIENTS, protocol, classes=4)
    claim = attack.claim(run.view(coalition), Known(), rng())
    measures = by_metric(attack.judge(claim, truth_of(CLIENTS)))
    honest = sum(len(data) for data in CLIENTS if data.name not in coalition)
    assert measures["exact rows"].trials == honest
    assert measures["exact rows"].value == 1.0
    assert measures["centred cosine"].value > 0.999


class Counting(RowAttack):
    """An attack that notes what it was asked to recover, and draws."""

    name = "counting"
    asked: ClassVar[list[Statistics]] = []

    def recover(self, statistics: Statistics, rng: np.random.Generator) -> Recovered | None:
        self.asked.append(statistics)
        rows = rng.standard_normal((1, len(statistics.gram)))
        return Recovered(rows, np.zeros(1, dtype=np.int64))


def test_a_recovery_is_made_once_for_each_attack_and_sum() -> None:
    """Whoever asks, with whatever generator: one sum has one recovery."""

    class Another(Counting):
        name = "counting-another"
        asked: ClassVar[list[Statistics]] = []

    def rows(attack: RowAttack, protocol: Protocol, coalition: list[str], seed: int) -> Floats:
        view = record(CLIENTS, protocol, classes=4).view(coalition)
        (recovery,) = attack.claim(view, Known(), np.random.default_rng(seed)) or []
        return recovery.recovered.rows

    first = rows(Counting(), PAIRWISE, ["server"], 0)
    for protocol, coalition in ((CKKS, ["key_holder"]), (ADDITIVE, ["collector"])):
        assert np.array_equal(rows(Counting(), protocol, coalition, 1), first)
    assert len(Counting.asked) == 1
    # Without the coalition's own rows it is another sum.
    assert not np.array_equal(rows(Counting(), PAIRWISE, ["server", "c0"], 0), first)
    assert len(Counting.asked) == 2
    other = rows(Another(), PAIRWISE, ["server"], 0)
    assert not np.array_equal(other, first)
    assert (len(Another.asked), len(Counting.asked)) == (1, 2)


@pytest.mark.parametrize(
    ("protocol", "coalition"),
    [(ADDITIVE, ALL_AGGREGATORS[1:]), (CKKS, ["server"]), (PAIRWISE, ["c0"]), (PLAIN, [])],
)
def test_who_has_no_sum_has_no_rows(protocol: Protocol, coalition: list[str]) -> None:
    view = record(CLIENTS, protocol, classes=4).view(coalition)
    for attack in (SingleRows(), NonNegativeRows(), LatticeRows()):
        claim = attack.claim(view, Known(), rng())
        assert claim is None
        for measure in attack.judge(claim, truth_of(CLIENTS)):
            assert (measure.value, measure.trials) == (measure.chance, 0)


def test_single_rows_at_a_server_in_plain() -> None:
    run: Record = record(CLIENTS, PLAIN, classes=4)
    claim = SingleRows().claim(run.view(["server"]), Known(), rng())
    alone = sum(int((np.bincount(data.labels) == 1).sum()) for data in CLIENTS)
    measure = by_metric(SingleRows().judge(claim, truth_of(CLIENTS)))
    assert alone > 0
    assert measure["exact rows of single-row classes"].trials == alone
    assert measure["exact rows of single-row classes"].value == 1.0


def test_a_false_claim_is_not_believed() -> None:
    """The judge's own failure: rows of somebody else."""
    run = record(CLIENTS, PLAIN, classes=4)
    claim = NonNegativeRows().claim(run.view(["server"]), Known(), rng())
    others = relu_clients([5, 7, 6], dim=128, classes=4, seed=5)
    measures = by_metric(NonNegativeRows().judge(claim, truth_of(others)))
    assert measures["exact rows"].value == 0.0
    assert abs(measures["centred cosine"].value) < 0.5


def test_every_attack_says_what_it_is() -> None:
    for name, attack in ATTACKS.items():
        assert name == attack.name
        assert attack.wants
        assert attack.__doc__
        assert all(isinstance(item, str) for item in attack.assumes)
