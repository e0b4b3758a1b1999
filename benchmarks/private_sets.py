"""The data sets that promises are measured on, cut into ten clients and test rows.

`KEPT_APART` were in no choice of the method's constants. Their columns are brought to ±1 by the
extremes of each, which stand for ranges that everybody knows.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import splits
from benchmarks.splits import CLIENTS, Rows
from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData

# Read and passed through the backbone once.
_pneumonia = functools.cache(splits.pneumonia)
_signs = functools.cache(splits.signs)
_digits = functools.cache(splits.digits)

KEPT_APART = ("breast cancer", "segment", "phishing")


@dataclass(frozen=True, eq=False)
class Case:
    """Clients of one seed, the bound that each declares, and test rows by name."""

    name: str
    clients: list[ClientData]
    max_rows: int
    classes: tuple[str, ...]
    tests: dict[str, ClientData]


def pneumonia(seed: int) -> Case:
    """PneumoniaMNIST, MobileNet at 96 pixels; its test split, and its validation split."""
    train, val, test = _pneumonia()
    tests = {"test split": test, "training mix": val}
    return _case("PneumoniaMNIST", train, tests, 512, seed)


def signs(seed: int) -> Case:
    """Hand signs, MobileNet at 128 pixels; people at no site, and a sixth of the clients' rows."""
    train, test = _signs()
    kept, held = _cut(train, 6)
    return _case("hand signs", kept, {"test split": test, "training mix": held}, 208, seed)


def digits(seed: int) -> Case:
    """scikit-learn's digits, a random projection to 512; a fifth to score on."""
    kept, held = _cut(_digits(), 5)
    return _case("digits", kept, {"training mix": held}, 256, seed)


def breast_cancer(seed: int) -> Case:
    """scikit-learn's breast cancer, 569 rows of 30 columns."""
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    return _table("breast cancer", features, labels, seed)


def segment(seed: int) -> Case:
    """River's image segments, 2,310 rows of 18 columns in seven classes."""
    from river.datasets import ImageSegments

    return _table("segment", *_streamed(ImageSegments()), seed)


def phishing(seed: int) -> Case:
    """River's phishing, 1,250 rows of 9 columns."""
    from river.datasets import Phishing

    return _table("phishing", *_streamed(Phishing()), seed)


CASES: dict[str, Callable[[int], Case]] = {
    "PneumoniaMNIST": pneumonia,
    "digits": digits,
    "hand signs": signs,
    "breast cancer": breast_cancer,
    "segment": segment,
    "phishing": phishing,
}


def _streamed(stream: Iterable[Any]) -> tuple[Floats, Integers]:
    rows, labels = zip(*stream, strict=True)
    names = sorted(rows[0])
    features = np.array([[float(row[name]) for name in names] for row in rows])
    return features, np.unique(np.array(labels), return_inverse=True)[1]


def _table(name: str, features: Floats, labels: Integers, seed: int) -> Case:
    low, high = features.min(axis=0), features.max(axis=0)
    scaled = 2 * (features - low) / np.where(high > low, high - low, 1) - 1
    rows = Rows(scaled, labels.astype(np.int64), np.zeros(len(labels), dtype=np.int64))
    kept, held = _cut(rows, 5)
    bound = 1 << (len(kept.labels) // CLIENTS).bit_length()
    return _case(name, kept, {"training mix": held}, bound, seed)


def _cut(rows: Rows, parts: int) -> tuple[Rows, Rows]:
    """All rows but one of so many parts, and that part; the same for every seed."""
    order = np.random.default_rng(0).permutation(len(rows.labels))
    size = len(order) // parts
    kept, held = (
        Rows(rows.features[at], rows.labels[at], rows.sites[at])
        for at in (order[size:], order[:size])
    )
    return kept, held


def _case(name: str, rows: Rows, tests: dict[str, Rows], max_rows: int, seed: int) -> Case:
    """Deal rows to ten clients; the seed deals."""
    order = np.random.default_rng(seed).permutation(len(rows.labels))
    clients = [
        ClientData(f"c{i}", rows.features[order[i::CLIENTS]], rows.labels[order[i::CLIENTS]])
        for i in range(CLIENTS)
    ]
    held = {key: ClientData(key, test.features, test.labels) for key, test in tests.items()}
    return Case(name, clients, max_rows, tuple(str(c) for c in range(rows.classes)), held)
