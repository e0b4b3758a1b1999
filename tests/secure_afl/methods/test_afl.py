"""AFL with sums of squares by class: exact over protocols, and refused where nothing follows."""

import numpy as np
import pytest

from protocols import Additive, Bfv, Ckks, Pairwise, Plain
from protocols.protocol import Protocol
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import SQUARES
from secure_afl.analytic.table_noise import figure_errors
from secure_afl.data.columns import Column, Columns
from secure_afl.errors import ConfigError
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, AnyMethod, ClassMeans, FedHiP
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Unit

COLUMNS = Columns(
    (
        Column.over("age", 0, 120, "years"),
        Column.over("bmi", 10, 60),
        Column.over("sex[male]", 0, 1),
    )
)


def make_sites(rows: int = 60, sites: int = 4) -> tuple[np.ndarray, list[ClientData]]:
    rng = np.random.default_rng(7)
    clients, every = [], []
    for site in range(sites):
        labels = rng.integers(0, 2, rows)
        values = np.column_stack(
            [rng.normal(50 + 9 * labels, 10), rng.normal(26, 4 - labels), rng.random(rows) < 0.5]
        )
        patients = tuple(f"{site}-{row // 2}" for row in range(rows))
        clients.append(ClientData(f"s{site}", COLUMNS.features(values), labels, patients))
        every.append(np.column_stack([labels, values]))
    return np.concatenate(every), clients


def federated(
    method: AnyMethod, protocol: Protocol | None = None, privacy: Privacy | None = None
) -> Result:
    federation = Federation(
        method, protocol or Additive(), columns=COLUMNS, row_mode="columns", privacy=privacy
    )
    bound = None if privacy is None else 64
    return federation.run(make_sites()[1], classes=("0", "1"), max_rows=bound)


@pytest.mark.parametrize("protocol", [Plain(), Additive(), Pairwise(), Ckks(), Bfv()], ids=repr)
def test_squares_are_summed_bit_for_bit(protocol: Protocol) -> None:
    result = federated(AFL(squares=True), protocol)
    assert result.report.exact
    round_ = result.rounds[0]
    squares = round_.session.layout.split(round_.released.total)[SQUARES].reshape(3, 2)
    assert np.array_equal(squares.sum(axis=1), result.statistics.gram.diagonal())
    summary = result.summary
    assert summary is not None
    values, labels = make_sites()[0][:, 1:], make_sites()[0][:, 0]
    spread = np.stack([values[labels == c].std(axis=0, ddof=1) for c in (0, 1)], axis=1)
    assert summary.figures.deviations is not None
    np.testing.assert_allclose(summary.figures.deviations[:2], spread[:2], rtol=1e-3)
    plain = federated(AFL(), protocol)
    assert plain.summary is not None
    assert plain.summary.figures.deviations is None
    rows = make_sites()[1][0].features
    assert np.array_equal(result.model.scores(rows), plain.model.scores(rows))


@pytest.mark.parametrize("unit", ["example", "patient"])
def test_noisy_squares_have_their_noise(unit: Unit) -> None:
    privacy = Privacy(20.0, unit=unit)
    result = federated(AFL(squares=True, head="lda"), privacy=privacy)
    assert result.report.exact
    summary = result.summary
    assert summary is not None
    errors = figure_errors(summary)
    assert errors is not None
    assert errors.deviations is not None
    found = summary.figures
    assert found.deviations is not None
    # Patients have two rows each, and count once.
    wanted = 120 if unit == "patient" else 240
    assert abs(found.total - wanted) < 6 * errors.total
    table = make_sites()[0]
    ages = [table[table[:, 0] == c][:, 1] for c in (0, 1)]
    expected = np.array([age.std(ddof=1) for age in ages])
    clear = np.isfinite(found.deviations[0])
    off = np.abs(found.deviations[0] - expected)[clear]
    assert (off < 8 * errors.deviations[0][clear] + 1.5).all()


def test_tables_that_cannot_be_say_why() -> None:
    with pytest.raises(ConfigError, match="holds no class counts"):
        _ = federated(AFL(head="ridge"), privacy=Privacy(8.0)).summary
    with pytest.raises(ConfigError, match="noise comes after the sum"):
        _ = federated(AFL(head="lda"), privacy=Privacy(8.0, placement="central")).summary
    assert federated(ClassMeans()).summary is None
    assert federated(FedHiP(least_count=9)).summary is not None


def test_settings_without_effect_are_refused() -> None:
    clients = make_sites()[1]
    with pytest.raises(ConfigError, match="--squares has no effect without columns"):
        Federation(AFL(squares=True), Plain()).run(clients)
    with pytest.raises(ConfigError, match="--least-count has no effect without columns"):
        Federation(AFL(least_count=3), Plain()).run(clients)
    with pytest.raises(ConfigError, match="--squares has no effect on a sum without class counts"):
        federated(AFL(squares=True, head="ridge"), privacy=Privacy(4.0))
