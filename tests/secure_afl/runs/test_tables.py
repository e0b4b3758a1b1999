"""Runs over tables: from CSV files and a dictionary to a model that predicts CSV files."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from secure_afl.cli.tables import show_report
from secure_afl.data.files import load
from secure_afl.data.tables.design import read_design
from secure_afl.errors import ConfigError, DataError, LedgerRefusal
from secure_afl.features.table import table_rows
from secure_afl.federation.server import FederationServer
from secure_afl.privacy.ledger import Ledger
from secure_afl.runs.config import RunConfig
from secure_afl.runs.inference import evaluate, load_model, predict
from secure_afl.runs.run import resume, run
from secure_afl.runs.settings import make_config
from secure_afl.runs.tables import RowRule, row_rule
from tests.kit.commands import Command

NAMES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
DICTIONARY = 'target = "kind"\n' + "".join(
    f'[columns.{name}]\ntype = "number"\nrange = [0, 10]\nunit = "cm"\n' for name in NAMES
)
KINDS = ("setosa", "versicolor", "virginica")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Iris, cut into three hospitals and a test set."""
    iris = load_iris()
    frame = pd.DataFrame(iris.data, columns=list(NAMES))
    frame["kind"] = [KINDS[label] for label in iris.target]
    order = np.random.default_rng(0).permutation(len(frame))
    for site in range(3):
        frame.iloc[order[:120][site::3]].to_csv(tmp_path / f"site_{site}.csv", index=False)
    frame.iloc[order[120:]].to_csv(tmp_path / "test.csv", index=False)
    categories = f'[columns.kind]\ntype = "category"\ncategories = {json.dumps(KINDS)}\n'
    (tmp_path / "dictionary.toml").write_text(DICTIONARY + categories)
    return tmp_path


def config(folder: Path, **settings: Any) -> RunConfig:
    return make_config(
        {
            "clients": str(folder / "site_*.csv"),
            "test": str(folder / "test.csv"),
            "dictionary": str(folder / "dictionary.toml"),
        }
        | settings
    )


def test_lda_of_the_sum_predicts_as_lda_of_the_rows_in_one_place(folder: Path) -> None:
    result = run(config(folder, out=str(folder / "out"), shrinkage=1e-9))
    assert result.report.exact
    train = pd.concat(pd.read_csv(folder / f"site_{site}.csv") for site in range(3))
    test = pd.read_csv(folder / "test.csv")
    theirs = LinearDiscriminantAnalysis().fit(train[list(NAMES)].values, train.kind)
    saved = load_model(folder / "out")
    ours = [p.predicted for p in predict(saved, str(folder / "test.csv"), "test", None)]
    assert (theirs.predict(test[list(NAMES)].values) == ours).all()
    figures = evaluate(saved, str(folder / "test.csv"), "test", None)
    assert figures.accuracy == result.report.accuracy.federated
    assert result.public.task.columns is not None
    assert result.public.task.columns.names == NAMES
    card = json.loads((folder / "out" / "model.json").read_text())
    assert card["quantiser"]["mode"] == "columns"
    assert card["backbone"]["spec"] == "table"


def test_columns_of_other_scales_are_standardised_from_the_sum(folder: Path) -> None:
    result = run(config(folder, head="ridge", ridge=0.01))
    text = (folder / "dictionary.toml").read_text()
    wide = text.replace(
        '[columns.petal_width]\ntype = "number"\nrange = [0, 10]',
        '[columns.petal_width]\ntype = "number"\nrange = [-40, 50]',
    )
    assert wide != text
    (folder / "dictionary.toml").write_text(wide)
    again = run(config(folder, head="ridge", ridge=0.01))
    assert again.report.accuracy.federated == result.report.accuracy.federated


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "identity"}, "--backbone has no effect with --dictionary"),
        ({"public": "x.npz"}, "--public has no effect with --dictionary"),
        ({"dimension": 3}, "--dimension has no effect with --dictionary"),
        ({"row_mode": "clip:2"}, "--row-mode has no effect with --dictionary"),
        ({"target": "sepal_length"}, "is a number, which --method afl cannot predict"),
        ({"target": "nobody"}, "target 'nobody' is no column"),
        ({"formula": "petal_length + nobody"}, "column 'nobody' is not in the dictionary"),
        ({"dictionary": "nowhere.toml"}, "nowhere.toml"),
        ({"method": "fedavg", "architecture": "convnet"}, "learns from pixels"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    folder: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        run(config(folder, **settings))


def test_settings_of_tables_need_a_dictionary(folder: Path) -> None:
    for name in ("target", "formula"):
        with pytest.raises(ConfigError, match=f"--{name} has no effect without --dictionary"):
            make_config({"clients": str(folder / "site_*.csv"), name: "x"})
    with pytest.raises(ConfigError, match=r"--dictionary .* goes with --clients"):
        run(make_config({"dictionary": str(folder / "dictionary.toml")}))


def test_a_cell_that_is_no_value_ends_a_run_before_any_sum(folder: Path) -> None:
    path = folder / "site_1.csv"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace(".", ",", 1)
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"site_1\.csv, line 4, has 6 cells and the header 5"):
        run(config(folder))


