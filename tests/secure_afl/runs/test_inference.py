"""A saved model, scored and asked from the command line."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.ridge import ridge
from secure_afl.analytic.statistics import Statistics
from secure_afl.data import dataset as data
from secure_afl.data import files as data_files
from secure_afl.features.reduction import public_reduction
from secure_afl.methods import artefact
from secure_afl.methods.model import LinearModel
from secure_afl.runs.inference import load_model
from tests.kit.commands import Command


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of flat images, dark and bright; two clients; one model."""
    folder = tmp_path_factory.mktemp("inference")
    rng = np.random.default_rng(0)
    for part, count in (("sites/a", 12), ("sites/b", 12), ("test", 6)):
        for name, low in (("dark", 0), ("bright", 128)):
            target = folder / part / name
            target.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(low, low + 127, (8, 8, 3)).astype(np.uint8)
                pixels[:, : 4 if low else 8, 2] = low
                Image.fromarray(pixels).save(target / f"{index}.png")
    return folder


@pytest.fixture
def model(trained: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "cache"))
    clients = str(trained / "sites" / "*")
    out = tmp_path / "out"
    flags = ["--backbone", "projection:32", "--seed", "7", "--out", str(out)]
    test = ["--test", str(trained / "test")]
    command.well("run", "--clients", clients, *test, *flags)
    return out / "model.safetensors"


def test_evaluate_gives_the_accuracy_of_the_run(
    command: Command, model: Path, trained: Path
) -> None:
    report = json.loads((model.parent / "report.json").read_text())
    result = command.well("evaluate", str(model), str(trained / "test"), "--json", "-")
    found = json.loads(result.out)
    assert found["examples"] == 12
    assert found["accuracy"] == report["accuracy"]["federated"]
    assert sum(found["per_class"].values()) / 2 == pytest.approx(found["accuracy"])


def test_predict_names_every_example_its_class_and_score(
    command: Command, model: Path, trained: Path
) -> None:
    result = command.well("predict", str(model), str(trained / "test"))
    rows = list(csv.DictReader(io.StringIO(result.out)))
    files = sorted(str(path) for path in (trained / "test").rglob("*.png"))
    assert [row["example"] for row in rows] == files
    right = [Path(row["example"]).parent.name == row["class"] for row in rows]
    found = json.loads(
        command.well("evaluate", str(model), str(trained / "test"), "--json", "-").out
    )
    assert sum(right) / len(right) == found["accuracy"]
    one = command.well("predict", str(model), files[0])
    assert list(csv.DictReader(io.StringIO(one.out))) == rows[:1]


def test_predict_takes_arrays_without_labels(command: Command, model: Path, tmp_path: Path) -> None:
    images = np.full((3, 8, 8, 3), 200, dtype=np.uint8)
    np.savez(tmp_path / "new.npz", images=images)
    result = command.well("predict", str(model), str(tmp_path / "new.npz"))
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert [row["example"] for row in rows] == ["0", "1", "2"]
    assert {row["class"] for row in rows} == {"bright"}


def test_what_cannot_be_used_is_named(
    command: Command, model: Path, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    card = model.with_suffix(".json")
    for arguments, says in (
        (("evaluate", str(tmp_path / "none.safetensors"), str(trained / "test")), "none.safe"),
        (("evaluate", str(model), str(tmp_path / "nowhere")), "does not exist"),
        (("predict", str(model), str(tmp_path / "empty")), "holds no images"),
        (("predict", str(model), str(card)), "model.json"),
    ):
        assert says in command.badly(*arguments)
    settings, tensors = artefact.read(model)
    settings["backbone"]["seed"] = 8
    artefact.write(model, settings)
    assert "not as they were saved" in command.badly("evaluate", model, trained / "test")
    artefact.write(model, artefact.bind(settings, tensors))
    said = command.badly("evaluate", str(model), str(trained / "test"))
    assert "backbone 'projection:32' has digest" in said
    settings["backbone"]["spec"] = "timm:resnet18"
    artefact.write(model, artefact.bind(settings, tensors))
    for name in ("evaluate", "predict"):
        weights = ("--checkpoint", tmp_path / "nowhere.pth")
        said = command.badly(name, str(model), str(trained / "test"), *weights)
        assert "nowhere.pth is not a file" in said
    del settings["backbone"]
    artefact.write(model, artefact.bind(settings, tensors))
    assert "which backbone" in command.badly("evaluate", str(model), str(trained / "test"))


def test_a_model_of_reduced_rows_is_asked_with_images_as_they_are(
    command: Command, model: Path, trained: Path, tmp_path: Path
) -> None:
    saved = load_model(model)
    train, test = data.align(
        [data_files.load(trained / "sites/a"), data_files.load(trained / "test")],
        saved.model.classes,
    )
    rows, asked = (saved.backbone.extract(dataset) for dataset in (train, test))
    reduction, quantiser = public_reduction(rows, 3), Quantiser(12)
    statistics = Statistics.of(reduction.apply(rows), train.labels, 2, quantiser)
    reduced = LinearModel(ridge(*statistics.floats(quantiser), 0.01), saved.model.classes)

    weights, offset = reduction.fold(reduced.weights)
    path = tmp_path / "reduced.safetensors"
    card = json.loads(model.with_suffix(".json").read_text())
    LinearModel(weights, reduced.classes, offset).save(path, card)
    expected = reduced.predict(reduction.apply(asked))
    assert set(expected) == {0, 1}
    assert not np.array_equal(LinearModel(weights, reduced.classes).predict(asked), expected)

    predicted = command.well("predict", str(path), str(trained / "test")).out
    found = {row["example"]: row["class"] for row in csv.DictReader(io.StringIO(predicted))}
    assert isinstance(test.examples, tuple)
    assert [found[str(file)] for file in test.examples] == [reduced.classes[i] for i in expected]
    report = command.well("evaluate", str(path), str(trained / "test"), "--json", "-").out
    assert json.loads(report)["accuracy"] == (expected == test.labels).mean()


def test_models_are_signed_where_there_are_keys(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "cache"))
    keys, out = tmp_path / "keys", tmp_path / "out"
    command.well("keygen", "a", "b", "--out", keys)
    command.well("keygen", "university", "--role", "collector", "--out", keys)
    command.well("keygen", "clinic", "--role", "aggregator", "--out", keys)
    settings = ("--clients", trained / "sites" / "*", "--backbone", "projection:32")
    command.well("run", *settings, "--keys", keys, "--method", "fedhip", "--out", out)
    command.well("evaluate", out, trained / "test", "--keys", keys)
    signers = {
        path: artefact.read(path)[0]["signature"]
        for path in (out / "model.safetensors", out / "personal" / "a.safetensors")
    }
    assert [(s["name"], s["role"]) for s in signers.values()] == [
        ("university", "collector"),
        ("a", "client"),
    ]
    # Changed together with its digest, it is still not what the receiver signed.
    card, tensors = artefact.read(out / "model.safetensors")
    artefact.write(
        out / "model.safetensors",
        artefact.bind(card | {"classes": card["classes"][::-1]}, tensors)
        | {"signature": card["signature"]},
    )
    said = command.badly("evaluate", out, trained / "test")
    assert "signature of" in said
    artefact.write(out / "model.safetensors", artefact.bind(card, tensors))
    command.well("evaluate", out, trained / "test")
    for name in ("evaluate", "predict"):
        assert "is not signed" in command.badly(name, out, trained / "test", "--keys", keys)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_predictions_have_probabilities_of_all_classes(
    command: Command, model: Path, trained: Path
) -> None:
    rows = rows_of(command.well("predict", str(model), str(trained / "test")).out)
    for row in rows:
        shares = {name: float(row[f"p:{name}"]) for name in ("bright", "dark")}
        assert sum(shares.values()) == pytest.approx(1, abs=2e-4)
        assert row["class"] == max(shares, key=lambda name: shares[name])
        assert float(row["score"]) == pytest.approx(max(shares.values()), abs=1e-4)
        assert {"s:bright", "s:dark"} <= row.keys()


