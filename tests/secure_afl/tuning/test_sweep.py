"""Sweeps: every point is run once, over restarts too, and what comes out can be read."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from msgspec.structs import replace
from rich.console import Console

from secure_afl.cli import console as cli_console
from secure_afl.cli.tune import _between
from secure_afl.errors import ConfigError
from secure_afl.journal import Journal
from secure_afl.runs.choose import make_terms
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import prepare
from secure_afl.tuning import outcomes as tuning_outcomes
from secure_afl.tuning import points as tuning_points
from secure_afl.tuning import sweep as tuning
from secure_afl.tuning.audit import Cohort, audit
from secure_afl.tuning.outcomes import Outcome, summarise
from secure_afl.tuning.points import Kind, Point, check_data, check_settings, points
from secure_afl.tuning.settings import Sweep
from tests.kit.commands import Command

CONFIG = RunConfig(backbone="identity", partition="iid:5", max_rows=512)
SWEEP = Sweep(epsilons=(1.0, 8.0), seeds=2, baseline="default", audit_tests=256)
SMALL = Sweep(epsilons=(8.0,), seeds=1, baseline="none", audit_tests=128)


def save_rows(path: Path, rows: int, seed: int) -> None:
    """Feature rows of width 5 around one centre for each of three classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    path.parent.mkdir(parents=True, exist_ok=True)
    features = np.eye(3, 5)[labels] + 0.3 * rng.standard_normal((rows, 5))
    np.savez(path, features=features, labels=labels)


@pytest.fixture
def sites(tmp_path: Path) -> RunConfig:
    """A run over four sites of feature files."""
    for number in range(4):
        save_rows(tmp_path / "sites" / f"s{number}.npz", 30, number)
    save_rows(tmp_path / "test.npz", 60, 99)
    return RunConfig(
        clients=str(tmp_path / "sites" / "*.npz"), test=str(tmp_path / "test.npz"), max_rows=64
    )


@pytest.mark.slow
def test_a_sweep_is_the_product_of_what_varies() -> None:
    sweep = Sweep(
        epsilons=(1.0, 2.0),
        seeds=3,
        bits=(8, 10),
        ridges=(0.5,),
        dimensions=(0, 64),
        baseline="none",
        audit_tests=0,
    )
    found = points(CONFIG, sweep)
    settings = 1 + 2 + 1 + 2
    assert len(found) == 3 + 2 * settings * 3
    assert len({point.key("") for point in found}) == len(found)
    assert points(CONFIG, replace(sweep, epsilons=(1.0, 2.0, 1.0))) == found
    assert {point.kind for point in found} == {"exact", "private"}


def test_units_without_a_baseline_or_an_audit_leave_them_out() -> None:
    config = RunConfig(unit="client", max_rows=512)
    assert {point.kind for point in points(config, SWEEP)} == {"exact", "private"}


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "fedavg"},
        {"method": "fedsgd"},
        {"noise": "central"},
        {"protocol": "plain"},
    ],
)
def test_what_the_audit_is_not_of_is_not_audited(changes: dict[str, Any]) -> None:
    assert "audit" in {point.kind for point in points(CONFIG, SWEEP)}
    kinds = {point.kind for point in points(CONFIG.replaced(**changes), SWEEP)}
    assert kinds == {"exact", "private", "dp-sgd"}


