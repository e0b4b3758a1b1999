"""FedAvg and FedSGD beside AFL's one round, on frozen features: rounds, bytes and seconds.

SECURE_AFL_DATA=… python -m benchmarks.fedavg

Settings are picked without the test rows: by the mean accuracy over the first rounds on held-out
rows, which are four of the sixteen sign sites, and PneumoniaMNIST's own `val` split. AFL's λ is
picked on the same rows. Every seed is another order of local training and, for PneumoniaMNIST,
another partition, for which settings are picked anew.
"""

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.record import RESULTS, write
from protocols.codec import encode
from secure_afl import AFL, ClientData, FedAvg, Federation, FedSGD, Plain, Quantiser, Result
from secure_afl.analytic.quantise import Floats
from secure_afl.data import dataset as datasets
from secure_afl.data import files as datasets_files
from secure_afl.data.dataset import Dataset
from secure_afl.methods import AnyMethod, Task
from secure_afl.runs import prepare
from secure_afl.runs.choose import make_method
from secure_afl.runs.config import RunConfig

WORKERS = 3
SEEDS = (0, 1, 2)
ROUNDS, TUNING_ROUNDS = 300, 150
# Rounds whose accuracy is written down: all of the first, then ever fewer.
SHOWN = sorted({int(r) for r in [*range(1, 11), *np.geomspace(10, ROUNDS, 40)]})

RIDGES = (0.1, 0.01, 1.0)
FEDSGD_RATES = (10.0, 30.0, 100.0)
FEDAVG_GRID = tuple(itertools.product((1.0, 3.0, 10.0, 30.0), (1, 5), (16, 64)))
PROXIMALS = (1e-3, 1e-2, 1e-1)

METHODS = ("afl", "fedsgd", "fedavg", "fedprox")


@dataclass(frozen=True)
class Case:
    """A data set, its title, and how many of each so many of its sites are held out for tuning.

    Without `hold_out_every`, the validation rows are a split of the file.
    """

    title: str
    config: RunConfig
    hold_out_every: int | None


def main() -> None:
    """Pick settings, run every method under every seed, write the figures and draw them."""
    figures = {name: measure(case) for name, case in cases().items()}
    write(
        "fedavg",
        {
            "what": __doc__.split("\n\n")[2].replace("\n", " ").strip(),
            "protocol": "plain",
            "bytes": "upload: what a client sent, messages counted as they crossed; download: the "
            "encoded public state of every round (float64) and the final model",
            "seconds": "all_parties: every party's time added up, on one machine; critical_path: "
            "a round's slowest client, its coordinator and the solver. No network latency in "
            "either.",
            "reached": "the first round at which test accuracy is AFL's or more; kept: the first "
            "from which it stays there",
            **figures,
        },
    )
    draw(figures)


def cases() -> dict[str, Case]:
    """What is measured."""
    root = Path(os.environ["SECURE_AFL_DATA"])
    shared: dict[str, Any] = {
        "backbone": "timm:mobilenetv1_100,pad_type=same",
        "checkpoint": str(root / "backbones" / "mobilenetv1_100.safetensors"),
    }
    signs = RunConfig(
        clients=str(root / "sign_digits" / "train" / "site_*"),
        test=str(root / "sign_digits" / "test"),
        image_size=128,
        **shared,
    )
    chests = RunConfig(
        clients=str(root / "pneumoniamnist.npz"),
        partition="dirichlet:10:0.1",
        image_size=96,
        **shared,
    )
    return {
        "signs": Case("Hand signs, 16 sites", signs, hold_out_every=4),
        "pneumonia": Case("PneumoniaMNIST, 10 clients, Dirichlet 0.1", chests, None),
    }


def measure(case: Case) -> dict[str, Any]:
    """All figures of one data set."""
    curves: dict[str, list[dict[str, Any]]] = {name: [] for name in METHODS}
    chosen: dict[str, list[dict[str, Any]]] = {name: [] for name in METHODS}
    methods: dict[str, AnyMethod] = {}
    for seed in SEEDS:
        clients, test, classes = load(case, seed)
        if not methods or case.config.partition is not None:
            methods = tune(*validation(case, clients, classes), classes)
        for name, method in methods.items():
            if not isinstance(method, AFL):
                method = msgspec.structs.replace(method, rounds=ROUNDS, seed=seed)
            result = Federation(method, Plain()).run(clients, classes=classes, test=test)
            curves[name].append(curve(method, result, test))
            chosen[name].append(settings(method))
            print(case.title, chosen[name][-1], curves[name][-1]["accuracy"][-1], file=sys.stderr)
    target = curves["afl"][0]["accuracy"][0]
    assert all(run["accuracy"] == [target] for run in curves["afl"]), "AFL knows no partition"
    return {
        "title": case.title,
        "rows": sum(len(client) for client in clients),
        "clients": len(clients),
        "test_rows": len(test),
        "settings": chosen,
        "afl": {"accuracy": target, **(costs(curves["afl"], [1] * len(SEEDS)) or {})},
        **{name: summary(curves[name], target) for name in METHODS if name != "afl"},
    }


