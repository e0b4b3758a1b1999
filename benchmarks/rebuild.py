"""What a server sees of people's pictures, and what it can rebuild: one picture to compare.

Every client is one person with one hand sign of each digit. FedSGD on a linear head and AFL run on
record, in plain and under each protocol; whoever may see a sum, and tells nobody else, inverts the
features in it by a decoder trained on other people's images and by optimisation.

SECURE_AFL_DATA=… python -m benchmarks.rebuild
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from attacks.attack import Known, Truth
from attacks.features.decoder import Recipe, train_decoder
from attacks.features.inversion import FeatureDecoder, FeatureInversion, ImageAttack, Rebuilt
from attacks.features.leaks import Leak, find_leaks
from attacks.features.stacks import load_stack
from attacks.features.train import public_images
from attacks.views.run import Record, RunView
from benchmarks.record import POINTS, data_folder, write
from protocols.protocol import Protocol
from protocols.schemes.additive.protocol import Additive
from protocols.schemes.encrypted.protocol import Ckks
from protocols.schemes.pairwise.protocol import Pairwise
from protocols.schemes.plain import Plain
from secure_afl.analytic.rows import ClientData
from secure_afl.data.dataset import Dataset
from secure_afl.data.files import load_clients
from secure_afl.features.backbone import Backbone, parse_backbone
from secure_afl.features.cache import FeatureCache, default_path
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, AnyMethod, FedSGD
from secure_afl.privacy.mechanism import Privacy

# Drawn from all sites; all others' pictures are public.
PEOPLE = 24
# Other public images: people of sites with another camera and light, and nothing of the kind.
ELSEWHERE, UNRELATED = "site_1*", 800
BRIEF = Recipe(side=32, steps=1000)
# What every client declares: nobody has more than one picture of each sign.
MAX_ROWS = 10
IMAGE_SIZE = 128
# Which pictures are shown is drawn, not chosen.
SEED, SHOWN = 0, 4
# Images for the figures of optimisation, which is slow.
OPTIMISED = 12
# Columns with differential privacy: a title, and what the federation is given for it.
PRIVATE: dict[str, dict[str, Any]] = {"ε = 8": {"privacy": Privacy(8.0)}}

Image = NDArray[np.floating[Any]]

_MADE: dict[tuple[str, bytes], Image] = {}


@dataclass(frozen=True)
class Column:
    """One way to learn, and who looks.

    Attributes:
        group, title: as in the picture.
        method, protocol: of the run.
        coalition: who looks, by party name.
        options: further arguments of the federation.
    """

    group: str
    title: str
    method: AnyMethod
    protocol: Protocol
    coalition: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Victim:
    """A true image: whose it is, its class, its feature and itself."""

    client: str
    label: int
    feature: NDArray[np.floating[Any]]
    image: Image


@dataclass(frozen=True)
class Shown:
    """One column of the picture: of each victim what the decoder and optimisation rebuilt."""

    column: Column
    decoded: Sequence[Image | None]
    optimised: Sequence[Image | None]
    figures: dict[str, Any]


def columns(private: Mapping[str, dict[str, Any]]) -> list[Column]:
    """All of them, from left to right; `private` as `PRIVATE`."""
    sgd, afl, additive = FedSGD(rounds=1), AFL(), Additive()
    each, total = "sees every person's upload", f"sees one sum over {PEOPLE} people"
    first = ("collector",)
    exact = [
        Column(each, "FedSGD\nplain\nserver", sgd, Plain(), ("server",)),
        Column(each, "AFL\nplain\nserver", afl, Plain(), ("server",)),
        Column(
            each,
            "AFL, additive\naggregators\nin collusion",
            afl,
            additive,
            ("collector", "aggregator_1"),
        ),
        Column(total, "FedSGD\nadditive\ncollector", sgd, additive, first),
        Column(total, "AFL\nadditive\ncollector", afl, additive, first),
        Column(total, "AFL\npairwise\nserver", afl, Pairwise(), ("server",)),
        Column(total, "AFL\nCKKS\nkey holder", afl, Ckks(), ("key_holder",)),
    ]
    noisy = [
        Column("sees one noisy sum", f"AFL\nadditive\n{title}", afl, additive, first, options)
        for title, options in private.items()
    ]
    nothing = [
        Column("sees no sum", "AFL\nadditive\n2nd aggregator", afl, additive, ("aggregator_1",)),
        Column("sees no sum", "AFL\nCKKS\nserver", afl, Ckks(), ("server",)),
    ]
    return exact + noisy + nothing


def main() -> None:
    """Run all, draw the picture and write the figures down."""
    folder = data_folder()
    signs = folder / "sign_digits" / "train"
    backbone = parse_backbone(
        "timm:mobilenetv1_100,pad_type=same",
        folder / "backbones" / "mobilenetv1_100.safetensors",
        IMAGE_SIZE,
    )
    everybody = [
        person for site in load_clients(str(signs / "site_*")) for person in by_person(site)
    ]
    rng = np.random.default_rng(SEED)
    complete = [person for person in everybody if len(person) == len(person.classes)]
    drawn = sorted(rng.choice(len(complete), PEOPLE, replace=False))
    datasets = [complete[index] for index in drawn]
    attacked = {data.name for data in datasets}
    cache = FeatureCache(default_path())
    clients = [
        ClientData(data.name, backbone.extract(data, cache), data.labels) for data in datasets
    ]
    images = {data.name: load_stack(data, IMAGE_SIZE) for data in datasets}
    truth = Truth(clients={client.name: client for client in clients}, images=images)

    public = joined([person for person in everybody if person.name not in attacked])
    begin = time.perf_counter()
    decoder = train_decoder(backbone, public, Recipe())
    training = time.perf_counter() - begin

    victims = [
        Victim(client.name, int(client.labels[row]), client.features[row], images[client.name][row])
        for client, row in (
            (clients[index], int(rng.integers(len(clients[index]))))
            for index in sorted(rng.choice(len(clients), SHOWN, replace=False))
        )
    ]
    known = Known(
        extra={
            "backbone": backbone,
            "decoder": decoder,
            "public_images": load_stack(public, IMAGE_SIZE),
        }
    )
    views = seen(columns(PRIVATE), clients, datasets[0].classes, backbone)
    shown = [rebuild(column, view, victims, known, truth) for column, view in views]
    draw(victims, shown, sum(len(client) for client in clients))
    write(
        "rebuild",
        {
            "clients": len(clients),
            "rows": sum(len(client) for client in clients),
            "decoder": {
                "public_images": len(public),
                "recipe": msgspec.to_builtins(decoder.card.recipe),
                "digest": decoder.digest.hex(),
                "training_seconds": round(training, 1),
            },
            "columns": [
                {"title": one.column.title.replace("\n", ", "), **one.figures} for one in shown
            ],
            "optimisation": optimisation(views[1][1], known, truth),
            "other_public_images": {
                "people_of_other_sites": other_decoder(
                    backbone,
                    joined(
                        [
                            person
                            for site in load_clients(str(signs / ELSEWHERE))
                            for person in by_person(site)
                            if person.name not in attacked
                        ]
                    ),
                    views[1][1],
                    truth,
                ),
                "chest_x_rays": other_decoder(
                    backbone,
                    public_images([str(folder / "pneumoniamnist.npz")]).take(
                        rng.permutation(4708)[:UNRELATED]
                    ),
                    views[1][1],
                    truth,
                ),
            },
        },
    )


def by_person(site: Dataset) -> list[Dataset]:
    """A site's images cut up by the person whom their file names begin with."""
    assert isinstance(site.examples, tuple), "images lie in folders"
    people = np.array([path.name.split("_")[0] for path in site.examples])
    return [
        replace(site.take(np.flatnonzero(people == name)), name=str(name))
        for name in np.unique(people)
    ]


