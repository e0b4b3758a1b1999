"""Runs over tables: from CSV files and a dictionary to a model that predicts CSV files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from secure_afl.errors import ConfigError, DataError
from secure_afl.runs.config import RunConfig
from secure_afl.runs.inference import evaluate, load_model, predict
from secure_afl.runs.run import run
from secure_afl.runs.settings import make_config
from secure_afl.runs.tables import RowRule, row_rule

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
    assert card["quantiser"]["mode"] == "clip"
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