def test_a_prior_can_be_exchanged_after_training(
    command: Command, model: Path, trained: Path, tmp_path: Path
) -> None:
    test = str(trained / "test")
    file = tmp_path / "prior.json"
    file.write_text('{"bright": 0, "dark": 1}')
    rows = rows_of(command.well("predict", str(model), test, "--prior", str(file)).out)
    assert {row["class"] for row in rows} == {"dark"}
    outcome = command.well("evaluate", str(model), test, "--prior", str(file), "--json", "-")
    found = json.loads(outcome.out)
    assert [result["prior"] for result in found["results"]] == ["given", "observed", "uniform"]
    assert found["accuracy"] == 0.5
    assert found["results"][0]["classes"][1]["sensitivity"]["value"] == 1.0
    plain = json.loads(command.well("evaluate", str(model), test, "--json", "-").out)
    assert [result["prior"] for result in plain["results"]] == ["observed", "uniform"]
    file.write_text('{"bright": 1}')
    assert "no share for class 'dark'" in command.badly(
        "predict", str(model), test, "--prior", str(file)
    )


def test_a_model_without_a_prior_says_so(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "ridge"
    command.well(
        "run", "--clients", str(trained / "sites" / "*"), "--backbone", "projection:32",
        "--ridge", "0.1", "--out", str(out),
    )  # fmt: skip
    path = str(out / "model.safetensors")
    test = str(trained / "test")
    for name in ("predict", "evaluate"):
        said = command.badly(name, path, test, "--prior", "uniform")
        assert "no prior to exchange" in said
    rows = rows_of(command.well("predict", path, test).out)
    assert not any(key.startswith("p:") for key in rows[0])
    (result,) = json.loads(command.well("evaluate", path, test, "--json", "-").out)["results"]
    assert (result["prior"], result["calibration"]) == ("", None)
    assert not (out / "receiver.json").exists()


def test_scores_do_not_grow_with_a_row_s_length() -> None:
    rng = np.random.default_rng(0)
    plain = LinearModel(rng.standard_normal((4, 2)), ("a", "b"))
    rows = rng.standard_normal((20, 4))
    np.testing.assert_allclose(plain.comparable(7 * rows), plain.comparable(rows), rtol=1e-12)


def test_a_threshold_is_chosen_on_one_half_and_judged_on_the_other(
    command: Command, model: Path, trained: Path
) -> None:
    test = str(trained / "test")
    flags = ("--sensitive-to", "dark", "--sensitivity", "0.9")
    found = json.loads(command.well("evaluate", str(model), test, *flags, "--json", "-").out)
    assert found["examples"] == 6
    assert "found 90% of its rows among 6 others" in found["results"][0]["rule"]
    assert "no class 'grey'" in command.badly(
        "evaluate", str(model), test, "--sensitive-to", "grey"
    )
    assert "no effect without --sensitive-to" in command.badly(
        "evaluate", str(model), test, "--sensitivity", "0.9"
    )


def test_evaluate_writes_a_page(
    command: Command, model: Path, trained: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    command.well("evaluate", str(model), str(trained / "test"), "--html", str(page))
    text = page.read_text(encoding="utf-8")
    assert "sensitivity" in text
    assert "Reliability" in text
    assert str(tmp_path) not in text