def load(case: Case, seed: int) -> tuple[list[ClientData], ClientData, tuple[str, ...]]:
    """Features of the clients and of the test set, and the names of the classes."""
    config = msgspec.structs.replace(case.config, seed=seed)
    clients, tests = prepare.load(config)
    rows = features(config, [*clients, *tests])
    return rows[:-1], rows[-1], clients[0].classes


def features(config: RunConfig, parts: Sequence[Dataset]) -> list[ClientData]:
    """Features of data sets, from the cache if they were computed before."""
    backbone = prepare.choose_backbone(config, make_method(config), parts[0])
    return prepare.extract(backbone, parts, None)


def validation(
    case: Case, clients: list[ClientData], classes: tuple[str, ...]
) -> tuple[list[ClientData], ClientData]:
    """The clients to tune on, and rows of nobody among them to score settings on."""
    if case.hold_out_every is None:
        assert case.config.clients is not None
        held = datasets.align([datasets_files.load(case.config.clients, "val")], classes)
        return clients, features(case.config, held)[0]
    apart = clients[case.hold_out_every - 1 :: case.hold_out_every]
    held_rows = ClientData(
        "held out",
        np.concatenate([client.features for client in apart]),
        np.concatenate([client.labels for client in apart]),
    )
    return [client for client in clients if client not in apart], held_rows


def tune(
    clients: Sequence[ClientData], held: ClientData, classes: tuple[str, ...]
) -> dict[str, AnyMethod]:
    """Every method with the settings that do best on the held-out rows."""

    score = partial(mean_accuracy, clients=clients, held=held, classes=classes)

    def best(candidates: Sequence[AnyMethod]) -> AnyMethod:
        with ProcessPoolExecutor(WORKERS, initializer=threadpool_limits, initargs=(1,)) as pool:
            scores = list(pool.map(score, candidates))
        return candidates[int(np.argmax(scores))]

    rounds = TUNING_ROUNDS
    fedavg = best(
        [
            FedAvg(rounds=rounds, learning_rate=rate, local_epochs=epochs, batch_size=batch)
            for rate, epochs, batch in FEDAVG_GRID
        ]
    )
    return {
        "afl": best([AFL(ridge=value) for value in RIDGES]),
        "fedsgd": best([FedSGD(rounds=rounds, learning_rate=rate) for rate in FEDSGD_RATES]),
        "fedavg": fedavg,
        "fedprox": best([msgspec.structs.replace(fedavg, proximal=value) for value in PROXIMALS]),
    }


def mean_accuracy(
    method: AnyMethod, clients: Sequence[ClientData], held: ClientData, classes: tuple[str, ...]
) -> float:
    """Accuracy on held-out rows, averaged over the rounds: fast learning counts as well."""
    return mean(clear_run(method, clients, held, classes))


def clear_run(
    method: AnyMethod, clients: Sequence[ClientData], held: ClientData, classes: tuple[str, ...]
) -> Iterator[float]:
    """Accuracy on held-out rows after every round, sums being formed in the clear."""
    sizes = [len(client) for client in clients]
    task = Task(
        feature_dim=clients[0].features.shape[1],
        classes=classes,
        quantiser=Quantiser(9),
        total_rows=sum(sizes),
        client_rows=max(sizes),
        clients=len(sizes),
        backbone=bytes(32),
    )
    names = tuple(client.name for client in clients)
    public = method.begin(task)
    while method.layout(public) is not None:
        vectors = [method.contribute(public, client, {}, bytes(32)) for client in clients]
        public = method.absorb(public, np.sum(vectors, axis=0), names)
        yield method.model(public).accuracy(held.features, held.labels)


def settings(method: AnyMethod) -> dict[str, Any]:
    """A method's parameters by name."""
    fields = msgspec.structs.asdict(method)
    fields.pop("architecture", None)
    # Settings that are things of their own, as the server's step, as they are written in Python.
    said = {k: repr(v) if isinstance(v, msgspec.Struct) else v for k, v in fields.items()}
    return {"method": method.name, **said}


