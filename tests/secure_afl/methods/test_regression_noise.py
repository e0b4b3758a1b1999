"""Regression under noise: sums stay exact but for it, and results say what it did."""

import numpy as np
import pytest

from protocols.protocol import PROTOCOLS
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.data.columns import Column, Columns
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.methods.regression import Regression
from secure_afl.privacy.mechanism import Privacy
from tests.kit.tables import table_client

COLUMNS = Columns(
    (Column.over("a", 0, 100), Column.over("b", -1, 1)), Column.over("y", -50, 50, "kg")
)
TRUTH = np.array([2.0, 0.3, -8.0])


def table(rows: int, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    values = np.column_stack([rng.uniform(10, 90, rows), rng.uniform(-1, 1, rows)])
    return values, TRUTH[0] + values @ TRUTH[1:] + 5 * rng.standard_normal(rows)


def sites(rows: int, patients: int | None = None) -> list[ClientData]:
    values, target = table(rows)
    found = []
    for i in range(4):
        own = values[i::4], target[i::4]
        whose = None
        if patients is not None:
            whose = [f"p{place % patients}" for place in range(len(own[0]))]
        found.append(table_client(f"s{i}", COLUMNS, *own, patients=whose))
    return found


def run(
    clients: list[ClientData], privacy: Privacy, protocol: str = "additive", rows: int = 1024
) -> Result:
    federation = Federation(
        Regression(),
        PROTOCOLS[protocol](),
        row_mode="columns",
        columns=COLUMNS,
        privacy=privacy,
        min_cohort=4,
    )
    return federation.run(clients, classes=("y",), max_rows=rows)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["additive", "pairwise", "plain"])
@pytest.mark.parametrize("neighbours", ["add-remove", "replace-one"])
def test_a_noisy_sum_is_exact_but_for_its_noise(protocol: str, neighbours: str) -> None:
    privacy = Privacy(8.0, neighbours=neighbours)  # type: ignore[arg-type]
    result = run(sites(4000), privacy, protocol)
    assert result.report.exact
    (fit,) = result.report.fits
    for coefficient, true in zip(fit.coefficients, TRUTH, strict=True):
        assert coefficient.estimate is not None
        assert coefficient.error is not None
        assert abs(coefficient.estimate - true) < 6 * coefficient.error
        assert coefficient.rounding is None
    assert fit.outcome == "y [kg]"
    assert "count the noise in" in fit.notes[-1]
    assert 2000 < fit.figures["rows"] < 6000
    assert 2 < fit.figures["residual_standard_error"] < 12


@pytest.mark.parametrize("unit", ["patient", "client"])
def test_other_units_have_their_sums_exact_too(unit: str) -> None:
    clients = sites(4000, patients=250)
    result = run(clients, Privacy(8.0, unit=unit), rows=256 if unit == "patient" else 4096)  # type: ignore[arg-type]
    assert result.report.exact
    (fit,) = result.report.fits
    if unit == "patient":
        # A patient's rows weigh as one: 250 at each of four sites.
        assert 700 < fit.figures["rows"] < 1300
    else:
        assert "too large" in fit.notes[-1]
        assert all(c.low is None for c in fit.coefficients)


def test_more_shares_than_promised_count_as_noise() -> None:
    result = run(sites(4000), Privacy(2.0))
    task = result.public.task
    assert task.mechanism is not None
    assert task.mechanism.shares == 3
    method, total = Regression(), result.rounds[0].released.total
    errors = []
    for included in (("s0", "s1", "s2"), ("s0", "s1", "s2", "s3")):
        fit = method.absorb(method.begin(task), total, included).fit
        assert fit is not None
        errors.append(fit.errors)
    # The noise is most of the error here, and a share more is √(4/3) of it.
    assert (errors[1] / errors[0] > 1.05).all()
    assert (errors[1] / errors[0] < np.sqrt(4 / 3)).all()


def test_noise_that_is_too_large_is_said() -> None:
    result = run(sites(40), Privacy(0.1))
    (fit,) = result.report.fits
    assert "no interval would mean anything" in fit.notes[-1]
    assert {c.error for c in fit.coefficients} == {None}
    assert np.isfinite(result.model.scores(sites(40)[0].features)).all()


def test_the_model_of_a_noisy_sum_predicts_what_its_coefficients_say() -> None:
    result = run(sites(4000), Privacy(8.0))
    values, target = table(100, 1)
    estimates = np.array([c.estimate for c in result.report.fits[0].coefficients], dtype=float)
    data = table_client("t", COLUMNS, values, target)
    expected = estimates[0] + values @ estimates[1:]
    np.testing.assert_allclose(result.model.scores(data.features)[:, 0], expected, rtol=1e-9)