def test_the_audit_is_of_the_run_that_is_tuned(
    tmp_path: Path, sites: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    audited = []

    def watched(*arguments: Any, **settings: Any) -> Any:
        audited.append((settings["cohort"], settings["protocol"].name, settings["corrupt"]))
        return audit(*arguments, **settings)

    monkeypatch.setattr(tuning, "audit", watched)
    config = replace(sites, protocol="pairwise", min_cohort=3)
    outcomes = tuning.tune(config, SMALL, tmp_path / "out")
    assert audited == [(Cohort(4, 1, 1), "pairwise", 0)]
    assert [outcome.cohort for outcome in outcomes] == [None, Cohort(4, 1, 1), Cohort(4, 1, 1)]
    said = " ".join(tuning_outcomes.statement(config, outcomes))
    assert "of 4 clients 1 may drop out and 1 may tell" in said
    assert "afl's sums over pairwise" in said
    # What was read back is what was written.
    journal = Journal(tmp_path / "out" / tuning.POINTS, Outcome)
    assert len(journal) == len(outcomes)
    assert all(journal.find(o.point.key(o.data)) == o for o in outcomes)


def test_the_least_cohort_can_be_audited(tmp_path: Path, sites: RunConfig) -> None:
    config = replace(sites, min_cohort=2)
    audited = tuning.tune(config, SMALL, tmp_path / "out")[-1]
    assert (audited.point.kind, audited.cohort) == ("audit", Cohort(4, 2, 1))
    assert audited.lower_bound is not None
    assert audited.lower_bound <= 8.0


def test_noise_is_spread_as_the_run_spreads_it() -> None:
    config = RunConfig(epsilon=1.0)
    assert tuning_points.noise_cohort(config, 5) == Cohort(5, 0, 1)
    assert tuning_points.noise_cohort(replace(config, corrupt=2), 20) == Cohort(20, 2, 2)
    assert tuning_points.noise_cohort(replace(config, min_cohort=12), 20) == Cohort(20, 8, 1)
    assert tuning_points.noise_cohort(replace(config, noise="central"), 20) is None
    assert tuning_points.noise_cohort(RunConfig(), 20) is None


def test_public_data_are_used_by_private_runs_alone(tmp_path: Path, sites: RunConfig) -> None:
    save_rows(tmp_path / "public.npz", 4, 7)
    config = replace(sites, public=str(tmp_path / "public.npz"))
    exact, private, *_ = tuning.tune(config, SMALL, tmp_path / "out")
    # Four rows less their mean span three axes.
    assert (exact.dimension, private.dimension) == (5, 3)


def test_a_sweep_of_nothing_is_refused() -> None:
    for sweep in (Sweep(epsilons=()), Sweep(epsilons=(0.0,)), Sweep(seeds=0)):
        with pytest.raises(ConfigError, match="tune"):
            points(CONFIG, sweep)
    with pytest.raises(ConfigError, match="--epsilons"):
        points(RunConfig(epsilon=1.0), SWEEP)


@pytest.mark.parametrize(
    ("changes", "sweep", "said"),
    [
        ({"method": "fedavg"}, {"bits": (6,)}, "--bits has no effect with fedavg"),
        ({"method": "fedsgd"}, {"cross_weights": (1.0,)}, "--cross-weights has no effect"),
        ({"method": "fedavg"}, {"ridges": (1.0,)}, "--ridges has no effect with fedavg"),
        ({"keys": "keys"}, {}, "keys is a setting of run"),
        ({"holdout": 0.2}, {}, "holdout is a setting of run"),
        ({"out": "results"}, {}, "out is a setting of run"),
    ],
)
def test_what_a_sweep_does_not_look_at_is_refused(
    changes: dict[str, Any], sweep: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        points(CONFIG.replaced(**changes), replace(SWEEP, **sweep))


@pytest.mark.parametrize("changes", [{"ledger": "l.json"}, {"new_ledger": True}, {"budget": 3.0}])
def test_a_ledger_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="ledger and budget"):
        points(CONFIG.replaced(**changes), SWEEP)


@pytest.mark.parametrize(
    ("changes", "sweep", "problem"),
    [
        ({"max_rows": None}, {}, "--max-rows"),
        ({}, {"epsilons": (1.0, 200.0)}, "epsilon"),
        ({}, {"epsilons": (1.0, float("nan"))}, "epsilon"),
        ({}, {"epsilons": (1.0, 0.005)}, r"DP-SGD; allowed: 0.01..20"),
        ({"delta": 1e-13}, {}, "delta 1e-13 of DP-SGD"),
        ({"seed": 2**32 - 1}, {}, "seed"),
        ({}, {"bits": (10, 13)}, "feature_bits.*≤ 12"),
        ({}, {"ridges": (float("nan"),)}, "ridge"),
        ({}, {"cross_weights": (0.0,)}, "cross_weight"),
        ({}, {"dimensions": (-1,)}, "dimension"),
        (
            {"method": "fedavg", "architecture": "convnet"},
            {"dimensions": (8,)},
            "learns from pixels",
        ),
    ],
)
def test_every_point_is_checked_before_the_first(
    changes: dict[str, Any], sweep: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    def nothing_begins(what: str, done: int, total: int) -> None:
        raise AssertionError(what)

    with pytest.raises(ConfigError, match=problem):
        tuning.tune(CONFIG.replaced(**changes), replace(SWEEP, **sweep), tmp_path, nothing_begins)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["opacus", "dp_accounting", "matplotlib"])
def test_what_is_not_installed_is_said_at_once(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    with pytest.raises(ConfigError, match=r"secure-afl\[tune\]"):
        check_settings(points(CONFIG, SWEEP))
    if module != "matplotlib":
        check_settings(points(CONFIG, replace(SWEEP, baseline="none")))


@pytest.mark.parametrize(
    ("changes", "sweep", "problem"),
    [
        ({"test": None}, {}, "--test"),
        ({}, {"dimensions": (3, 6)}, "dimension 6 of features with 5"),
        ({"min_cohort": 5}, {}, "minimum cohort 5 of 4"),
        ({"corrupt": 3}, {}, "corrupt"),
        ({"drop": 1}, {}, "drop 1 of 4"),
    ],
)
def test_what_needs_data_is_checked_before_the_first_point(
    changes: dict[str, Any], sweep: dict[str, Any], problem: str, sites: RunConfig, tmp_path: Path
) -> None:
    check_data(points(sites, SMALL), prepare(sites, make_terms(sites)))
    with pytest.raises(ConfigError, match=problem):
        tuning.tune(sites.replaced(**changes), replace(SMALL, **sweep), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_changed_data_are_run_again(sites: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = tuning.tune(sites, SMALL, out)
    assert tuning.tune(sites, SMALL, out) == first
    for changed in (tmp_path / "sites" / "s2.npz", tmp_path / "test.npz"):
        save_rows(changed, 60, 1000)
        second = tuning.tune(sites, SMALL, out)
        for before, after in zip(first, second, strict=True):
            assert before.data != after.data
            assert before.seconds != after.seconds
        first = second
    (tmp_path / "sites" / "s2.npz").rename(tmp_path / "sites" / "s9.npz")
    assert {o.data for o in tuning.tune(sites, SMALL, out)} != {o.data for o in first}


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({}, ("every row has norm 1", "2^bits", "number of rows"), ("update", "--update-clip")),
        ({"method": "fedavg"}, ("update has norm ≤ 30 (--update-clip)",), ("row has norm 1",)),
        ({"method": "fedsgd", "update_clip": 2.5}, ("norm ≤ 2.5",), ("row has norm 1",)),
        ({"noise": "central"}, ("sees it exactly",), ("may drop out",)),
        ({"neighbours": "replace-one"}, ("without privacy",), ("from the number of rows",)),
    ],
)
def test_the_statement_is_of_the_run(
    changes: dict[str, Any], said: tuple[str, ...], unsaid: tuple[str, ...]
) -> None:
    config = CONFIG.replaced(**changes)
    outcomes = [
        Outcome(point, 0.5, 1.0, 8, None, 1.0, "", Cohort(5, 0, 1))
        for point in points(config, SWEEP)
        if changes.get("noise") != "central"
    ]
    text = " ".join(tuning_outcomes.statement(config, outcomes))
    for words in said:
        assert words in text
    for words in unsaid:
        assert words not in text


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path: Path) -> None:
    class Stopped(Exception):
        """As if somebody had pressed a key."""

    def stop_early(what: str, done: int, total: int) -> None:
        if (what, done) == ("points", 4):
            raise Stopped

    with pytest.raises(Stopped):
        tuning.tune(CONFIG, SWEEP, tmp_path, stop_early)
    file = tmp_path / "points.jsonl"
    first = Journal(file, Outcome)
    assert len(first) == 4
    # Cut off in the middle of a line.
    file.write_bytes(file.read_bytes() + b'{"key": "3f", "resu')
    outcomes = tuning.tune(CONFIG, SWEEP, tmp_path)
    assert all(first.find(o.point.key(o.data)) == o for o in outcomes[:4])
    again = tuning.tune(CONFIG, SWEEP, tmp_path)
    assert [outcome.seconds for outcome in again] == [outcome.seconds for outcome in outcomes]


@pytest.mark.slow
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
    # Between exact ridge and noisy gradients at ε = 8 it is one head's word against another's.
    assert min(by_kind["exact", None], by_kind["private", 8.0]) > by_kind["private", 0.5]
    assert len(content["points"]) == 2 + 2 * (2 + 2 + 1)
    for word in ("add-remove", "δ = 1e-05", "Clipping", "Noise multiplier", "itself a release"):
        assert word in " ".join(content["read_first"])
        assert word in (result.out + result.err)
    assert "Noise multiplier of a sum of private-gradient " in " ".join(content["read_first"])


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--epsilons", "1;2"], "commas"),
        (["--baseline", "opacus"], "none, default, sweep"),
        (["--epsilons", ""], "at least one"),
        (["--unit", "household"], "unit"),
        (["--bits", "10.7"], "whole numbers"),
        (["--dimensions", "64,1e2"], "whole numbers"),
        (["--bits", "nan"], "whole numbers"),
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
        return Outcome(Point("private", config), accuracy, 1.0, 8, None, 1.0, "")

    found = summarise([outcome(s, e, e / 10 + s / 100) for e in (2.0, 1.0) for s in range(3)])
    assert [(summary.epsilon, summary.seeds) for summary in found] == [(2.0, 3), (1.0, 3)]
    assert found[1].accuracy == pytest.approx(0.11)
    assert found[1].high is not None
    # Student's t with two degrees of freedom: 4.303 · 0.01 / √3.
    assert found[1].high - found[1].accuracy == pytest.approx(0.02484, rel=1e-3)


def test_one_seed_has_no_interval_and_no_band(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome(epsilon: float | None, seed: int, accuracy: float = 0.914) -> Outcome:
        kind: Kind = "exact" if epsilon is None else "private"
        config = RunConfig(epsilon=epsilon, seed=seed)
        return Outcome(Point(kind, config), accuracy, 1.0, 8, None, 1.0, "")

    single = [outcome(None, 0), outcome(1.0, 0), outcome(2.0, 0), outcome(2.0, 1, 0.912)]
    monkeypatch.setattr(tuning, "tune", lambda *_: single)
    drawn: list[float] = []
    monkeypatch.setattr(Axes, "fill_between", lambda _, xs, low, high, **__: drawn.extend(low))
    monkeypatch.setattr(Axes, "axhspan", lambda _, low, high, **__: drawn.append(low))
    printed = command("tune", "--out", tmp_path, "--max-rows", "512")
    assert printed.code == 0, printed.err
    saved = json.loads((tmp_path / "tune.json").read_text(encoding="utf-8"))["summaries"]
    assert [summary["low"] is None for summary in saved] == [True, True, False]
    assert [_between(summary) for summary in summarise(single)] == ["–", "–", "90.0% – 92.6%"]
    assert "nan" not in printed.out.lower()
    assert np.isnan(drawn[:2]).all()
    assert drawn[2:] == pytest.approx([90.03], abs=0.01)


def test_a_stopped_sweep_says_how_to_go_on(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "run_point", stop)
    result = command("tune", "--out", tmp_path, "--max-rows", "512", "--backbone", "identity")
    assert result.code == 130
    assert "Stopped; the same command goes on." in result.err


def test_progress_counts_points_and_cells_but_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(cli_console, "errors", lambda: console)
    with cli_console.progress() as advance:
        advance("features", 900, 1797)
        advance("points", 3, 11)
        advance("cells", 4, 13)
    text = screen.getvalue()
    assert "50%" in text
    assert "1797" not in text
    assert " 3/11" in text
    assert " 4/13" in text


def test_methods_and_numbers_of_sums_are_swept_too() -> None:
    sweep = replace(SMALL, methods=("private-gradient", "class-means"), sums=(5, 9))
    config = CONFIG.replaced(ridge=0.5)
    found = points(config, sweep)
    private = [point.config for point in found if point.kind == "private"]
    labels = {tuning_outcomes.label(point) for point in found if point.kind == "private"}
    assert labels == {
        "afl, additive, λ = 0.5",
        "private-gradient, additive",
        "class-means, additive",
        "private-gradient, additive, 5 sums",
        "private-gradient, additive, 9 sums",
    }
    # Settings of one method are none of another's.
    assert {c.method for c in private if c.option("ridge") is not None} == {"afl"}
    with pytest.raises(ConfigError, match="--sums has no effect with afl"):
        points(CONFIG, replace(SMALL, sums=(5,)))
    with pytest.raises(ConfigError, match="--methods nothing; allowed: afl, "):
        points(CONFIG, replace(SMALL, methods=("nothing",)))


@pytest.mark.slow
def test_a_method_that_has_no_exact_form_is_tuned_beside_exact_afl(
    tmp_path: Path, sites: RunConfig
) -> None:
    config = sites.replaced(method="private-gradient", rounds=5)
    outcomes = tuning.tune(config, replace(SMALL, audit_tests=300), tmp_path / "out")
    kinds = [(outcome.point.kind, outcome.point.config.method) for outcome in outcomes]
    assert kinds == [
        ("exact", "afl"),
        ("private", "private-gradient"),
        ("audit", "private-gradient"),
    ]
    assert outcomes[-1].lower_bound is not None
    said = " ".join(tuning_outcomes.statement(config, outcomes))
    assert "private-gradient's sums over additive" in said
    assert "residual norm ≤ 0.4" in said