def curve(method: AnyMethod, result: Result, test: ClientData) -> dict[str, Any]:
    """Accuracy after every round, and what all rounds up to it cost."""
    assert result.report.exact
    rounds = result.rounds
    states = [round_.public for round_ in rounds[1:]]
    models = [*(method.model(public) for public in states), result.model]
    final = models[-1]
    download = np.array([len(encode(round_.public)) for round_ in rounds])
    solve = result.report.seconds.solve / len(rounds)
    everybody = [solve + sum(round_.seconds.values()) for round_ in rounds]
    names = result.personal.keys()
    slowest = [
        solve
        + max(round_.seconds[name] for name in names)
        + sum(seconds for party, seconds in round_.seconds.items() if party not in names)
        for round_ in rounds
    ]
    return {
        "accuracy": [model.accuracy(test.features, test.labels) for model in models],
        "upload": np.cumsum([mean(round_.sent_bytes[n] for n in names) for round_ in rounds]),
        "download": np.cumsum(download) + 8 * test.features.shape[1] * len(final.classes),
        "all_parties": np.cumsum(everybody),
        "critical_path": np.cumsum(slowest),
    }


def summary(curves: Sequence[dict[str, Any]], target: float) -> dict[str, Any]:
    """One method's figures over all seeds, beside AFL's accuracy."""
    accuracy = np.array([run["accuracy"] for run in curves])
    reached = [first(run >= target) for run in accuracy]
    kept = [first(np.logical_and.accumulate((run >= target)[::-1])[::-1]) for run in accuracy]
    shown = [r - 1 for r in SHOWN]
    return {
        "final_accuracy": accuracy[:, -1].tolist(),
        "best_accuracy": accuracy.max(axis=1).tolist(),
        "reached": reached,
        "kept": kept,
        "upload_per_round": int(curves[0]["upload"][0]),
        "until_reached": costs(curves, reached),
        "of_all_rounds": costs(curves, [len(run["accuracy"]) for run in curves]),
        "curve": {
            "rounds": SHOWN,
            "upload": [int(curves[0]["upload"][r]) for r in shown],
            "accuracy": np.round(accuracy, 4)[:, shown].tolist(),
        },
    }


def first(good: np.ndarray) -> int | None:
    """The first round, from 1, at which something holds; None if it never does."""
    return int(good.argmax()) + 1 if good.any() else None


def costs(curves: Sequence[dict[str, Any]], rounds: Sequence[int | None]) -> dict[str, Any] | None:
    """What it took up to those rounds, the median over seeds; None where a seed has no such."""
    pairs = [(run, r) for run, r in zip(curves, rounds, strict=True) if r is not None]
    if len(pairs) < len(curves):
        return None

    def middle(key: str) -> float:
        return float(median(run[key][r - 1] for run, r in pairs))

    return {
        "upload_bytes": int(middle("upload")),
        "download_bytes": int(middle("download")),
        "seconds_all_parties": round(middle("all_parties"), 3),
        "seconds_critical_path": round(middle("critical_path"), 3),
    }


def draw(figures: dict[str, dict[str, Any]]) -> None:
    """Accuracy against rounds and against upload; a row for each data set, a line for each seed."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    styles = {"fedavg": ("FedAvg", "#0072b2"), "fedsgd": ("FedSGD", "#d55e00")}
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, 2, figsize=(10, 7.2), sharey="row", layout="constrained")
    for (left, right), case in zip(axes, figures.values(), strict=True):
        left.set_title(case["title"], loc="left", fontweight="bold")
        left.set_ylabel("test accuracy, %")
        afl = case["afl"]
        places = ((left, "rounds", 1.0, 1.0), (right, "upload", 1e6, afl["upload_bytes"] / 1e6))
        for axis, key, unit, at in places:
            for name, (label, colour) in styles.items():
                points = case[name]["curve"]
                x: Floats = np.array(points[key]) / unit
                for number, accuracy in enumerate(points["accuracy"]):
                    once = label if number == 0 else None
                    y = 100 * np.array(accuracy)
                    axis.plot(x, y, color=colour, label=once, linewidth=1.4, alpha=0.8)
            axis.axhline(100 * afl["accuracy"], color="black", linestyle=":", linewidth=1)
            axis.plot(at, 100 * afl["accuracy"], "k*", markersize=14, label="AFL, one round")
            axis.set_xscale("log")
            axis.grid(alpha=0.25)
            axis.xaxis.set_major_formatter("{x:g}")
    axes[1, 0].set_xlabel("rounds (blind sums)")
    axes[1, 1].set_xlabel("uploaded by a client, MB")
    axes[0, 0].legend(loc="lower right", frameon=False)
    figure.supxlabel(
        "A line for each of three seeds: other local training and, below, another partition",
        fontsize=10,
        color="0.35",
    )
    figure.savefig(RESULTS / "fedavg.png", dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
