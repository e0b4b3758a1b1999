"""What class means, FedHPro's statistic and adapters' updates give away, at 1, 3 and 10 clients.

    python -m benchmarks.sums_leakage

Sums of one client are those that the server of `plain` reads; sums of three and ten are blind, and
the collector of `additive` has them. Rows are scikit-learn's digits: a third are members, a third
are not, and a third are public. One class has one row, at one client.
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from attacks.attack import Attack, Known, Truth
from attacks.gradients.analytic import dense_input, labels_of_head
from attacks.gradients.inversion import Found, GradientClaim, GradientLabels
from attacks.gradients.matching import MatchSettings, Pixels, match, total_variation
from attacks.gradients.modules import ModuleVictim, relative_error
from attacks.measures.images import correlations
from attacks.statistics.class_sums import ClassMembership, ClassRows
from attacks.views.knowledge import finest, subset_sums
from attacks.views.run import Record, RunView
from benchmarks import splits
from benchmarks.record import POINTS, write
from benchmarks.splits import CLIENTS, Rows
from protocols import Additive, Plain
from protocols.layout import Integers
from secure_afl import Training
from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.data import files
from secure_afl.federation.simulation import Federation
from secure_afl.intervals import student_reach
from secure_afl.methods import AnyMethod, ClassMeans, FedHPro, Mlp
from secure_afl.methods.averaging import AveragingPublic

SEEDS, SUMS = 5, (1, 3, 10)
METHODS: dict[str, AnyMethod] = {
    "class means": ClassMeans(),
    "FedHPro's statistic": FedHPro(rounds=1, architecture=Mlp(), update_clip=10.0),
}
# Rows of a client whose adapters take one step, and steps of the search for images.
ADAPTED, STEPS, SEARCHES, MOST_IMAGES = (1, 8), 600, 3, 10
SHAPE, SMOOTHNESS = (1, 8, 8), 0.01


def main() -> None:
    """Attack all sums and write `results/sums_leakage.json`."""
    torch.set_num_threads(1)
    POINTS.mkdir(exist_ok=True)
    rows = splits.digits()
    figures = {
        "seeds": SEEDS,
        "searches": SEARCHES,
        "by_class": {
            name: kept(name, partial(by_class, rows, own)) for name, own in METHODS.items()
        },
        "adapters": kept("adapters", adapters),
    }
    write("sums_leakage", figures)


def kept(name: str, measure: Callable[[], Any]) -> Any:
    """Return what is measured, or was before."""
    file = POINTS / f"sums_leakage {name}.json"
    if not file.exists():
        file.write_text(json.dumps(measure()), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def by_class(rows: Rows, method: AnyMethod) -> dict[str, Any]:
    """Tell members, and rebuild the row that is alone in its class."""
    found: dict[str, Any] = {}
    for clients in SUMS:
        scores = [attacked(rows, method, clients, seed) for seed in range(SEEDS)]
        found[str(clients)] = {
            key: {
                "mean": float(np.mean([own[key] for own in scores])),
                "reach": student_reach([own[key] for own in scores]),
            }
            for key in scores[0]
        }
    return found


def attacked(rows: Rows, method: AnyMethod, clients: int, seed: int) -> dict[str, float]:
    """Return AUC, and cosine of the row that is alone, of one run."""
    rng = np.random.default_rng(seed)
    members, others, public = np.array_split(rng.permutation(len(rows.labels)), 3)
    alone = rows.labels[members] == 0
    dealt = deal(rows, np.append(members[alone][:1], members[~alone]))
    record = recorded(method, dealt, clients, rows.classes)
    mine = dealt[:clients]
    inside = np.concatenate([client.features for client in mine])
    labels = np.concatenate([client.labels for client in mine])
    # No stranger is of the class that has one row.
    strangers = others[rows.labels[others] != 0][: len(labels)]
    known = Known(
        np.concatenate([inside, rows.features[strangers]]).astype(np.float64),
        np.concatenate([labels, rows.labels[strangers]]),
        rows.features[public].astype(np.float64),
        extra={"public_labels": rows.labels[public]},
    )
    inside_first = np.arange(len(labels) + len(strangers)) < len(labels)
    truth = Truth({client.name: client for client in mine}, inside_first)
    view = seen(record, dealt, clients)

    def measured(attack: Attack[Any]) -> dict[str, float]:
        claim = attack.claim(view, known, rng)
        return {one.metric: one.value for one in attack.judge(claim, truth)}

    told, shown = measured(ClassMembership()), measured(ClassRows())
    return {
        "auc": told["AUC"],
        "tpr_at_1_percent": told["TPR at 1 % FPR"],
        "single_exact": shown["exact rows of single-row classes"],
        "single_cosine": shown["cosine of single-row classes"],
        "guess_cosine": guessed(inside, labels, rows, public),
    }


def guessed(inside: np.ndarray, labels: Integers, rows: Rows, public: Integers) -> float:
    """Return the cosine of the row that is alone with the mean of public rows of its class."""
    scaled = Quantiser(MAX_BITS).scaled
    middle = scaled(inside).mean(axis=0)
    true = scaled(inside[labels == 0])[0] - middle
    guess = scaled(rows.features[public[rows.labels[public] == 0]]).mean(axis=0) - middle
    return float(true @ guess / np.linalg.norm(true) / np.linalg.norm(guess))


def recorded(method: AnyMethod, dealt: list[ClientData], clients: int, classes: int) -> Record:
    """Run a federation on record: of all in plain for the sum of one, else of so many, blind."""
    protocol, used = (Plain(), dealt) if clients == 1 else (Additive(), dealt[:clients])
    names = [str(c) for c in range(classes)]
    result = Federation(method, protocol).run(used, classes=names, record=True)
    assert result.report.exact, "the sums are those of one place"
    return Record(method, protocol, result)


def seen(record: Record, dealt: list[ClientData], clients: int) -> RunView:
    """Return what the receiver of sums has; to have one client's alone, with all other clients."""
    others = [client.name for client in dealt[1:]] if clients == 1 else []
    return record.view([record.protocol.receiver, *others])


