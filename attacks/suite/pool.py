"""Whose rows go into an attacked sum, and what the attacker is given beside its view."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attacks.attack import Known, Truth
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData, digest_rows
from secure_afl.data.dataset import Dataset
from secure_afl.errors import ConfigError
from secure_afl.features.backbone import Backbone
from secure_afl.methods.method import AnyMethod
from secure_afl.progress import Progress
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import choose_backbone, extract

# Side of the images of reports, where the settings name no size.
DEFAULT_IMAGE_SIDE = 64


@dataclass(frozen=True, eq=False, repr=False)
class Pool:
    """All rows of all clients, before any are chosen.

    Attributes:
        datasets: each client's examples.
        rows: their features, in the same order.
        classes: names.
        backbone: what made the features.
        image_side: to which images are resized for judging, in pixels.
    """

    datasets: Sequence[Dataset]
    rows: Sequence[ClientData]
    classes: tuple[str, ...]
    backbone: Backbone
    image_side: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, features and labels, hex: other data is another experiment."""
        return digest_rows(self.rows).hex()

    def __repr__(self) -> str:
        return f"<Pool of {len(self.rows)} clients>"


@dataclass(frozen=True, eq=False, repr=False)
class Draw:
    """One choice of rows: clients of the sum, and attacks' knowledge and truth."""

    clients: list[ClientData]
    known: Known
    truth: Truth


def load_pool(
    config: RunConfig,
    method: AnyMethod,
    datasets: Sequence[Dataset],
    progress: Progress | None = None,
) -> Pool:
    """Load the features that the settings' method learns from, of the clients' examples."""
    backbone = choose_backbone(config, method, datasets[0])
    rows = extract(backbone, datasets, progress)
    side = config.image_size or DEFAULT_IMAGE_SIDE
    return Pool(datasets, rows, datasets[0].classes, backbone, side)


def available(datasets: Sequence[Dataset]) -> int:
    """Return the most rows that a sum may have.

    They are half of each client's; the others are for comparison.
    """
    return sum(_half(len(dataset)) for dataset in datasets)


def rows_in_sum(datasets: Sequence[Dataset], rows: int, flag: str) -> int:
    """Return how many rows `rows` means, 0 being all that are available.

    Raises:
        ConfigError: fewer rows than clients, or more than available.
    """
    least, most = len(datasets), available(datasets)
    wanted = rows or most
    if not least <= wanted <= most:
        raise ConfigError(
            f"{flag} {rows}: allowed for this data: {least} (one for each client) to {most} (half "
            "of all rows; the others are for comparison), or all"
        )
    return wanted


def draw(pool: Pool, rows: int, seed: int, repeat: int, most: int) -> Draw:
    """Choose the rows of a sum at random, the same for the same arguments.

    Every client gives a row, then another as long as it has one in its half, until there are
    enough. Of what is left, every second row is a candidate that is not in the sum, and the others
    are public: of the same clients, which is the best that an attacker could hope for.

    Args:
        rows: in the sum, from one for each client to `available`.
        seed, repeat: of the choice.
        most: candidates in the sum, and out of it, at most.

    Raises:
        ConfigError: another number of rows.
    """
    rows_in_sum(pool.datasets, rows, "rows")
    rng = np.random.default_rng([seed, repeat, rows])
    orders = [rng.permutation(len(client)) for client in pool.rows]
    takes = _round_robin([_half(len(client)) for client in pool.rows], rows)
    inside = [order[:take] for order, take in zip(orders, takes, strict=True)]
    outside = [order[take::2] for order, take in zip(orders, takes, strict=True)]
    public = [order[take + 1 :: 2] for order, take in zip(orders, takes, strict=True)]
    clients = [
        ClientData(client.name, client.features[chosen], client.labels[chosen])
        for client, chosen in zip(pool.rows, inside, strict=True)
    ]
    names = [client.name for client in clients]

    members = _some(rng, names, inside, most)
    others = _some(rng, names, outside, most)
    picked = [*((name, row, True) for name, row in members)]
    picked += [(name, row, False) for name, row in others]
    picked = [picked[i] for i in rng.permutation(len(picked))]
    by_name = {client.name: client for client in pool.rows}
    known = Known(
        candidates=_features(by_name, [(name, row) for name, row, _ in picked]),
        candidate_labels=np.array(
            [by_name[name].labels[row] for name, row, _ in picked], dtype=np.int64
        ),
        public=_features(by_name, _pairs(names, public)),
        rows=_all_but_one(clients),
        extra=Lazy(_extras(pool, public)),
    )
    truth = Truth(
        clients={client.name: client for client in clients},
        members=np.array([member for _, _, member in picked], dtype=np.bool_),
        owners=tuple(name if member else "" for name, _, member in picked),
        origins=tuple(name for name, _, _ in picked),
        images=Lazy(_true_images(pool, inside)),
    )
    return Draw(clients, known, truth)