def joined(people: Sequence[Dataset]) -> Dataset:
    """The images of several people as one data set."""
    files = [path for person in people for path in person.examples]
    labels = np.concatenate([person.labels for person in people])
    return Dataset("other people", tuple(files), labels, people[0].classes)


def seen(
    wanted: Sequence[Column],
    clients: Sequence[ClientData],
    classes: Sequence[str],
    backbone: Backbone,
) -> list[tuple[Column, RunView]]:
    """Every column's view; columns of one run share it."""
    records: dict[str, Record] = {}
    views = []
    for column in wanted:
        run = repr((column.method, column.protocol, sorted(column.options.items())))
        if run not in records:
            federation = Federation(
                column.method, column.protocol, backbone=backbone.digest, **column.options
            )
            result = federation.run(clients, classes=classes, max_rows=MAX_ROWS, record=True)
            records[run] = Record(column.method, column.protocol, result)
        views.append((column, records[run].view(column.coalition)))
    return views


def rebuild(
    column: Column, view: RunView, victims: Sequence[Victim], known: Known, truth: Truth
) -> Shown:
    """What comes of the features that a view gives away."""
    rng = np.random.default_rng(SEED)
    leaks = find_leaks(view, rng)
    chosen = [leak_of(victim, leaks) for victim in victims]
    decoded = images_of(FeatureDecoder(), chosen, view, known)
    optimised = images_of(FeatureInversion(), chosen, view, known)
    attack = FeatureDecoder()
    claim = attack.claim(view, known, rng)
    figures = {
        "coalition": column.coalition,
        "features": len(leaks),
        "single_rows": sum(leak.single for leak in leaks),
        "decoder": measures(attack, claim, truth),
    }
    return Shown(column, decoded, optimised, figures)