@pytest.mark.parametrize(
    ("text", "rule"),
    [(None, RowRule()), ("normalise", RowRule()), ("clip:2.5", RowRule("clip", 2.5))],
)
def test_rows_become_short_by_a_rule(text: str | None, rule: RowRule) -> None:
    assert row_rule(RunConfig(row_mode=text)) == rule


@pytest.mark.parametrize("text", ["clip", "clip:", "clip:x", "clip:0", "clip:-1", "clip:inf", "l2"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="allowed: normalise, or clip:NORM"):
        make_config({"row_mode": text})


def test_clipped_rows_keep_their_lengths(tmp_path: Path) -> None:
    # One feature, and a threshold on it: rows of norm 1 know nothing.
    rng = np.random.default_rng(1)
    for name in ("a", "b", "c", "test"):
        x = rng.uniform(0, 10, (200, 1)).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", x=x, y=(x[:, 0] > 4).astype(np.int64))
    settings = {
        "clients": str(tmp_path / "[abc].npz"),
        "test": str(tmp_path / "test.npz"),
        "head": "ridge",
        "intercept": True,
    }
    kept = run(make_config(settings | {"row_mode": "clip:10"})).report.accuracy.federated
    forgotten = run(make_config(settings)).report.accuracy.federated
    assert kept is not None
    assert forgotten is not None
    assert forgotten < 0.7 < 0.9 < kept


def test_a_model_is_scored_by_patients_of_a_column(folder: Path, command: Command) -> None:
    for path in (*folder.glob("site_*.csv"), folder / "test.csv"):
        frame = pd.read_csv(path)
        # A column that has a name of two words, as no array of an .npz.
        frame["case no."] = [f"p{place // 3}" for place in range(len(frame))]
        frame.to_csv(path, index=False)
    out, test = folder / "out", folder / "test.csv"
    result = run(config(folder, out=str(out), id="case no."))
    (figures, *_) = result.report.results
    assert figures.patients == 10
    told = command.well("evaluate", out, test, "--id", "case no.", "--json", "-").out
    again = json.loads(told)["results"][0]
    assert again["patients"] == 10
    assert again["accuracy"] == msgspec.to_builtins(figures.accuracy)
    said = command.badly("evaluate", out, test, "--id", "nonsense")
    assert "has no column 'nonsense'" in said
    said = command.badly("evaluate", out, test, "--id", "petal_width")
    assert "'petal_width' is to say whose rows are, and is a feature" in said
    (folder / "map.toml").write_text('[classes]\n"x" = "setosa"\n')
    said = command.badly("evaluate", out, test, "--mapping", folder / "map.toml")
    assert "--mapping with a model of tables" in said
    said = command.badly("predict", out, test, "--checkpoint", folder / "x.pth")
    assert "with a model of tables, which has none" in said


def test_frames_in_python_are_the_files(folder: Path) -> None:
    from secure_afl import AFL, Additive, frame_rows, read_design, table_federation

    design = read_design(folder / "dictionary.toml")
    clients = [
        frame_rows(path.stem, pd.read_csv(path), design)
        for path in sorted(folder.glob("site_*.csv"))
    ]
    ours = table_federation(design, AFL(), Additive()).run(clients, classes=design.classes)
    theirs = run(config(folder))
    assert np.array_equal(ours.model.weights, theirs.model.weights)
    assert ours.public.task.backbone == theirs.public.task.backbone
    with pytest.raises(DataError, match="client 'x' has no column 'sepal_length'"):
        frame_rows("x", pd.DataFrame({"kind": ["setosa"]}), design)


# Ranges that sites find together


def without_ranges(folder: Path, *names: str) -> dict[str, Any]:
    """Take columns' ranges out of the dictionary; returns the settings that find them."""
    text = (folder / "dictionary.toml").read_text()
    for name in names:
        text = text.replace(
            f'{name}]\ntype = "number"\nrange = [0, 10]', f'{name}]\ntype = "number"'
        )
    (folder / "dictionary.toml").write_text(text)
    return {"scale": "federated", "out": str(folder / "out")}


def declared(folder: Path, **ranges: str) -> None:
    """Write ranges into the dictionary."""
    text = (folder / "dictionary.toml").read_text()
    for name, range in ranges.items():
        head = f'[columns.{name}]\ntype = "number"\n'
        assert head in text
        text = text.replace(head, f"{head}{range}\n")
    (folder / "dictionary.toml").write_text(text)


def test_ranges_are_found_and_the_model_predicts_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = folder / "ledger.json"
    settings = without_ranges(folder, *NAMES[:2]) | {"ledger": str(ledger), "new_ledger": True}
    found = run(config(folder, **settings))
    assert found.report.exact
    for place in range(3):
        entries = Ledger.open(ledger).entries(str((folder / f"site_{place}.csv").resolve()))
        assert len([entry for entry in entries if entry.counts]) == 2
    assert found.report.rounds == 2
    ranges = {one.name: one.text.split(": ")[1] for one in found.report.ranges}
    assert ranges == dict.fromkeys(NAMES[:2], "range = [-8.0, 8.0]") | {
        "sepal_width": "range = [-4.0, 4.0]"
    }
    assert any("how many sites have each exponent" in text for text in found.report.warnings)
    show_report(found.report, None)
    assert "sepal_width: range = [-4.0, 4.0]" in capsys.readouterr().out
    saved = load_model(folder / "out")
    test = str(folder / "test.csv")
    figures = evaluate(saved, test, "test", None)
    assert figures.accuracy == found.report.accuracy.federated
    declared(folder, **ranges)
    again = run(config(folder))
    assert np.array_equal(again.model.weights, found.model.weights)
    assert again.report.accuracy == found.report.accuracy
    written = read_design(folder / "dictionary.toml")
    assert saved.design is not None
    assert saved.design.digest == written.digest
    assert saved.design.columns == found.public.task.columns == written.columns
    predicted = [p.predicted for p in predict(saved, test, "test", None)]
    rows = table_rows(load(Path(test), "test", design=written), written)
    assert predicted == [KINDS[label] for label in again.model.predict(rows.features)]


@pytest.mark.slow
@pytest.mark.parametrize("sums", [1, 2])
def test_a_run_that_is_stopped_goes_on_from_the_ranges(
    folder: Path, sums: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    made = config(folder, drop=1, min_cohort=3, **without_ranges(folder, *NAMES))
    (folder / "site_3.csv").write_text((folder / "site_1.csv").read_text())
    whole = run(made.replaced(out=str(folder / "whole")))
    absorb, left = FederationServer.absorb, [sums]

    def stopped(self: FederationServer, *given: Any, **more: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        absorb(self, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(FederationServer, "absorb", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(made)
    result = resume(folder / "out")
    assert result.report.exact
    assert len(result.rounds) == 2
    assert result.report.clients.dropped == 1
    assert result.report.ranges == whole.report.ranges
    assert np.array_equal(result.model.weights, whole.model.weights)


def test_a_missing_value_that_another_stands_for_is_cut_with_the_rest(folder: Path) -> None:
    settings = without_ranges(folder, "petal_width")
    path = folder / "dictionary.toml"
    head = '[columns.petal_width]\ntype = "number"\n'
    path.write_text(path.read_text().replace(head, head + "missing = 99\n"))
    frame = pd.read_csv(folder / "site_0.csv")
    frame.loc[0, "petal_width"] = None
    frame.to_csv(folder / "site_0.csv", index=False)
    result = run(config(folder, **settings))
    assert result.report.ranges[0].high == 4.0
    assert result.report.ranges[0].cut == 1
    saved = load_model(folder / "out")
    assert saved.design is not None
    assert saved.design.dictionary.columns["petal_width"].missing == 4.0  # type: ignore[union-attr]


def test_the_range_of_a_target_is_found_like_any_other(folder: Path) -> None:
    settings = {"target": "petal_width", "method": "regression", "formula": "petal_length"}
    open = without_ranges(folder, "petal_width")
    found = run(config(folder, **open, **settings))
    assert [one.text for one in found.report.ranges] == ["petal_width: range = [-4.0, 4.0]"]
    declared(folder, petal_width="range = [-4.0, 4.0]")
    assert run(config(folder, **settings)).report.fits == found.report.fits
    saved = load_model(folder / "out")
    figures = evaluate(saved, str(folder / "test.csv"), "test", None)
    assert figures.numeric is not None
    assert figures.numeric.rmse.value < 0.3
    with pytest.raises(ConfigError, match="--prior uniform with a model that predicts a number"):
        evaluate(saved, str(folder / "test.csv"), "test", None, prior="uniform")


@pytest.mark.parametrize(
    ("open", "settings", "words"),
    [
        ((), {}, "--scale federated has no effect: .* has a range for every column"),
        (("petal_width",), {"formula": "petal_length"}, "has a range for every column"),
        (NAMES, {"epsilon": 1.0}, "--scale federated with --epsilon"),
        (
            (),
            dict.fromkeys(("clients", "test", "dictionary")),
            "--scale federated finds ranges of a table's columns",
        ),
        (NAMES, {"scale": None}, r"has no range in the dictionary.*--scale federated"),
        (NAMES, {"clients": "site_[01].csv"}, "2 clients, minimum cohort"),
        (NAMES, {"min_cohort": 2}, "minimum cohort 2; with --scale federated allowed: ≥ 3"),
        (
            ("petal_width",),
            {"formula": "petal_length + petal_width + petal_length:petal_width"},
            "'petal_width' in an interaction, a power or a function",
        ),
        (("petal_width",), {"formula": "I(petal_width**2)"}, "in an interaction, a power or a"),
    ],
)
def test_ranges_that_cannot_be_found_are_refused(
    folder: Path, open: tuple[str, ...], settings: dict[str, Any], words: str
) -> None:
    if settings.get("clients"):
        settings = {"clients": str(folder / settings["clients"])}
    found = without_ranges(folder, *open)
    with pytest.raises(ConfigError, match=words):
        run(config(folder, **(found | settings)))


def test_rows_that_are_equal_by_chance_are_not_the_same_data(folder: Path) -> None:
    """Two flowers of two sites are alike in two columns: the budget is not charged twice."""
    alike = config(
        folder,
        formula="petal_length + petal_width",
        epsilon=2.0,
        max_rows=64,
        budget=2.5,
        ledger=str(folder / "ledger.json"),
        new_ledger=True,
    )
    tables = [pd.read_csv(folder / f"site_{site}.csv") for site in range(3)]
    pairs = [set(zip(t.petal_length, t.petal_width, strict=True)) for t in tables]
    assert pairs[0] & pairs[1]
    for site, table in enumerate(tables):
        # Less than a tenth of the rows, and another order.
        fresh = table.drop_duplicates(["petal_length", "petal_width"])
        others = set().union(*pairs[:site])
        told = [pair in others for pair in zip(fresh.petal_length, fresh.petal_width, strict=True)]
        kept = fresh[~np.array(told)]
        few = fresh[np.array(told)].head(1)
        pd.concat([kept, few]).to_csv(folder / f"site_{site}.csv", index=False)
    assert run(alike).report.privacy is not None
    # The same rows under another name are the same data all the same.
    for site in range(3):
        (folder / f"site_{site}.csv").rename(folder / f"copy_{site}.csv")
    again = alike.replaced(new_ledger=False, clients=str(folder / "copy_*.csv"))
    with pytest.raises(LedgerRefusal, match="were in lineage"):
        run(again)


def private(folder: Path, formula: str, files: str = "site_*.csv", **more: Any) -> RunConfig:
    """A run of ε = 2 whose ledger allows one of them."""
    return config(
        folder,
        clients=str(folder / files),
        formula=formula,
        epsilon=2.0,
        max_rows=64,
        ledger=str(folder / "ledger.json"),
        **more,
    )


def test_another_formula_and_another_name_are_the_same_data_to_a_ledger(folder: Path) -> None:
    run(private(folder, "petal_length", new_ledger=True, budget=2.5))
    for site in range(3):
        path = folder / f"site_{site}.csv"
        # The next export: one flower has left, and numbers are written otherwise.
        frame = pd.read_csv(path).iloc[1:]
        frame.to_csv(folder / f"next_{site}.csv", index=False, float_format="%.2f")
    with pytest.raises(LedgerRefusal, match="were in lineage"):
        run(private(folder, "sepal_width", "next_*.csv"))
    text = (folder / "dictionary.toml").read_text()
    (folder / "dictionary.toml").write_text(text.replace("[0, 10]", "[0, 12]"))
    with pytest.raises(LedgerRefusal, match="were in lineage"):
        run(private(folder, "sepal_width", "next_*.csv"))


def test_logistic_is_held_against_no_ridge(folder: Path) -> None:
    report = run(config(folder, method="logistic", formula="sepal_width", penalty=0.1)).report
    assert report.accuracy.federated is not None
    assert report.accuracy.centralised_float is None
    assert report.accuracy.local_mean is None


def test_a_model_at_work_says_what_it_cuts_and_leaves_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(config(folder, out=str(folder / "out")))
    frame = pd.read_csv(folder / "test.csv")
    frame.loc[:4, "petal_width"] = 100.0
    frame.to_csv(folder / "wide.csv", index=False)
    saved = load_model(folder / "out")
    list(predict(saved, str(folder / "wide.csv"), "test", None))
    assert "5 values of 'petal_width' are out of range and cut to it" in caplog.text
    caplog.clear()
    evaluate(saved, str(folder / "wide.csv"), "test", None)
    assert "5 values of 'petal_width'" in caplog.text
