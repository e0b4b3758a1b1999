"""Plans of runs over tables, against numbers worked out by hand and noise that is drawn."""

import json
import math
from typing import Any

import numpy as np
import pytest

from protocols import Additive, Plain
from secure_afl.data.columns import Column, Columns
from secure_afl.errors import ConfigError
from secure_afl.federation.simulation import Federation
from secure_afl.methods.regression import Regression
from secure_afl.privacy.mechanism import Privacy
from secure_afl.runs.planner import (
    Plan,
    coefficient_noise,
    plan_run,
    sampling_error,
    upload_bytes,
)
from secure_afl.runs.settings import make_config
from tests.kit.commands import Command
from tests.kit.tables import table_clients


def plan(rows: int = 400, columns: int = 12, **settings: Any) -> Plan:
    config = make_config({"method": "afl", **settings})
    return plan_run(config, 5, rows, columns, 2)


def test_noise_in_a_coefficient_by_hand() -> None:
    """d = 3, C = 2, σ_G = 10, σ_Q = 5: v = 1/9, so a² = 2·25·9 + ¼·90² = 2475."""
    found = coefficient_noise(3, 2, 10, 5)
    assert found.size == pytest.approx(math.sqrt(2475))
    assert found.at(1000) == pytest.approx(0.0497494)
    assert found.floor == pytest.approx(math.sqrt(6) * 90)
    # ¾N² ≥ 2475·(N − 4) from N = (2475 + √(2475² − 3·2475·4))/1.5 = 3295.99 on.
    rows = found.rows_needed(3)
    assert rows == 3296
    assert found.at(rows) <= (sampling_error(rows, 3) or 0) < found.at(rows - 1) * (1 + 1e-3)
    # Without noise to speak of, more rows than columns are enough.
    assert coefficient_noise(3, 2, 1e-6, 1e-6).rows_needed(3) == 5
    assert sampling_error(304, 3) == pytest.approx(0.05)
    assert sampling_error(4, 3) is None


def test_noise_in_a_coefficient_is_that_of_noise_drawn() -> None:
    rng = np.random.default_rng(3)
    dim, rows, gram_std, cross_std = 4, 20_000, 60.0, 30.0
    x = rng.uniform(-1, 1, (rows, dim))
    y = (x[:, 0] + rng.normal(0, 0.75, rows) > 0).astype(float)
    explained = np.corrcoef(x[:, 0], y)[0, 1] ** 2
    assert explained == pytest.approx(0.25, abs=0.05)
    f = x / math.sqrt(dim)
    gram, labels = f.T @ f, np.column_stack([1 - y, y])
    cross = f.T @ labels

    def standardised(gram: np.ndarray, cross: np.ndarray) -> np.ndarray:
        mean = cross.sum(axis=1) / rows
        covariance = gram / rows - np.outer(mean, mean)
        with_y = cross[:, 1] / rows - mean * y.mean()
        beta = np.linalg.solve(covariance, with_y)
        return np.asarray(beta * np.sqrt(covariance.diagonal()) / y.std())

    drawn = []
    for _ in range(400):
        upper = np.triu(rng.normal(0, gram_std / math.sqrt(2), (dim, dim)), 1)
        noisy = gram + upper + upper.T + np.diag(rng.normal(0, gram_std, dim))
        drawn.append(standardised(noisy, cross + rng.normal(0, cross_std, cross.shape)))
    spread = np.std(drawn, axis=0)
    said = coefficient_noise(dim, 2, gram_std, cross_std).at(rows)
    # It is the most that there is; the standardisation of the column itself takes some back.
    assert spread.max() <= 1.1 * said
    assert spread.max() >= 0.6 * said


def test_a_plan_of_an_exact_run() -> None:
    found = plan(rows=50)
    # 12 + 66 of G, 24 of Q, 2 counts, 4 bytes each.
    assert (found.entries, found.ring_bits, found.vector_bytes) == (104, 32, 416)
    assert (found.rows, found.bound, found.rows_for_membership) == (250, 64, 480)
    assert (found.noise, found.rows_for_noise, found.lost) == (0.0, None, False)
    assert found.sampling_error == pytest.approx(math.sqrt(0.75 / 237))
    assert len([w for w in found.warnings if "250 rows in the sum for 12 dimensions" in w]) == 1
    assert [sight.opens for sight in found.sights] == ["sum", "sum", "vectors"]
    assert not plan(rows=96).warnings
    assert plan(rows=50, squares=True).entries == 104 + 24
    assert found.upload_bytes is not None
    assert found.upload_bytes > found.vector_bytes


def test_a_plan_of_a_noisy_run() -> None:
    found = plan(epsilon=2, max_rows=512)
    assert found.rows_for_membership is None
    assert found.rows_for_noise is not None
    assert found.noise * found.rows == pytest.approx(
        plan(rows=500, epsilon=2, max_rows=512).noise * 2500
    )
    quieter = plan(epsilon=8, max_rows=512)
    assert quieter.noise < found.noise
    assert (quieter.rows_for_noise or 0) < found.rows_for_noise
    assert plan(rows=3, epsilon=1, max_rows=512).lost


