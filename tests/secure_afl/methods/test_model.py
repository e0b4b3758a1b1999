import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from protocols.identity import Identity
from protocols.roster import Line, Roster
from secure_afl.errors import DataError
from secure_afl.methods import artefact
from secure_afl.methods.artefact import FORMAT_VERSION
from secure_afl.methods.model import LinearModel


@pytest.fixture
def model() -> LinearModel:
    rng = np.random.default_rng(0)
    return LinearModel(np.asfortranarray(rng.standard_normal((5, 3))), ("cat", "Hündin", "newt"))


@pytest.fixture
def path(model: LinearModel, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    model.save(path, {"backbone": "identity", "note": "größer"})
    return path


def edit_card(path: Path, **changes: Any) -> None:
    card_path = path.with_suffix(".json")
    card = json.loads(card_path.read_text(encoding="utf-8")) | changes
    card = {key: value for key, value in card.items() if value is not ...}
    card_path.write_text(json.dumps(card), encoding="utf-8")


def bound_anew(path: Path) -> None:
    """Bind the files again, as somebody does who changed both."""
    card, tensors = artefact.read(path)
    artefact.write(path, artefact.bind(card, tensors))


def test_a_saved_model_comes_back_bit_for_bit(model: LinearModel, path: Path) -> None:
    loaded, card = LinearModel.load(path)
    assert np.array_equal(loaded.weights, model.weights)
    assert loaded.weights.dtype == np.float64
    assert loaded.classes == model.classes
    rows = np.random.default_rng(1).standard_normal((50, 5))
    assert np.array_equal(loaded.predict(rows), model.predict(rows))
    assert card["format_version"] == FORMAT_VERSION
    assert card["classes"] == ["cat", "Hündin", "newt"]
    assert (card["backbone"], card["note"]) == ("identity", "größer")


def test_a_name_with_dots_keeps_its_card(model: LinearModel, tmp_path: Path) -> None:
    for name in ("site.1", "site.2"):
        model.save(tmp_path / f"{name}.safetensors", {"client": name})
    assert LinearModel.load(tmp_path / "site.1.safetensors")[1]["client"] == "site.1"
    assert LinearModel.load(tmp_path / "site.2.safetensors")[1]["client"] == "site.2"


def test_predictions_are_the_highest_scores(model: LinearModel) -> None:
    rows = np.random.default_rng(1).standard_normal((50, 5))
    for same in (rows, np.asfortranarray(rows)):
        assert np.array_equal(model.scores(same), rows @ model.weights)
    predicted = model.predict(rows)
    assert predicted.dtype == np.int64
    assert np.array_equal(predicted, (rows @ model.weights).argmax(axis=1))
    assert set(predicted) == {0, 1, 2}
    assert model.accuracy(rows, predicted) == 1.0
    assert model.accuracy(rows, (predicted + 1) % 3) == 0.0
    assert np.array_equal(model.predict(1000 * rows), predicted)
    assert model.predict(rows.astype(np.float32)).shape == (50,)


@pytest.mark.parametrize("shape", [(2, 4), (2, 6), (5,), (2, 5, 1)])
def test_rows_of_another_width_are_refused(model: LinearModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"this model wants \[n, 5\].*backbone that its card names"):
        model.predict(np.zeros(shape))


def test_a_missing_model_or_card_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.safetensors is not a saved model"):
        LinearModel.load(tmp_path / "nothing.safetensors")
    with pytest.raises(DataError, match="is not a saved model"):
        LinearModel.load(tmp_path)
    path.with_suffix(".json").unlink()
    with pytest.raises(DataError, match="not a saved model with its card"):
        LinearModel.load(path)


@pytest.mark.parametrize("keep", [0, 3, 20, -1])
def test_a_truncated_model_is_refused(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="is not a saved model"):
        LinearModel.load(path)


@pytest.mark.parametrize("card", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b'{"classes": []}'])
def test_a_damaged_card_is_refused(path: Path, card: bytes) -> None:
    path.with_suffix(".json").write_bytes(card)
    with pytest.raises(DataError, match="is not a saved model with its card"):
        LinearModel.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"format_version": FORMAT_VERSION + 1},
            rf"format {FORMAT_VERSION + 1};.*{FORMAT_VERSION}",
        ),
        ({"format_version": "1"}, "format"),
        ({"format_version": ...}, "not a saved model"),
        ({"format_version": 1}, "has format 1; .*make the model anew"),
        ({"digest": ...}, "not a saved model"),
        ({"digest": "12"}, "not a saved model"),
        ({"classes": ...}, "not a saved model"),
        ({"classes": 3}, "not a saved model"),
        ({"classes": ["cat", "dog"]}, r"weights \[5, 3\] for 2 classes"),
        ({"classes": "cat"}, "classes|not a saved model"),
        ({"classes": [1, 2, 3]}, "classes|not a saved model"),
    ],
)
def test_a_foreign_card_is_refused(path: Path, changes: dict[str, Any], message: str) -> None:
    edit_card(path, **changes)
    if changes.get("classes") == ["cat", "dog"]:
        bound_anew(path)
    with pytest.raises(DataError, match=message):
        LinearModel.load(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {"weights": np.zeros(3)},
        {"weights": np.zeros((5, 4))},
        {"weights": np.full((5, 3), np.nan)},
        {"weights": np.full((5, 3), np.inf)},
        {"biases": np.zeros((5, 3))},
        {},
    ],
)
def test_foreign_weights_are_refused(path: Path, tensors: dict[str, Any]) -> None:
    save_file(tensors, path)
    with pytest.raises(DataError, match=r"model\.safetensors and its card .*digest differs"):
        LinearModel.load(path)
    bound_anew(path)
    with pytest.raises(DataError, match=r"model\.safetensors (has|is not)"):
        LinearModel.load(path)


