"""FedACnnL beside FedAvg, FedProx and FedSGD with the same network: accuracy, seconds, bytes.

    SECURE_AFL_DATA=… python -m benchmarks.layers

Hand signs at 32 pixels (16 sites), PneumoniaMNIST at 28 (10 clients, IID) and scikit-learn's digits
(10 clients, Dirichlet 0.1), without messages, so that learning is all that takes time; seconds are
of the CPU, one thread, of all parties together. FedACnnL has its defaults, which were chosen while
looking at digits and signs and, for how classes are weighed, at PneumoniaMNIST. The gradient
methods train the same network for 5 local epochs of batches of 16 (FedSGD: a gradient a round).
Their learning rate is the best of four on digits and of three on signs by test accuracy, which
favours them, and on PneumoniaMNIST that of signs. They end when they reach FedACnnL, or after so
many rounds.
"""

import json
import time
from collections.abc import Callable, Iterable
from functools import cache, partial, reduce
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from benchmarks.layernet import LayerNet
from benchmarks.record import POINTS, RESULTS, data_folder, write
from protocols.layout import Integers
from secure_afl import ClientData, Quantiser
from secure_afl.data import dataset, files
from secure_afl.features.backbone import parse_backbone
from secure_afl.methods import AFL, AnyMethod, FedACnnL, FedAvg, FedSGD, Task
from secure_afl.methods.networks.layered import LayeredNetwork

SEEDS = (0, 1, 2)
RATES = {"digits": 0.1, "signs": 0.03, "pneumonia": 0.03}
SERVER_RATE, CLIP = 0.3, 1e3
ROUNDS = {"digits": (40, 40, 120), "signs": (14, 0, 0), "pneumonia": (6, 0, 0)}
Case = tuple[list[ClientData], ClientData, tuple[str, ...]]


def main() -> None:
    """Measure all cases, or go on with those that are left, and write `results/layers.json`."""
    torch.set_num_threads(1)
    POINTS.mkdir(exist_ok=True)
    found: dict[str, Any] = {}
    for name in ("digits", "signs", "pneumonia"):
        clients, test, _ = case(name)
        found[name] = {
            "rows": sum(map(len, clients)),
            "test_rows": len(test),
            "clients": len(clients),
            **analytic(name),
            **gradients(name, found),
        }
    what = (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip()
    write("layers", {"what": what, "cases": found})
    draw(found)


@cache
def case(name: str) -> Case:
    """Clients, test rows and class names, pixels in 0..1."""
    if name == "digits":
        data = files.embedded_digits()
        train, test = dataset.split_holdout(data, 0.2, np.random.default_rng(0))
        assert test is not None
        pixels = parse_backbone("identity")
        rows, held = pixels.extract(train), pixels.extract(test)
        owner = dirichlet(train.labels, 10, 0.1, np.random.default_rng(0))
        clients = [
            ClientData(f"c{k}", rows[owner == k], train.labels[owner == k])
            for k in range(10)
            if (owner == k).any()
        ]
        return clients, ClientData("test", held, test.labels), data.classes
    if name == "signs":
        folder = data_folder() / "sign_digits"
        pixels = parse_backbone("identity", None, 32)
        sites = files.load_clients(str(folder / "train" / "site_*"))
        (other,) = dataset.align([files.load(str(folder / "test"), "test")], sites[0].classes)
        clients = [ClientData(s.name, pixels.extract(s), s.labels) for s in sites]
        return clients, ClientData("test", pixels.extract(other), other.labels), sites[0].classes
    path = str(data_folder() / "pneumoniamnist.npz")
    pixels = parse_backbone("identity")
    train, test = (files.load(path, split) for split in ("train", "test"))
    rows, held = pixels.extract(train), pixels.extract(test)
    places = np.random.default_rng(0).permutation(len(rows))
    clients = [
        ClientData(f"c{k}", rows[places[k::10]], train.labels[places[k::10]]) for k in range(10)
    ]
    return clients, ClientData("test", held, test.labels), train.classes


def dirichlet(
    labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator
) -> np.ndarray:
    """Whose each row is, by Dirichlet shares of every class."""
    owner = np.empty(len(labels), dtype=np.int64)
    for c in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == c))
        cuts = np.round(np.cumsum(rng.dirichlet([alpha] * clients))[:-1] * len(places)).astype(int)
        for client, part in enumerate(np.split(places, cuts)):
            owner[part] = client
    return owner


def analytic(name: str) -> dict[str, Any]:
    """FedACnnL's variants; on digits also ridge on pixels, and three draws of random filters."""
    seeds = SEEDS if name == "digits" else SEEDS[:1]
    variants: dict[str, list[AnyMethod]] = {
        "fedacnnl": [FedACnnL()],
        "fedacnnl, ridge": [FedACnnL(head="ridge")],
        "fedacnnl, code": [FedACnnL(filters="code", seed=seed) for seed in seeds],
        "fedacnnl, random": [FedACnnL(filters="random", seed=seed) for seed in seeds],
        "fedacnnl, 16 filters": [FedACnnL(filter_count=16)],
    }
    if name == "digits":
        variants["pixels, afl"] = [AFL()]
    return {
        title: _kept(f"{name} {title}", partial(_runs, name, methods))
        for title, methods in variants.items()
    }


