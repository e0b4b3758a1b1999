"""Sweeps: every point is run once, over restarts too, and what comes out can be read."""

import json
from pathlib import Path

import pytest

from secure_afl import tune as tuning
from secure_afl.config import RunConfig
from secure_afl.errors import ConfigError
from secure_afl.tune import Outcome, Point, Sweep, points, summarise
from tests.secure_afl.commands import Command

CONFIG = RunConfig(backbone="identity", partition="iid:5", max_rows=512)
SWEEP = Sweep(epsilons=(1.0, 8.0), seeds=2, baseline="default", audit_tests=256)


def test_a_sweep_is_the_product_of_what_varies() -> None:
    sweep = Sweep((1.0, 2.0), 3, (8, 10), (0.5,), (), (0, 64), "none", 0)
    found = points(CONFIG, sweep)
    settings = 1 + 2 + 1 + 2
    assert len(found) == 3 + 2 * settings * 3
    assert len({point.key for point in found}) == len(found)
    assert {point.kind for point in found} == {"exact", "private"}


def test_units_without_a_baseline_or_an_audit_leave_them_out() -> None:
    config = RunConfig(unit="client", max_rows=512)
    assert {point.kind for point in points(config, SWEEP)} == {"exact", "private"}


def test_a_sweep_of_nothing_is_refused() -> None:
    for sweep in (Sweep(epsilons=()), Sweep(epsilons=(0.0,)), Sweep(seeds=0)):
        with pytest.raises(ConfigError, match="tune"):
            points(CONFIG, sweep)
    with pytest.raises(ConfigError, match="--epsilons"):
        points(RunConfig(epsilon=1.0), SWEEP)


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path: Path) -> None:
    class Stopped(Exception):
        """As if somebody had pressed a key."""

    def stop_early(what: str, done: int, total: int) -> None:
        if (what, done) == ("points", 4):
            raise Stopped

    with pytest.raises(Stopped):
        tuning.tune(CONFIG, SWEEP, tmp_path, stop_early)
    file = tmp_path / "points.jsonl"
    first = tuning.load_outcomes(file)
    assert len(first) == 4
    # Cut off in the middle of a line.
    file.write_bytes(file.read_bytes() + b'\n{"point": {"ki')
    outcomes = tuning.tune(CONFIG, SWEEP, tmp_path)
    assert [outcome.seconds for outcome in outcomes[:4]] == [o.seconds for o in first]
    again = tuning.tune(CONFIG, SWEEP, tmp_path)
    assert [outcome.seconds for outcome in again] == [outcome.seconds for outcome in outcomes]


def test_a_tuned_run_from_the_command_line(command: Command, tmp_path: Path) -> None:
    result = command(
        "tune",
        "--out",
        str(tmp_path),
        "--epsilons",
        "0.5,8",
        "--seeds",
        "2",
        "--audit-tests",
        "256",
        "--backbone",
        "identity",
        "--partition",
        "iid:5",
        "--max-rows",
        "512",
    )
    assert result.code == 0, result.out + result.err
    content = json.loads((tmp_path / "tune.json").read_text(encoding="utf-8"))
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")
    by_kind = {(s["kind"], s["epsilon"]): s["accuracy"] for s in content["summaries"]}
    assert by_kind["exact", None] > by_kind["private", 8.0] > by_kind["private", 0.5]
    assert len(content["points"]) == 2 + 2 * (2 + 2 + 1)
    for word in ("add-remove", "δ = 1e-05", "Clipping", "Noise multiplier", "itself a release"):
        assert word in " ".join(content["read_first"])
        assert word in (result.out + result.err)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--epsilons", "1;2"], "commas"),
        (["--baseline", "opacus"], "none, default, sweep"),
        (["--epsilons", ""], "at least one"),
        (["--unit", "household"], "unit"),
    ],
)
def test_bad_flags_are_refused_before_any_work(
    command: Command, flags: list[str], problem: str, tmp_path: Path
) -> None:
    result = command("tune", "--out", str(tmp_path), "--max-rows", "512", *flags)
    assert result.code == 2
    assert problem in (result.out + result.err)


def test_summaries_keep_settings_apart_and_join_seeds() -> None:
    def outcome(seed: int, epsilon: float, accuracy: float) -> Outcome:
        config = RunConfig(seed=seed, epsilon=epsilon)
        return Outcome(Point("private", config), accuracy, 1.0, 8, None, 1.0)

    found = summarise([outcome(s, e, e / 10 + s / 100) for e in (2.0, 1.0) for s in range(3)])
    assert [(summary.epsilon, summary.seeds) for summary in found] == [(2.0, 3), (1.0, 3)]
    assert found[1].accuracy == pytest.approx(0.11)
    # Student's t with two degrees of freedom: 4.303 · 0.01 / √3.
    assert found[1].high - found[1].accuracy == pytest.approx(0.02484, rel=1e-3)