def test_an_upload_is_what_a_session_sends() -> None:
    from protocols.layout import Block, Layout

    layout = Layout((Block("a", 1000, 0, 10),))
    small, large = (upload_bytes(Plain(), layout, n) for n in (3, 8))
    assert small is not None
    assert large is not None
    assert 4000 < small <= large < 8000
    assert upload_bytes(Additive(), Layout((Block("a", 1 << 20, 0, 10),)), 3) is None


def test_what_has_no_plan_is_refused() -> None:
    with pytest.raises(ConfigError, match="whose sum has no coefficients"):
        plan_run(make_config({"method": "class-means"}), 5, 100, 3, 2)
    with pytest.raises(ConfigError, match="--max-rows 100 with 400 rows a site"):
        plan(max_rows=100)
    with pytest.raises(ConfigError, match="minimum cohort 6 of 5 sites"):
        plan(min_cohort=6)
    with pytest.raises(ConfigError, match="--classes 2 with --method regression"):
        plan_run(make_config({"method": "regression"}), 5, 100, 3, 2)
    with pytest.raises(ConfigError, match=r"10 rows at most in the sum, for 9 columns.* ≥ 11"):
        plan_run(make_config({"method": "regression"}), 5, 2, 9)


def test_a_plan_of_a_number() -> None:
    found = plan_run(make_config({"method": "regression"}), 5, 400, 12)
    # 12 + 66 of G, 12 of Q, 12 sums, N, Σt and Σt².
    assert (found.entries, found.classes, found.sums) == (105, None, 1)
    assert found.sampling_error == pytest.approx(math.sqrt(0.75 / 1987))
    assert "the target spread likewise" in found.assumed
    assert found.unit.startswith("deviations of the outcome")


@pytest.mark.slow
def test_noise_in_a_number_s_coefficient_is_that_of_runs() -> None:
    rng = np.random.default_rng(0)
    sites, rows, dim = 5, 400, 5
    ranges = tuple(Column.over(f"x{at}", -1, 1) for at in range(dim))
    columns = Columns(ranges, Column.over("y", -1, 1))
    values = rng.uniform(-1, 1, (sites * rows, dim))
    target = 0.5 * values[:, 0] + 0.5 * rng.choice([-1, 1], len(values))
    assert target.var() == pytest.approx(1 / 3, abs=0.02)
    assert np.corrcoef(values[:, 0], target)[0, 1] ** 2 == pytest.approx(0.25, abs=0.02)
    clients = table_clients(columns, values, target, sites)
    privacy = Privacy(1.0, 1e-5, "example", "add-remove")
    drawn = []
    for _ in range(40):
        federation = Federation(
            Regression(), Additive(), privacy=privacy, columns=columns, row_mode="columns"
        )
        result = federation.run(clients, classes=("y",), max_rows=512)
        estimates = [c.estimate for c in result.report.fits[0].coefficients[1:]]
        drawn.append(np.array(estimates, dtype=np.float64))
    spread = np.std(drawn, axis=0) * values.std(axis=0) / target.std()
    config = make_config({"method": "regression", "epsilon": 1.0, "max_rows": 512})
    said = plan_run(config, sites, rows, dim)
    assert not said.lost
    assert 0.7 * said.noise < np.median(spread) < 1.2 * said.noise
    assert plan_run(config.replaced(epsilon=0.1), sites, rows, dim).lost


def test_a_plan_of_odds() -> None:
    found = plan_run(make_config({"method": "logistic", "rounds": 9}), 5, 400, 12)
    # A Newton step: gradient 13, curvature 91, log-likelihood 1.
    assert (found.entries, found.classes, found.sums) == (105, 2, 9)
    # A column of −1 and 1 that makes p of 1/4 and 3/4 has R² = 1/4.
    assert found.unit.startswith("log-odds")
    assert found.sampling_error == pytest.approx(1 / math.sqrt(1987 * 0.25 * 0.75))


def test_the_command_plans_and_still_prints_pairwise_parameters(command: Command) -> None:
    said = command("params", 5, "--columns", 12, "--site-rows", 50)
    for words in ("rows without a membership warning", "480", "all aggregators", "Warning: 250"):
        assert words in said.out
    content = json.loads(
        command("params", 5, "--columns", 12, "--site-rows", 50, "--json", "-").out
    )
    assert content["vector_bytes"] == 416
    number = command("params", 5, "--columns", 12, "--site-rows", 50, "--method", "regression")
    assert "columns × classes" not in number.out
    odds = command("params", 5, "--columns", 12, "--site-rows", 50, "--method", "logistic")
    assert "sums, at most" in odds.out
    assert "threshold t" in command("params", 16).out
    for flags, problem in (
        (["--epsilon", 1], "--epsilon has no effect without --columns"),
        (["--site-rows", 9], "--site-rows has no effect without --columns"),
        (["--columns", 3], "--columns without --site-rows"),
        (
            ["--columns", 3, "--site-rows", 9, "--method", "regression", "--classes", 3],
            "--classes 3 with --method regression",
        ),
    ):
        found = command("params", 5, *flags)
        assert found.code == 2
        assert problem in found.err