def test_what_was_changed_by_itself_is_refused(model: LinearModel, path: Path) -> None:
    card = path.with_suffix(".json").read_text(encoding="utf-8")
    for changes in ({"classes": ["newt", "Hündin", "cat"]}, {"epsilon": 0.01}, {"note": ...}):
        edit_card(path, **changes)
        with pytest.raises(DataError, match="digest differs"):
            LinearModel.load(path)
        path.with_suffix(".json").write_text(card, encoding="utf-8")
    # The order of a card's lines and its white space mean nothing.
    edit_card(path)
    LinearModel.load(path)
    for tensors in (
        {"weights": -model.weights},
        {"weights": model.weights.astype(np.float32)},
        {"weights": np.ascontiguousarray(model.weights), "offset": np.zeros(3)},
    ):
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
        with pytest.raises(DataError, match="digest differs"):
            LinearModel.load(path)


def test_a_signature_shows_who_made_a_model(path: Path) -> None:
    identity, other = Identity.generate("university"), Identity.generate("clinic")
    line = Line("university", "collector", identity.verify_key)
    roster = Roster(1, (line,))

    def signer() -> Line:
        card, tensors = artefact.read(path)
        return artefact.check_signer(path, artefact.check(path, card, tensors), roster)

    with pytest.raises(DataError, match="is not signed, and --keys asks"):
        signer()
    artefact.sign(path, identity, "collector")
    assert signer() == line
    LinearModel.load(path)
    # Somebody else's signature, under either name.
    artefact.sign(path, other, "collector")
    with pytest.raises(DataError, match=r"signed by clinic as collector, .*not on the roster"):
        signer()
    artefact.sign(path, Identity("university", other._signing_key), "collector")
    with pytest.raises(DataError, match=r"signed by university .*not on the roster"):
        signer()
    artefact.sign(path, identity, "aggregator")
    with pytest.raises(DataError, match="as aggregator"):
        signer()


def test_a_signature_is_of_one_model(path: Path, tmp_path: Path) -> None:
    artefact.sign(path, Identity.generate("university"), "collector")
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    edit_card(path, note="other")
    bound_anew(path)
    signed_by_nobody, _ = artefact.read(path)
    edit_card(path, signature=card["signature"], digest=signed_by_nobody["digest"])
    with pytest.raises(DataError, match=r"signature of .* is not 'university''s over this model"):
        LinearModel.load(path)
    edit_card(path, signature={"name": "university"})
    with pytest.raises(DataError, match="not a saved model"):
        LinearModel.load(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_rows_that_are_not_finite_are_refused(model: LinearModel, value: float) -> None:
    rows = np.ones((4, 5))
    rows[2, 3] = value
    for ask in (model.scores, model.predict):
        with pytest.raises(DataError, match="row 2 are NaN, infinite or too large"):
            ask(rows)


def test_others_can_read_the_weights(model: LinearModel, path: Path) -> None:
    assert np.array_equal(load_file(path)["weights"], model.weights)


def test_a_card_cannot_pass_for_another_version(model: LinearModel, tmp_path: Path) -> None:
    # What the caller adds must not replace what `load` relies on.
    path = tmp_path / "model.safetensors"
    model.save(path, {"format_version": 99, "classes": ["x"]})
    loaded, _ = LinearModel.load(path)
    assert loaded.classes == model.classes


@pytest.fixture
def shifted(model: LinearModel) -> LinearModel:
    return LinearModel(model.weights, model.classes, np.array([0.3, -0.2, 0.05]))


def test_an_offset_is_subtracted_from_the_scores_of_unit_rows(
    model: LinearModel, shifted: LinearModel
) -> None:
    rows = np.random.default_rng(1).standard_normal((50, 5)) * 9
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert shifted.offset is not None
    expected = units @ model.weights - shifted.offset
    np.testing.assert_allclose(shifted.scores(rows), expected, rtol=1e-12, atol=1e-14)
    assert np.array_equal(shifted.predict(1024 * rows), shifted.predict(rows))
    assert not np.array_equal(shifted.predict(rows), model.predict(rows))
    np.testing.assert_array_equal(shifted.scores(np.zeros((1, 5))), -shifted.offset[None])
    with pytest.raises(DataError, match=r"this model wants \[n, 5\]"):
        shifted.predict(np.zeros((2, 4)))
    rows[3, 1] = np.nan
    with pytest.raises(DataError, match="row 3"):
        shifted.predict(rows)


def test_an_offset_is_saved_and_loaded(shifted: LinearModel, path: Path, tmp_path: Path) -> None:
    assert LinearModel.load(path)[0].offset is None
    assert set(load_file(path)) == {"weights"}, "models without one are written as ever"
    with_offset = tmp_path / "shifted.safetensors"
    shifted.save(with_offset, {"backbone": "identity"})
    loaded, _ = LinearModel.load(with_offset)
    assert shifted.offset is not None
    assert loaded.offset is not None
    assert loaded.offset.dtype == np.float64
    assert np.array_equal(loaded.offset, shifted.offset)
    assert np.array_equal(load_file(with_offset)["offset"], shifted.offset)
    rows = np.random.default_rng(1).standard_normal((50, 5))
    assert np.array_equal(loaded.scores(rows), shifted.scores(rows))


@pytest.mark.parametrize("offset", [np.zeros(2), np.zeros((3, 1)), np.full(3, np.nan), np.zeros(0)])
def test_a_foreign_offset_is_refused(path: Path, offset: Any) -> None:
    save_file({"weights": np.zeros((5, 3)), "offset": offset}, path)
    bound_anew(path)
    with pytest.raises(DataError, match=r"model\.safetensors has an offset.*3 finite numbers"):
        LinearModel.load(path)