def deal(rows: Rows, places: np.ndarray) -> list[ClientData]:
    """Ten clients, the rows dealt in turn."""
    return [
        ClientData(f"c{i}", rows.features[places[i::CLIENTS]], rows.labels[places[i::CLIENTS]])
        for i in range(CLIENTS)
    ]


class LowRank(nn.Module):
    """A frozen layer, and an adapter of rank 4 that begins as nothing."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, 4, bias=False)
        self.up = nn.Linear(4, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Add what the adapter says to what the layer says."""
        adapted: torch.Tensor = self.layer(rows) + self.up(self.down(rows))
        return adapted


class Adapted(nn.Module):
    """A frozen transformer on digits of 8 × 8 pixels, with adapters of its attention and a head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = VisionTransformer(
            img_size=8,
            patch_size=2,
            in_chans=1,
            embed_dim=64,
            depth=4,
            num_heads=4,
            num_classes=0,
        )
        # A pretrained network knows where a patch is; drawn positions of 0.02 say next to nothing.
        positions = self.network.get_parameter("pos_embed")
        nn.init.normal_(positions, std=0.5)
        self.network.requires_grad_(False)
        for block in self.network.blocks:
            attention = block.get_submodule("attn")
            # Fused kernels have no second derivative, which the attack needs.
            attention.fused_attn = False  # type: ignore[assignment]
            layer = attention.get_submodule("qkv")
            assert isinstance(layer, nn.Linear), "queries, keys and values come from one layer"
            attention.qkv = LowRank(layer)
        # The head's parameters come last.
        self.head = nn.Linear(64, classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Score rows: (n, C)."""
        scores: torch.Tensor = self.head(self.network(rows.reshape(-1, 1, 8, 8)))
        return scores


def step(module: nn.Module, data: ClientData, seed: int) -> None:
    """Take one step of gradient descent on all of a client's rows."""
    rows, labels = torch.as_tensor(data.features), torch.as_tensor(data.labels)
    optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1.0)
    optimiser.zero_grad()
    torch.autograd.backward(nn.functional.cross_entropy(module(rows), labels))
    optimiser.step()


def adapters() -> dict[str, Any]:
    """Read labels, embeddings and images off sums of adapters' updates."""
    digits = files.embedded_digits()
    pixels = np.asarray(digits.examples, dtype=np.float32).reshape(len(digits), -1) / 255
    found: dict[str, Any] = {}
    for each in ADAPTED:
        for clients in SUMS:
            scores = [
                inverted(pixels, digits.labels, each, clients, seed) for seed in range(SEARCHES)
            ]
            found[f"{each}, {clients}"] = {
                key: {
                    "mean": float(np.mean([own[key] for own in scores])),
                    "reach": student_reach([own[key] for own in scores]),
                }
                for key in scores[0]
            }
    return found