def leak_of(victim: Victim, leaks: Sequence[Leak]) -> Leak | None:
    """Of the features of a victim's class that may be its own, the one most like it."""
    own = [leak for leak in leaks if victim.client in leak.clients and leak.label == victim.label]
    return max(own, key=lambda leak: float(leak.feature @ victim.feature), default=None)


def images_of(
    attack: ImageAttack, chosen: Sequence[Leak | None], view: RunView, known: Known
) -> list[Image | None]:
    """An image of each feature that there is."""
    there = [leak for leak in chosen if leak is not None and key_of(attack, leak) not in _MADE]
    if there:
        for leak, image in zip(there, attack.rebuild(there, view, known).images, strict=True):
            _MADE[key_of(attack, leak)] = image
    return [None if leak is None else _MADE[key_of(attack, leak)] for leak in chosen]


def key_of(attack: ImageAttack, leak: Leak) -> tuple[str, bytes]:
    """What an image depends on: protocols that give the same sum give the same images."""
    return attack.name, leak.feature.tobytes()


def optimisation(view: RunView, known: Known, truth: Truth) -> dict[str, Any]:
    """How well optimisation does on more images than are shown, by what it begins with."""
    attack = FeatureInversion(most=OPTIMISED)
    begin = time.perf_counter()
    claim = attack.claim(view, known, np.random.default_rng(SEED))
    taken = time.perf_counter() - begin
    without = Known(extra={"backbone": known.extra["backbone"]})
    grey = attack.claim(view, without, np.random.default_rng(SEED))
    return {
        "images": OPTIMISED,
        "seconds_an_image": round(taken / OPTIMISED, 1),
        "settings": msgspec.to_builtins(attack.settings),
        "from_the_public_mean": measures(attack, claim, truth),
        "from_grey": measures(attack, grey, truth),
    }


def other_decoder(
    backbone: Backbone, public: Dataset, view: RunView, truth: Truth
) -> dict[str, Any]:
    """The same attack with a decoder that learned from other images."""
    known = Known(extra={"decoder": train_decoder(backbone, public, BRIEF)})
    attack = FeatureDecoder()
    claim = attack.claim(view, known, np.random.default_rng(SEED))
    return {
        "public_images": len(public),
        "recipe": msgspec.to_builtins(BRIEF),
        "measures": measures(attack, claim, truth),
    }


def measures(attack: ImageAttack, claim: Rebuilt | None, truth: Truth) -> list[dict[str, Any]]:
    """What the attack's judge says, ready for JSON, which knows no infinity."""
    return [
        {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in msgspec.structs.asdict(measure).items()
        }
        for measure in attack.judge(claim, truth)
    ]


