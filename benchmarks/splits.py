"""Rows of the data sets that heads are measured on, and how they are split. Features are cached."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import data_folder
from protocols.layout import Integers
from secure_afl.analytic.rows import ClientData
from secure_afl.data import files
from secure_afl.features.backbone import Backbone, parse_backbone
from secure_afl.features.cache import FeatureCache, default_path

SPLITS = 12
CLIENTS = 10


@dataclass(frozen=True, eq=False)
class Split:
    """Clients to learn from, and rows to score on."""

    clients: list[ClientData]
    test: ClientData
    classes: int


@dataclass(frozen=True, eq=False)
class Rows:
    """Features (n, d), labels (n,), and the site of each row."""

    features: NDArray[np.floating]
    labels: Integers
    sites: Integers

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1


def signs() -> tuple[Rows, Rows]:
    """Hand signs of 16 sites, MobileNet at 128 pixels; and of people who are at none."""
    folder = data_folder()
    backbone, cache = _mobilenet(128), FeatureCache(default_path())
    clients = files.load_clients(str(folder / "sign_digits" / "train" / "site_*"))
    test = files.load(str(folder / "sign_digits" / "test"), "test")
    features = [backbone.extract(client, cache) for client in clients]
    sites = np.repeat(np.arange(len(clients)), [len(client) for client in clients])
    train = Rows(np.concatenate(features), np.concatenate([c.labels for c in clients]), sites)
    held = backbone.extract(test, cache)
    return train, Rows(held, test.labels, np.zeros(len(held), dtype=np.int64))


def pneumonia() -> tuple[Rows, Rows, Rows]:
    """PneumoniaMNIST's train, validation and test splits, MobileNet at 96 pixels."""
    path = str(data_folder() / "pneumoniamnist.npz")
    backbone, cache = _mobilenet(96), FeatureCache(default_path())
    loaded = [files.load(path, split) for split in ("train", "val", "test")]
    train, val, test = (
        Rows(backbone.extract(data, cache), data.labels, np.zeros(len(data), dtype=np.int64))
        for data in loaded
    )
    return train, val, test


def digits() -> Rows:
    """scikit-learn's handwritten digits, a random ReLU projection to 512."""
    data = files.embedded_digits()
    features = parse_backbone("projection:512").extract(data)
    return Rows(features, data.labels, np.zeros(len(data), dtype=np.int64))


def joined(first: Rows, second: Rows) -> Rows:
    """Both, the second's sites after the first's."""
    return Rows(
        np.concatenate([first.features, second.features]),
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.sites, second.sites + first.sites.max() + 1]),
    )


def by_site(rows: Rows) -> Iterator[Split]:
    """Four sites of all to score on, the others to learn from; other sites each time."""
    sites = np.unique(rows.sites)
    for seed in range(SPLITS):
        held = np.random.default_rng(seed).choice(sites, 4, replace=False)
        out = np.isin(rows.sites, held)
        clients = [_data(f"site_{s}", rows, rows.sites == s) for s in sites if s not in held]
        yield Split(clients, _data("test", rows, out), rows.classes)


def at_random(rows: Rows) -> Iterator[Split]:
    """A fifth of the rows to score on, of the mix of all; the others at ten clients."""
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(rows.labels))
        cut = len(order) // 5
        yield Split(_dealt(rows, order[cut:]), _data("test", rows, order[:cut]), rows.classes)


def long_tails(rows: Rows, test: Rows | None = None) -> Iterator[Split]:
    """Classes whose rows fall from all to a fiftieth, and a test set of the mix of all."""
    for seed in range(SPLITS):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(rows.labels))
        cut = 0 if test is not None else len(order) // 5
        kept = order[cut:]
        ranks = rng.permutation(rows.classes)
        shares = 50.0 ** (-ranks / (rows.classes - 1))
        least = np.bincount(rows.labels[kept]).min()
        chosen = [
            kept[rows.labels[kept] == c][: max(2, round(least * shares[c]))]
            for c in range(rows.classes)
        ]
        held = _data("test", rows, order[:cut]) if test is None else _whole("test", test)
        yield Split(_dealt(rows, rng.permutation(np.concatenate(chosen))), held, rows.classes)


def fixed(train: Rows, test: Rows) -> Iterator[Split]:
    """One split that the data come with."""
    several = len(np.unique(train.sites)) > 1
    clients = (
        [_data(f"site_{s}", train, train.sites == s) for s in np.unique(train.sites)]
        if several
        else _dealt(train, np.random.default_rng(0).permutation(len(train.labels)))
    )
    yield Split(clients, _whole("test", test), train.classes)


def _mobilenet(size: int) -> Backbone:
    weights = data_folder() / "backbones" / "mobilenetv1_100.safetensors"
    return parse_backbone("timm:mobilenetv1_100,pad_type=same", weights, size)


def _dealt(rows: Rows, places: Integers) -> list[ClientData]:
    return [_data(f"c{i}", rows, places[i::CLIENTS]) for i in range(CLIENTS)]


def _data(name: str, rows: Rows, chosen: np.ndarray) -> ClientData:
    return ClientData(name, rows.features[chosen], rows.labels[chosen])


def _whole(name: str, rows: Rows) -> ClientData:
    return ClientData(name, rows.features, rows.labels)