def inverted(
    pixels: np.ndarray, labels: np.ndarray, each: int, clients: int, seed: int
) -> dict[str, float]:
    """Attack one client's update, or the sum of several, in the first round."""
    rng = np.random.default_rng(seed)
    places = rng.permutation(len(labels))[: each * CLIENTS].reshape(CLIENTS, each)
    dealt = [ClientData(f"c{i}", pixels[own], labels[own]) for i, own in enumerate(places)]
    training = Training("adapters", lambda task: Adapted(len(task.classes)), step)
    method = training.averaging(rounds=1)
    record = recorded(method, dealt, clients, 10)
    view, mine = seen(record, dealt, clients), dealt[:clients]
    subset, public = finest(subset_sums(view))[0], record.result.rounds[0].public
    assert isinstance(public, AveragingPublic), "what averaging makes public"
    task, layout = public.task, view.rounds[0].session.layout
    gradient = -method.quantiser(task).mean(subset.vector, layout)
    module = method.model(public).module
    victim = ModuleVictim(module, public.parameters, SHAPE, 10)
    count = sum(len(client) for client in mine)
    told = labels_of_head(gradient[-10:], count)
    claim = GradientClaim([Found(subset.clients, told)], 10)
    judged = GradientLabels().judge(claim, Truth({client.name: client for client in mine}))
    figures = {
        "labels": judged[0].value,
        "labels_chance": judged[0].chance,
        "embedding": embedding(victim, gradient, mine),
    }
    if count <= MOST_IMAGES:
        # A guess shows the mean of other digits of the class that was read off.
        others = np.delete(np.arange(len(labels)), places.ravel())
        guess = np.stack([pixels[others][labels[others] == label].mean(axis=0) for label in told])
        images = searched(victim, gradient, told, guess)
        figures |= {"image": alike(images, mine), "guess": alike(guess, mine)}
    return figures


def alike(images: np.ndarray, clients: list[ClientData]) -> float:
    """Return the mean correlation of images with the true ones, in the order that fits best."""
    true = np.concatenate([client.features for client in clients])
    found = correlations(images.reshape(-1, 8, 8, 1), true.reshape(-1, 8, 8, 1))
    return float(found[linear_sum_assignment(-found)].mean())


def searched(victim: ModuleVictim, gradient: Floats, labels: Integers, guess: Floats) -> Floats:
    """Search for the images with the gradient that was seen, beginning at a guess: (n, 64)."""
    start = torch.as_tensor(guess, dtype=torch.float64).reshape(-1, *SHAPE)
    found = match(
        victim,
        torch.from_numpy(gradient),
        torch.from_numpy(labels),
        Pixels((len(labels), *SHAPE), start),
        relative_error(victim),
        total_variation(SMOOTHNESS),
        MatchSettings(steps=STEPS, rate=0.005),
    )
    rows: Floats = found.permute(0, 2, 3, 1).flatten(1).numpy()
    return rows


def embedding(victim: ModuleVictim, gradient: Floats, clients: list[ClientData]) -> float:
    """Return the cosine of the embedding that the head's gradient shows with the likest true one.

    Both are taken less the mean embedding of digits that nobody sent.
    """
    weight, bias = gradient[-650:-10].reshape(10, 64), gradient[-10:]
    shown = dense_input(weight, bias)
    rows = np.concatenate([client.features for client in clients])
    others = files.embedded_digits().examples[:500]
    embed: Callable[[torch.Tensor], torch.Tensor] = victim.module.get_submodule("network")
    with torch.inference_mode():
        true, strangers = (
            embed(torch.as_tensor(part, dtype=torch.float64).reshape(-1, 1, 8, 8)).numpy()
            for part in (rows, np.asarray(others, dtype=np.float64).reshape(500, -1) / 255)
        )
    middle = strangers.mean(axis=0)
    away, shown = true - middle, shown - middle
    lengths = np.linalg.norm(away, axis=1) * np.linalg.norm(shown)
    return float((away @ shown / lengths).max())


if __name__ == "__main__":
    main()
