"""Rows of one patient stay together, wherever rows are cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protocols import Plain
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.analytic.split import keep_out
from secure_afl.data.dataset import Dataset, split_holdout
from secure_afl.data.files import load
from secure_afl.data.partition import parse
from secure_afl.errors import DataError
from secure_afl.evaluation.models import evaluate_model
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL
from secure_afl.methods.evaluated import evaluated
from secure_afl.methods.personal.personal import halves
from secure_afl.runs.config import RunConfig
from secure_afl.sites.rows import SiteRows
from tests.kit.samples import make_client, make_clients

QUANTISER = Quantiser(12)


def of_patients(rows: int, people: int, name: str = "x") -> ClientData:
    whose = [f"p{place % people}" for place in range(rows)]
    return replace(make_client(name, rows), patients=whose)


def together(*parts: ClientData) -> bool:
    """Whether no patient is in two parts."""
    sets = [set(part.patients or ()) for part in parts]
    return len(set.union(*sets)) == sum(map(len, sets))


def test_patients_are_kept_out_whole() -> None:
    data = of_patients(300, 60)
    out = keep_out(data, 0.3, QUANTISER, b"run")
    assert together(data.take(np.flatnonzero(out)), data.take(np.flatnonzero(~out)))
    assert 0.1 < out.mean() < 0.5
    # Whoever has no name goes by its row, and pooled rows as they do at their clients.
    nameless = ClientData("y", data.features, data.labels, [""] * 300)
    assert np.array_equal(
        keep_out(nameless, 0.3, QUANTISER, b"run"),
        keep_out(replace(data, patients=None), 0.3, QUANTISER, b"run"),
    )
    both = pooled([data, make_client("z", 40)])
    assert np.array_equal(keep_out(both, 0.3, QUANTISER, b"run")[:300], out)
    assert not np.array_equal(keep_out(data, 0.3, QUANTISER, b"another"), out)


def test_an_evaluation_of_patients_is_exact() -> None:
    clients = [of_patients(90, 30, "a"), of_patients(60, 20, "b"), make_client("c", 70)]
    result = Federation(evaluated(AFL(), 0.4), Plain()).run(clients)
    assert result.report.exact
    chosen, intervals = [said for said in result.report.warnings if "patients" in said]
    assert "takes rows for independent" in chosen
    assert "are too narrow" in intervals
    nobody = Federation(AFL(), Plain()).run(make_clients((30, 40))).report.warnings
    assert not any("patients" in warning for warning in nobody)
    site = result.report.sites[0].figures
    assert site.patients is not None
    assert site.patients < site.examples


def test_holdouts_and_halves_are_of_whole_patients() -> None:
    data = of_patients(120, 40)
    whole = Dataset(
        "x", data.features, data.labels, ("0", "1", "2"), patients=tuple(data.people or ())
    )
    train, held = split_holdout(whole, 0.25, np.random.default_rng(0))
    assert held is not None
    assert not set(train.patients or ()) & set(held.patients or ())
    assert len(set(held.patients or ())) == 10
    parts = parse("iid:3").split(whole, np.random.default_rng(0))
    assert sum(len(part.patients or ()) for part in parts) == 120
    assert together(*halves(data))
    one = replace(make_client("x", 8), patients=["p"] * 8)
    assert [len(half) for half in halves(one)] == [4, 4]


def test_intervals_draw_patients() -> None:
    clients = make_clients((60, 80))
    model = Federation(AFL(), Plain()).run(clients).model
    rows = make_client("test", 40)
    places = np.repeat(np.arange(40), 5)
    several = rows.take(places)
    alone = evaluate_model(model, several)
    known = evaluate_model(model, replace(several, patients=[str(p) for p in places]))
    assert (alone.patients, known.patients) == (None, 40)

    def width(figures: object) -> float:
        accuracy = figures.accuracy  # type: ignore[attr-defined]
        return float(accuracy.high - accuracy.low)

    assert width(known) > 1.5 * width(alone)


@pytest.mark.parametrize("words", [True, False])
def test_files_say_whose_rows_are(words: bool, tmp_path: Path) -> None:
    data = of_patients(30, 10)
    whose = np.array(data.patients) if words else np.arange(30)[:, None] % 10
    file = tmp_path / "site.npz"
    arrays = {"features": data.features, "labels": data.labels, "patients": whose}
    np.savez(file, **arrays)  # type: ignore[arg-type]
    found = load(str(file), "train")
    assert found.patients is not None
    assert len(set(found.patients)) == 10
    # A site keeps them beside its features, and reads them from there.
    config = RunConfig(backbone="identity")
    for _ in range(2):
        site = SiteRows("x", file, config, AFL(), tmp_path / "store")
        assert site.load(6, ("0", "1", "2")).patients == found.patients
    np.savez(file, **(arrays | {"patients": whose[:-1]}))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="29 patients"):
        load(str(file), "train")
    np.savez(file, **(arrays | {"patients": np.ones((30, 2))}))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="are no names"):
        load(str(file), "train")


def test_patients_are_one_a_row() -> None:
    with pytest.raises(DataError, match="2 patients for 3 rows"):
        ClientData("x", np.ones((3, 2)), np.zeros(3, dtype=np.int64), ["a", "b"])