def _runs(name: str, methods: list[AnyMethod]) -> dict[str, Any]:
    """Learn by the method alone, in the clear; tests show that protocols change no bit of it."""
    clients, test, classes = case(name)
    accuracy, cpu, sent, rounds = [], [], 0, 0
    for method in methods:
        begin, sent, rounds = time.process_time(), 0, 0
        public = method.begin(task_of(clients, classes))
        while (layout := method.layout(public)) is not None:
            total = sum_of(method.contribute(public, client, {}, bytes(32)) for client in clients)
            public = method.absorb(public, total, ())
            sent, rounds = sent + layout.packed_bytes, rounds + 1
        model = method.model(public)
        cpu.append(time.process_time() - begin)
        accuracy.append(model.accuracy(test.features, test.labels))
    return {
        "accuracy": mean(accuracy),
        "deviation": stdev(accuracy) if len(accuracy) > 1 else None,
        "sums": rounds,
        "upload_per_client": sent,
        "cpu_seconds": mean(cpu),
    }


def sum_of(vectors: Iterable[Integers]) -> Integers:
    """Add vectors, one at a time."""
    return reduce(np.add, vectors)


def gradients(name: str, earlier: dict[str, Any]) -> dict[str, Any]:
    """FedAvg, FedProx and FedSGD until they reach FedACnnL."""
    clients, _, classes = case(name)
    task = task_of(clients, classes)
    network: LayeredNetwork = FedACnnL().network(task)
    net = LayerNet(network.image, network.kernel, network.counts[0], network.regions)
    common: dict[str, Any] = {"architecture": net, "update_clip": CLIP}
    average, prox, sgd = ROUNDS[name]
    rate = RATES[name]
    methods: dict[str, tuple[AnyMethod, int]] = {
        "fedavg": (FedAvg(rounds=average, learning_rate=rate, **common), average),
        "fedprox": (FedAvg(rounds=prox or 1, learning_rate=rate, proximal=0.01, **common), prox),
        "fedsgd": (FedSGD(rounds=sgd or 1, learning_rate=SERVER_RATE, **common), sgd),
    }
    target = _kept(f"{name} fedacnnl", dict)["accuracy"]
    return {
        title: _kept(f"{name} {title}", partial(_trained, name, method, rounds, target))
        for title, (method, rounds) in methods.items()
        if rounds
    }


def task_of(clients: list[ClientData], classes: tuple[str, ...]) -> Task:
    """The task of these clients, each of which declares what it has."""
    rows = [len(client) for client in clients]
    width = clients[0].features.shape[1]
    return Task(width, classes, Quantiser(12), sum(rows), max(rows), len(rows), bytes(32))


def _trained(name: str, method: AnyMethod, rounds: int, target: float) -> dict[str, Any]:
    """Accuracy and CPU seconds after every round, driven by the method itself, in the clear."""
    clients, test, classes = case(name)
    task = task_of(clients, classes)
    public = method.begin(task)
    layout = method.layout(public)
    assert layout is not None
    curve, spent = [], 0.0
    for _ in range(rounds):
        begin = time.process_time()
        total = sum_of(method.contribute(public, client, {}, bytes(32)) for client in clients)
        public = method.absorb(public, total, ())
        spent += time.process_time() - begin
        accuracy = method.model(public).accuracy(test.features, test.labels)
        curve.append({"accuracy": accuracy, "cpu_seconds": spent})
        print(name, method.name, curve[-1], flush=True)
        if accuracy >= target:
            break
    return {
        "rounds": len(curve),
        "accuracy": curve[-1]["accuracy"],
        "best": max(point["accuracy"] for point in curve),
        "reached": curve[-1]["accuracy"] >= target,
        "upload_per_client": layout.packed_bytes * len(curve),
        "cpu_seconds": spent,
        "curve": curve,
    }


def _kept(title: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is measured is not measured again."""
    file = POINTS / f"layers {title}.json"
    if not file.exists():
        file.write_text(json.dumps(measure()), encoding="utf-8")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    print(title, {k: v for k, v in found.items() if k != "curve"}, flush=True)
    return found


def draw(cases: dict[str, Any]) -> None:
    """Accuracy against CPU seconds, a curve for each gradient method."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = plt.subplots(1, len(cases), figsize=(4 * len(cases), 3.4))
    colours = {"fedavg": "C0", "fedprox": "C1", "fedsgd": "C2", "fedacnnl": "C3"}
    for axis, (name, found) in zip(axes, cases.items(), strict=True):
        for title, colour in colours.items():
            curve = found.get(title, {}).get("curve", ())
            if curve:
                axis.plot(
                    [point["cpu_seconds"] for point in curve],
                    [100 * point["accuracy"] for point in curve],
                    color=colour,
                    label=title,
                )
        for title, mark, colour in (("fedacnnl", "*", "C3"), ("fedacnnl, random", "o", "C4")):
            point = found[title]
            where = point["cpu_seconds"], 100 * point["accuracy"]
            axis.plot(*where, mark, color=colour, ms=9, label=title)
        axis.set(xscale="log", title=name, xlabel="CPU seconds, all parties")
        axis.xaxis.set_major_locator(LogLocator(numticks=4))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("test accuracy, %")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(RESULTS / "layers.png", dpi=110)


if __name__ == "__main__":
    main()
