"""Rows and labels as people have them in Python."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from protocols import Plain
from secure_afl.analytic.rows import ClientData, number_labels
from secure_afl.data.arrays import as_features, as_labels
from secure_afl.errors import DataError
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL
from tests.kit.samples import make_clients

ROWS = np.array([[1.5, 2.0], [3.0, -4.0], [0.0, 1.0]])
LABELS = np.array([0, 2, 1], dtype=np.int64)


class Frame:
    """As a data frame hands out its numbers."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def to_numpy(self) -> Any:
        return self._values


class Tensor:
    """As a tensor in a graph, on a device."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def detach(self) -> "Tensor":
        return self

    def cpu(self) -> Any:
        return self._values


def harmless() -> list[tuple[Any, Any]]:
    return [
        (ROWS.tolist(), LABELS.tolist()),
        (tuple(map(tuple, ROWS)), tuple(LABELS)),
        (Frame(ROWS), Frame(LABELS)),
        (Tensor(ROWS), Tensor(LABELS)),
        (ROWS[::-1][::-1], LABELS[:, None]),
        (ROWS.astype(np.float16), LABELS.astype(np.uint8)),
        (np.asfortranarray(ROWS), LABELS.astype(np.int32)),
        (ROWS, LABELS.astype(np.float32)),
    ]


@pytest.mark.parametrize(("rows", "labels"), harmless())
def test_what_means_the_same_is_converted(rows: Any, labels: Any) -> None:
    data = ClientData("a", rows, labels)
    assert type(data.features) is np.ndarray
    assert data.features.dtype.kind == "f"
    np.testing.assert_array_equal(data.features, ROWS)
    assert data.labels.dtype == np.int64
    np.testing.assert_array_equal(data.labels, LABELS)


def test_tensors_of_torch_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    rows = torch.tensor(ROWS, dtype=torch.float32, requires_grad=True)
    data = ClientData("a", rows, torch.tensor(LABELS))
    np.testing.assert_array_equal(data.features, ROWS.astype(np.float32))
    assert data.labels.dtype == np.int64


def test_arrays_are_not_copied(tmp_path: Any) -> None:
    mapped = np.memmap(tmp_path / "rows", dtype=np.float32, mode="w+", shape=(3, 2))
    for rows in (ROWS, mapped):
        assert ClientData("a", rows, LABELS).features is rows
    assert ClientData("a", ROWS, LABELS).labels is LABELS


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int16, np.int32, np.int64, np.uint64])
def test_whole_numbers_are_rows_exactly(kind: Any) -> None:
    rows = np.array([[1, 0], [np.iinfo(kind).max if kind is not np.bool_ else 1, 1]], dtype=kind)
    converted = as_features(rows, "a")
    assert converted.dtype == (np.float32 if rows.itemsize <= 2 else np.float64)
    if rows.itemsize <= 4:
        assert np.array_equal(converted.astype(object), rows.astype(object))


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (np.ma.masked_equal(ROWS, 0), LABELS, "features are a masked array.*filled"),
        (ROWS, np.ma.masked_equal(LABELS, 2), "labels are a masked array"),
        (Frame(np.ma.masked_equal(ROWS, 0)), LABELS, "masked"),
        ([[1.0, 2.0], [3.0]], [0, 1], "give all rows one length"),
        (np.array([["a", "b"]]), [0], "features are <U1"),
        (np.array([[1, None]]), [0], "features are object"),
        (ROWS + 1j, LABELS, "features are complex128"),
        (ROWS, [0.5, 1, 2], "label 0.5 at row 0"),
        (ROWS, [float("nan"), 1, 2], "label nan at row 0"),
        (ROWS, np.eye(3), "one-hot"),
        (ROWS, [None, "a", "b"], "dtype object"),
    ],
)
def test_what_would_be_lost_is_refused(rows: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"client 'a': .*{message}"):
        ClientData("a", rows, labels)


def test_words_are_labels_of_a_federation() -> None:
    numbered = list(make_clients((20, 25, 30)))
    names = ("rheum", "well", "zoster")
    worded = [replace(client, labels=np.array(names)[client.labels]) for client in numbered]
    expected = Federation(AFL(), Plain()).run(numbered, classes=names, test=numbered[0])
    for classes in (None, names):
        found = Federation(AFL(), Plain()).run(worded, classes=classes, test=worded[0])
        assert found.model.classes == names
        assert np.array_equal(found.model.weights, expected.model.weights)
        assert found.report.accuracy == expected.report.accuracy
    other = Federation(AFL(), Plain()).run(worded, classes=names[::-1])
    assert np.array_equal(other.statistics.cross, expected.statistics.cross[:, ::-1])
    assert np.array_equal(other.statistics.gram, expected.statistics.gram)


def words(name: str, *labels: str) -> ClientData:
    given: Any = labels
    return ClientData(name, ROWS, given)


def test_words_that_are_no_class_are_refused() -> None:
    worded = words("a", "x", "y", "x")
    with pytest.raises(DataError, match="client 'b': label 'z' is none of the classes x, y"):
        number_labels([worded], [words("b", "x", "z", "x")], None)
    with pytest.raises(DataError, match=r"'a' has words for labels .* client 'b' numbers"):
        number_labels([worded, ClientData("b", ROWS, LABELS)], [], None)


def test_words_are_composed() -> None:
    assert as_labels(["Mu\u0308de", b"x".decode()], "a").tolist() == ["M\u00fcde", "x"]
    assert as_labels(np.array([b"x", b"y"]), "a").tolist() == ["x", "y"]
    assert as_labels(np.array(["x", "y"], dtype=object), "a").tolist() == ["x", "y"]


def test_who_has_no_name_is_a_patient_of_its_own() -> None:
    names = ["p1", None, np.nan, pd.NA, pd.NaT, "", "nan", 7]
    data = ClientData("a", np.eye(8), np.zeros(8, dtype=np.int64), names)
    assert data.patients == ("p1", "", "", "", "", "", "nan", "7")
    series = pd.Series(["p1", "p2", "p1"]).where([True, False, True])
    again = ClientData("a", np.eye(3), np.zeros(3, dtype=np.int64), series)
    assert again.patients == ("p1", "", "p1")
