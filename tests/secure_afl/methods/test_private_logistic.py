"""Logistic regression under noise: its bound, its sums, its intervals, and when there are none."""

import math

import numpy as np
import pytest
from msgspec import structs

from protocols import Additive, Pairwise, Plain
from secure_afl.analytic.coefficients import Fit
from secure_afl.analytic.noisy_newton import NoisySlope
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.data.columns import Column, Columns
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.methods.method import Task
from secure_afl.methods.private_logistic import (
    COARSE,
    DIAGONAL,
    FINE,
    GRADIENT,
    UPPER,
    PrivateLogistic,
    PrivateLogisticPublic,
)
from secure_afl.privacy.mechanism import Mechanism, Privacy

DIM = 3
TRUTH = np.array([-0.5, 1.0, -1.0, 0.5])
COLUMNS = Columns(tuple(Column.over(f"x{place}", -4, 4) for place in range(DIM)))
PRIVACY = Privacy(8.0, 1e-5)


def clients(rows: int, seed: int = 0) -> list[ClientData]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, DIM)).clip(-4, 4)
    odds = TRUTH[0] + values @ TRUTH[1:]
    labels = (rng.uniform(size=rows) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    features = COLUMNS.features(values)
    return [ClientData(f"c{k}", features[k::4], labels[k::4]) for k in range(4)]


def federated(rows: int, privacy: Privacy = PRIVACY, protocol: object = None) -> Result:
    federation = Federation(
        PrivateLogistic(),
        protocol or Plain(),  # type: ignore[arg-type]
        row_mode="columns",
        columns=COLUMNS,
        privacy=privacy,
    )
    return federation.run(clients(rows), classes=("no", "yes"), max_rows=rows // 4)


def task(privacy: Privacy = PRIVACY, classes: tuple[str, ...] = ("no", "yes")) -> Task:
    mechanism = Mechanism(privacy, rounds=4, clients=4, dropouts=0, colluders=1)
    return Task(DIM, classes, Quantiser(12, "columns"), 400, 100, 4, bytes(32), mechanism=mechanism)


def first() -> PrivateLogisticPublic:
    return PrivateLogistic().begin(task())


@pytest.mark.parametrize("protocol", [Additive(), Additive(3), Pairwise(dropout_fraction=0.25)])
def test_sums_are_the_integers_and_the_noise(protocol: object) -> None:
    result = federated(200, protocol=protocol)
    assert result.report.exact
    assert result.report.rounds == 4
    assert result.report.privacy is not None
    assert len(result.report.privacy.noise_std_by_round) == 4


def test_no_row_moves_gradient_and_curvature_further_than_the_bound() -> None:
    """All roundings of residual and weight, at the longest x̃, in the sum's own geometry."""
    found = PrivateLogistic().sensitivity(first(), PRIVACY)
    relative, scale = dict(found.relative), 1 << 12
    likely = np.linspace(0, 1, 400_001)
    residual = np.rint(FINE * likely)
    weight = np.rint(COARSE * likely * (1 - likely))
    squared = 2.0 * scale**2
    # Entries off the diagonal are sent once, with noise that is √½ as large: ‖x̃x̃ᵀ‖² in all.
    assert relative[UPPER] == pytest.approx(relative[DIAGONAL] * math.sqrt(0.5))
    norms = np.sqrt(
        (residual / relative[GRADIENT]) ** 2 * squared
        + (weight / relative[DIAGONAL]) ** 2 * squared**2
    )
    assert norms.max() <= found.joint * (1 + 1e-12)
    assert norms.max() == pytest.approx(found.joint)


def test_a_vector_is_within_the_bound_of_its_rows() -> None:
    method, rng = PrivateLogistic(), np.random.default_rng(0)
    state = structs.replace(first(), point=np.round(rng.normal(size=DIM + 1) * 65536) / 65536)
    found = method.sensitivity(state, PRIVACY)
    layout = method.layout(state)
    assert layout is not None
    relative = dict(found.relative)
    for seed in range(200):
        own = np.random.default_rng(seed)
        row = own.normal(size=(1, DIM))
        row *= own.uniform() / np.linalg.norm(row)
        data = ClientData("c", row, np.array([seed % 2]))
        vector = method.contribute(state, data, {}, b"")
        parts = layout.split(vector)
        norm = math.sqrt(
            sum(float(((parts[name] / relative[name]) ** 2).sum()) for name in relative)
        )
        assert norm <= found.joint


def test_units_and_neighbours_scale_the_bound() -> None:
    method, state = PrivateLogistic(), first()
    one = method.sensitivity(state, PRIVACY).joint
    replaced = method.sensitivity(state, Privacy(8.0, 1e-5, "example", "replace-one")).joint
    client = method.sensitivity(state, Privacy(8.0, 1e-5, "client")).joint
    assert (replaced / one, client / one) == (2, 100)
    with pytest.raises(ConfigError, match="no form for unit patient"):
        method.sensitivity(state, Privacy(8.0, 1e-5, "patient"))


def test_the_sums_share_the_budget() -> None:
    method = PrivateLogistic()
    spent = [method.sensitivity(state, PRIVACY).spend for state in method.foreseen(task())]
    assert sum(share**2 for share in spent) == pytest.approx(len(spent))
    assert spent[-1] == max(spent)


@pytest.mark.slow
def test_with_little_noise_intervals_hold_the_truth_and_with_much_there_are_none() -> None:
    (fit,) = federated(20_000, Privacy(20.0, 1e-5)).report.fits
    assert fit.coefficients[0].name == "(intercept)"
    for own, value in zip(fit.coefficients, TRUTH, strict=True):
        assert own.estimate is not None
        assert own.error is not None
        assert abs(own.estimate - value) < 5 * own.error
        assert own.error < 0.1
    assert "'no'" in fit.notes[0]
    much = federated(200, Privacy(0.5, 1e-5)).report.fits[0]
    assert all(own.low is None and own.error is None for own in much.coefficients)
    assert "no interval would mean anything" in much.notes[1]


def of_one_column(odds: Floats, values: Floats, seed: int, rounds: int = 4) -> Fit:
    """Fit classes of these log-odds to one column in [−1, 1]."""
    labels = (np.random.default_rng(seed).uniform(size=len(odds)) < 1 / (1 + np.exp(-odds))) * 1
    columns = Columns((Column.over("x", -1, 1, indicator=bool((np.abs(values) == 1).all())),))
    rows = columns.features(values[:, None])
    data = [ClientData(f"c{k}", rows[k::4], labels[k::4].astype(np.int64)) for k in range(4)]
    federation = Federation(
        PrivateLogistic(rounds=rounds),
        Plain(),
        row_mode="columns",
        columns=columns,
        privacy=PRIVACY,
    )
    report = federation.run(data, classes=("no", "yes"), max_rows=len(odds) // 4).report
    return report.fits[0]


@pytest.mark.parametrize("intercept", [-5.0, 5.0])
def test_intervals_of_a_rare_class_hold_the_truth(intercept: float) -> None:
    values = np.random.default_rng(1).uniform(-1, 1, 20_000)
    fit = of_one_column(intercept + values, values, seed=2)
    for own, value in zip(fit.coefficients, (intercept, 1.0), strict=True):
        assert own.estimate is not None
        assert own.error is not None
        assert abs(own.estimate - value) < 5 * own.error


def test_without_a_row_of_a_class_there_are_no_intervals() -> None:
    values = np.random.default_rng(1).uniform(-1, 1, 8_000)
    fit = of_one_column(np.full(8_000, -500.0), values, seed=2)
    assert all(own.estimate is not None and own.error is None for own in fit.coefficients)
    assert "hold the noise" not in fit.notes[0]
    assert "no interval would mean anything" in fit.notes[1]


@pytest.mark.parametrize("rounds", [2, 4])
def test_steps_that_have_not_settled_give_no_intervals(rounds: int) -> None:
    """One row in ten is of a group that has hardly any of the class, and steps go on long."""
    values = np.where(np.arange(20_000) % 10, -1.0, 1.0)
    fit = of_one_column(np.where(values > 0, -8.0, 0.0), values, seed=2, rounds=rounds)
    assert all(own.estimate is not None and own.error is None for own in fit.coefficients)
    assert any("have not settled" in note for note in fit.notes)


@pytest.mark.parametrize(
    ("rounds", "advice"), [(4, "--rounds 8"), (7, "--rounds 10"), (10, "may be too rare")]
)
def test_what_helps_steps_to_settle_is_said(rounds: int, advice: str) -> None:
    state = structs.replace(first(), done=rounds, unsettled=2.0)
    (said,) = PrivateLogistic(rounds=rounds).remarks(state)
    assert "by 2.0 of its standard errors" in said
    assert advice in said


def test_the_first_sum_tells_the_slope_at_the_class_shares() -> None:
    rng = np.random.default_rng(0)
    rows = np.hstack([np.ones((400, 1)), rng.uniform(-0.5, 0.5, (400, 2))])
    labels = (np.arange(400) < 30) * 1.0
    start = NoisySlope(np.zeros(3), rows.T @ (labels - 0.5), rows.T @ rows / 4, 1e-9, 1e-9)
    found = start.at_shares()
    share = labels.mean()
    np.testing.assert_allclose(found.point, [math.log(share / (1 - share)), 0, 0])
    np.testing.assert_allclose(found.gradient, rows.T @ (labels - share), atol=1e-9)
    np.testing.assert_allclose(found.curvature, share * (1 - share) * rows.T @ rows)
    # A class that noise hides has as many rows as its count has noise.
    hidden = NoisySlope(np.zeros(3), np.array([-203.0, 0, 0]), rows.T @ rows / 4, 2.0, 1.0)
    assert hidden.at_shares().point[0] == pytest.approx(math.log(2 / 398))
    lost = NoisySlope(np.zeros(3), np.ones(3), -np.eye(3), 2.0, 1.0)
    assert not lost.at_shares().point.any()


def test_a_step_is_too_long_to_be_the_last_where_it_may_leave_an_error() -> None:
    rows = np.hstack([np.ones((4000, 1)), np.random.default_rng(0).uniform(-1, 1, (4000, 1))])
    number, category = np.array([False]), np.array([True])
    slope = NoisySlope(np.zeros(2), np.zeros(2), rows.T @ rows / 40, 1e-9, 1e-9)
    error = math.sqrt(slope.covariance(np.zeros(2))[0, 0])
    for length in (0.1 * error, error, math.sqrt(error)):
        assert slope.unsettled(np.array([length, 0.0]), 0.0, 1.0, number) == 0
    for earlier in (0.0, 1e3):
        # A long step of the mean row is never laid to noise.
        assert slope.unsettled(np.array([2 * math.sqrt(error), 0.0]), earlier, 1.0, number) > 5
        assert slope.unsettled(np.array([-3.0, 0.0]), earlier, 1.0, number) > 0
    error = math.sqrt(slope.covariance(np.zeros(2))[1, 1])
    short, long = (np.array([0.0, part * math.sqrt(error)]) for part in (0.7, 1.5))
    for kind in (number, category):
        assert slope.unsettled(short, 0.0, 1.0, kind) == 0
        assert slope.unsettled(long, 0.0, 1.0, kind) > 0
    # Noise of the sum before explains a number's step, and not one of a category.
    noise = float(long[1]) / 1.5 * slope.curvature[1, 1]
    assert slope.unsettled(long, noise, 1.0, number) == 0
    assert slope.unsettled(long, noise / 2, 1.0, number) > 0
    assert slope.unsettled(long, noise, 1.0, category) > 0
    # Rows of a category are as far apart as the column's ends, however few these are.
    narrow = NoisySlope(np.zeros(2), np.zeros(2), np.diag([100.0, 1.0]), 1e-9, 1e-9)
    step = np.array([0.0, 1.5])
    assert narrow.unsettled(step, 0.0, 1.0, number) == 0
    assert narrow.unsettled(step, 0.0, 1.0, category) == pytest.approx(1.5)


@pytest.mark.slow
def test_too_few_steps_over_numbers_give_no_intervals() -> None:
    federation = Federation(
        PrivateLogistic(rounds=2), Plain(), row_mode="columns", columns=COLUMNS, privacy=PRIVACY
    )
    report = federation.run(clients(20_000), classes=("no", "yes"), max_rows=5_000).report
    assert all(own.error is None for own in report.fits[0].coefficients)
    assert any("--rounds 4" in note for note in report.fits[0].notes)


def test_the_model_tells_classes_apart() -> None:
    result = federated(8_000, Privacy(20.0, 1e-5))
    rows = clients(4_000, seed=1)
    features = np.concatenate([data.features for data in rows])
    labels = np.concatenate([data.labels for data in rows])
    odds = COLUMNS.values(features) @ TRUTH[1:] + TRUTH[0]
    best = ((odds > 0) == labels).mean()
    assert result.model.accuracy(features, labels) > best - 0.02
    assert result.model.has_probabilities


def test_what_cannot_be_is_refused() -> None:
    method = PrivateLogistic()
    with pytest.raises(ConfigError, match="give --epsilon"):
        method.begin(structs.replace(task(), mechanism=None))
    with pytest.raises(ConfigError, match="3 classes, allowed: 2"):
        method.begin(task(classes=("a", "b", "c")))
    with pytest.raises(ConfigError, match="rounds is 0"):
        PrivateLogistic(rounds=0)


@pytest.mark.parametrize(
    ("change", "round"),
    [
        ({"done": 1}, 1),
        ({"point": np.ones(DIM + 1)}, 1),
        ({"done": 1, "point": np.full(DIM + 1, np.nan)}, 2),
        ({"done": 1, "point": np.full(DIM + 1, 1e9)}, 2),
        ({"done": 1, "point": np.full(DIM + 1, 1e-9)}, 2),
        ({"done": 1, "point": np.zeros(DIM)}, 2),
        ({"done": 1, "estimates": np.zeros(DIM + 1)}, 2),
    ],
)
def test_states_that_cannot_be_are_refused(change: dict[str, object], round: int) -> None:
    with pytest.raises(DataError):
        PrivateLogistic().check(structs.replace(first(), **change), round)


def test_a_state_of_a_round_is_accepted() -> None:
    PrivateLogistic().check(first(), 1)
    PrivateLogistic().check(structs.replace(first(), done=1, point=np.full(DIM + 1, 0.5)), 2)