def draw(victims: Sequence[Victim], shown: Sequence[Shown], pictures: int) -> None:
    """Two lines for every victim: what the decoder made, and what optimisation made.

    Args:
        victims: the lines.
        shown: the columns.
        pictures: of all clients together.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    plt.rcParams.update({"font.size": 9})
    cell, gap, top, bottom = 1.15, 0.12, 1.7, 1.45
    true_left, label_right = 1.05, 3.15
    groups = list(dict.fromkeys(one.column.group for one in shown))
    # Columns stand together by what is seen.
    starts, x = [], label_right + gap
    for index, one in enumerate(shown):
        if index and one.column.group != shown[index - 1].column.group:
            x += 2 * gap
        starts.append(x)
        x += cell + gap / 2
    width, height = x + 0.15, top + len(victims) * (2 * cell + 2 * gap) + bottom
    figure = plt.figure(figsize=(width, height))

    def place(column: float, row: float, high: float) -> Any:
        box = (column / width, 1 - (row + high) / height, cell / width, high / height)
        axes = figure.add_axes(box)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        return axes

    def put(column: float, row: float, text: str, **how: Any) -> None:
        figure.text(column / width, 1 - row / height, text, **how)

    def show(column: float, row: float, image: Image) -> None:
        place(column, row, cell).imshow(np.clip(image, 0, 1), interpolation="bicubic")

    put(
        0.15,
        0.3,
        "What whoever looks at a federation can rebuild of people's pictures",
        fontsize=15,
        fontweight="bold",
        va="center",
    )
    colours = dict(zip(groups, ("#d55e00", "#0072b2", "#009e73", "#7a4d9e"), strict=False))
    for group in groups:
        own = [start for start, one in zip(starts, shown, strict=True) if one.column.group == group]
        colour, right = colours[group], own[-1] + cell
        middle = (own[0] + right) / 2
        put(middle, 0.72, group, ha="center", va="center", color=colour, fontweight="bold")
        line = Line2D(
            [own[0] / width, right / width],
            [1 - 0.87 / height] * 2,
            color=colour,
            linewidth=3,
            solid_capstyle="butt",
        )
        figure.add_artist(line)
    put(true_left + cell / 2, 1.27, "true\npicture", ha="center", va="center")
    for start, one in zip(starts, shown, strict=True):
        put(start + cell / 2, 1.27, one.column.title, ha="center", va="center")
    for number, victim in enumerate(victims):
        row = top + number * (2 * cell + 2 * gap)
        put(0.15, row + cell, victim.client.replace("person", "person\n"), va="center")
        show(true_left, row + cell / 2, victim.image)
        for half, label in enumerate(("decoder", "optimisation")):
            put(label_right, row + (half + 0.5) * cell, label, ha="right", va="center", color="0.4")
        for start, one in zip(starts, shown, strict=True):
            decoded, optimised = one.decoded[number], one.optimised[number]
            if decoded is None or optimised is None:
                empty = place(start, row, 2 * cell)
                empty.set_facecolor("0.94")
                empty.text(0.5, 0.5, "nothing", ha="center", va="center", color="0.5")
            else:
                show(start, row, decoded)
                show(start, row + cell, optimised)
    foot = height - bottom + 0.1
    put(label_right, foot, "found again,\n95 % interval", ha="right", va="top")
    for start, one in zip(starts, shown, strict=True):
        put(start + cell / 2, foot, found_again(one.figures), ha="center", va="top")
    put(
        0.15,
        height - 0.8,
        "Every client is one person with one picture of each of ten hand signs. People, and the "
        "pictures shown, are drawn at random. The decoder has learned from other people's pictures;"
        "\noptimisation begins with their mean. Found again: how often a decoded picture is more "
        f"like the true one than like any other of the {pictures} in the federation; who knows the "
        f"sign\nand guesses is right 1 time in {PEOPLE}. Of a sum come blends of all people's "
        "pictures of one sign: they show the sign rather than the person.",
        va="top",
        color="0.35",
        fontsize=8.5,
    )
    # Not kept with the figures: it shows pictures of the data set.
    POINTS.mkdir(exist_ok=True)
    figure.savefig(POINTS / "rebuild.png", dpi=130, facecolor="white")
    plt.close(figure)


def found_again(figures: dict[str, Any]) -> str:
    """Retrieval at rank 1, in two lines."""
    first = figures["decoder"][0]
    if not first["trials"]:
        return "–"
    found = round(first["value"] * first["trials"])
    return f"{found} of {first['trials']}\n{100 * first['low']:.0f}–{100 * first['high']:.0f} %"


if __name__ == "__main__":
    main()