def sequel(chosen: Draw, kind: str) -> list[ClientData]:
    """Return the clients of a second session.

    They are less the last row of the largest client, or the first.
    """
    if kind == "client":
        return chosen.clients[1:]
    largest = max(range(len(chosen.clients)), key=lambda i: len(chosen.clients[i]))
    client = chosen.clients[largest]
    if len(client) == 1:
        raise ConfigError("every client has one row in the sum; a second sum without it is empty")
    shorter = replace(client, features=client.features[:-1], labels=client.labels[:-1])
    return [*chosen.clients[:largest], shorter, *chosen.clients[largest + 1 :]]


def with_extra(known: Known, name: str, value: object) -> Known:
    """Add one thing to what is known, without making what is not yet made."""
    makers = {already: partial(known.extra.__getitem__, already) for already in known.extra}
    return replace(known, extra=Lazy({**makers, name: lambda: value}))


class Lazy(Mapping[str, Any]):
    """Values that are made when they are first asked for: images would fill memory."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        self._makers = makers
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __repr__(self) -> str:
        return f"<Lazy {', '.join(self._makers)}>"


def images_of(dataset: Dataset, indices: NDArray[np.int64], side: int) -> NDArray[np.floating[Any]]:
    """Return images as float32 (n, h, w, channels) in 0..1.

    They have at most `side` × `side` pixels.
    """
    pixels = []
    for index in indices:
        image = dataset.image(int(index))
        if max(image.shape[:2]) > side or isinstance(dataset.examples, tuple):
            image = np.asarray(
                Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
            )
        pixels.append(image if image.ndim == 3 else image[:, :, None])
    stacked: NDArray[np.floating[Any]] = np.stack(pixels).astype(np.float32) / 255
    return stacked


def _half(rows: int) -> int:
    return max(1, rows // 2)


def _round_robin(available: Sequence[int], wanted: int) -> list[int]:
    takes = [0] * len(available)
    while wanted:
        for i, most in enumerate(available):
            if wanted and takes[i] < most:
                takes[i] += 1
                wanted -= 1
    return takes


def _pairs(names: Sequence[str], chosen: Sequence[NDArray[np.int64]]) -> list[tuple[str, int]]:
    return [(name, int(row)) for name, rows in zip(names, chosen, strict=True) for row in rows]


def _some(
    rng: np.random.Generator,
    names: Sequence[str],
    chosen: Sequence[NDArray[np.int64]],
    most: int,
) -> list[tuple[str, int]]:
    pairs = _pairs(names, chosen)
    if len(pairs) <= most:
        return pairs
    return [pairs[i] for i in np.sort(rng.choice(len(pairs), size=most, replace=False))]


def _features(by_name: Mapping[str, ClientData], pairs: Sequence[tuple[str, int]]) -> Floats:
    width = next(iter(by_name.values())).features.shape[1]
    features = np.empty((len(pairs), width))
    for i, (name, row) in enumerate(pairs):
        features[i] = by_name[name].features[row]
    return features


def _all_but_one(clients: Sequence[ClientData]) -> ClientData:
    """Return what an informed adversary knows: every row but the first client's first."""
    features = np.concatenate([client.features for client in clients])
    labels = np.concatenate([client.labels for client in clients])
    return ClientData("known", np.asarray(features[1:], dtype=np.float64), labels[1:])


def _extras(pool: Pool, public: Sequence[NDArray[np.int64]]) -> dict[str, Callable[[], Any]]:
    labels = [client.labels[rows] for client, rows in zip(pool.rows, public, strict=True)]
    extras: dict[str, Callable[[], Any]] = {
        "backbone": lambda: pool.backbone,
        "public_labels": lambda: np.concatenate(labels),
    }
    if pool.datasets[0].holds_images:
        shape = pool.datasets[0].image(0).shape
        extras["image_shape"] = lambda: (*shape, 1) if len(shape) == 2 else shape
        extras["public_images"] = lambda: np.concatenate(
            [
                images_of(dataset, rows, pool.image_side)
                for dataset, rows in zip(pool.datasets, public, strict=True)
                if len(rows)
            ]
        )
    return extras


def _true_images(pool: Pool, inside: Sequence[NDArray[np.int64]]) -> dict[str, Callable[[], Any]]:
    if not pool.datasets[0].holds_images:
        return {}

    def maker(dataset: Dataset, rows: NDArray[np.int64]) -> Callable[[], Any]:
        return lambda: images_of(dataset, rows, pool.image_side)

    return {
        dataset.name: maker(dataset, rows)
        for dataset, rows in zip(pool.datasets, inside, strict=True)
    }
