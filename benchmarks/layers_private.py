"""Layers under a promise: accuracy at ε = 1 and 8, an audit, and heads of clients' own.

    SECURE_AFL_DATA=… python -m benchmarks.layers_private

Noise is of unit example, add or remove, δ = 1e-5; one party adds it (central), which has the same
distribution as shares that clients add. The audit looks for an image of stripes in all sums of a
run by the likelihood ratio, with all that an adversary may know: the worst case promised.
"""

import json
import secrets
from collections.abc import Callable
from functools import partial
from statistics import mean, stdev
from typing import Any

import numpy as np
from msgspec.structs import replace

from benchmarks.layers import case, dirichlet, sum_of, task_of
from benchmarks.record import POINTS, write
from protocols.layout import Integers
from secure_afl import ClientData, Privacy, Quantiser
from secure_afl.data import files
from secure_afl.features.backbone import parse_backbone
from secure_afl.federation.sums import calibrated, this_noisy_sum
from secure_afl.methods import AnyMethod, FedACnnL, PFedACnnL, Task
from secure_afl.methods.personal.personal import halves
from secure_afl.privacy import accounting
from secure_afl.privacy.mechanism import Mechanism

SEEDS, EPSILONS, TRIALS = (0, 1, 2), (1.0, 8.0), 2_000
VARIANTS: dict[str, dict[str, Any]] = {
    "random, 16 filters": {"filters": "random", "filter_count": 16},
    "random, 32 filters": {"filters": "random", "filter_count": 32},
    "canonical, 16 filters": {"filters": "canonical", "filter_count": 16},
}


def main() -> None:
    """Measure all, or go on with what is left, and write `results/layers_private.json`."""
    POINTS.mkdir(exist_ok=True)
    accuracy = {
        title: {
            f"{epsilon:g}": kept(f"{title} {epsilon:g}", partial(private, settings, epsilon))
            for epsilon in EPSILONS
        }
        for title, settings in VARIANTS.items()
    }
    own = {name: kept(f"own {name}", partial(personal, made)) for name, made in DEALS.items()}
    audits = {f"{e:g}": kept(f"audit {e:g}", partial(audit, e)) for e in EPSILONS}
    what = (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip()
    figures = {"what": what, "pneumonia": accuracy, "audit": audits, "personal": own}
    write("layers_private", figures)


def private(settings: dict[str, Any], epsilon: float) -> dict[str, Any]:
    """PneumoniaMNIST at 28 pixels, ten clients, draws of filters and noise."""
    clients, test, classes = case("pneumonia")
    found = []
    for seed in SEEDS[:2]:
        method = FedACnnL(seed=seed, **settings)
        privacy = Privacy(epsilon, placement="central")
        mechanism = Mechanism(privacy, method.sums, len(clients), 0, 1)
        bare = Task(784, classes, Quantiser(12), 512 * len(clients), 512, len(clients), bytes(32))
        public = method.begin(calibrated(method, replace(bare, mechanism=mechanism)))
        while method.layout(public) is not None:
            noise = this_noisy_sum(method, public).share(secrets.token_bytes(32))
            exact = sum_of(method.contribute(public, client, {}, b"") for client in clients)
            public = method.absorb(public, exact + noise, ())
        found.append(method.model(public).accuracy(test.features, test.labels))
        print(settings, epsilon, found, flush=True)
    return {"accuracy": mean(found), "deviation": stdev(found), "runs": found}


def audit(epsilon: float) -> dict[str, Any]:
    """Look for one image in both sums of a run, many times."""
    method = FedACnnL(filters="canonical", filter_count=4, kernel=3, regions=2)
    rows = np.random.default_rng(0).random((8, 64))
    stripes = np.where(np.indices((8, 8)).sum(axis=0) % 2, 1.0, 0.0).reshape(1, -1)
    labels = np.zeros(1, dtype=np.int64)
    crowd = ClientData("crowd", rows, np.arange(8) % 2)
    canary = ClientData("canary", stripes, labels)
    task = Task(64, ("a", "b"), Quantiser(12), 36, 9, 4, bytes(32))
    mechanism = Mechanism(Privacy(epsilon), method.sums, 4, 1, 1)
    task = calibrated(method, replace(task, mechanism=mechanism))
    rng = np.random.default_rng(1)
    counts = np.zeros((2, 2), dtype=np.int64)
    for trial in range(TRIALS):
        there = bool(rng.random() < 0.5)
        public, ratio = method.begin(task), 0.0
        while method.layout(public) is not None:
            noisy = this_noisy_sum(method, public)
            scale = np.concatenate(
                [np.full(b.length, noisy.stds[b.name]) for b in noisy.layout.blocks]
            )
            base = method.contribute(public, crowd, {}, b"")
            added = method.contribute(public, canary, {}, b"")
            shares = [
                noisy.share(f"{trial} {k} {len(public.banks)} {epsilon}".encode().ljust(32, b"."))
                for k in range(mechanism.shares)
            ]
            total = base + there * added + np.sum(shares, axis=0)
            # The adversary knows all but whether the image is there.
            ratio += float(((total - base) / scale - added / scale / 2) @ (added / scale))
            public = method.absorb(public, total, ())
        counts[int(there), int(ratio > 0)] += 1
    negatives, positives = (int(n) for n in counts.sum(axis=1))
    bound = accounting.audited_epsilon(
        int(counts[0, 1]), negatives, int(counts[1, 1]), positives, 1e-5, 0.999
    )
    return {
        "epsilon": epsilon,
        "lower_bound": bound,
        "tests": TRIALS,
        "false_positive_rate": float(counts[0, 1] / negatives),
        "true_positive_rate": float(counts[1, 1] / positives),
    }


def skewed(seed: int) -> list[tuple[ClientData, ClientData]]:
    """Digits at 20 clients, Dirichlet 0.1."""
    data = files.embedded_digits()
    rows = parse_backbone("identity").extract(data)
    owner = dirichlet(data.labels, 20, 0.1, np.random.default_rng(seed))
    places = [np.flatnonzero(owner == k) for k in range(20)]
    return [_apart(k, rows[p], data.labels[p], seed) for k, p in enumerate(places) if len(p) >= 7]


def pooled_and_skewed(name: str, seed: int) -> list[tuple[ClientData, ClientData]]:
    """All rows of a set at 16 clients, Dirichlet 0.1."""
    clients, _, _ = case(name)
    rows = np.concatenate([client.features for client in clients])
    labels = np.concatenate([client.labels for client in clients])
    owner = dirichlet(labels, 16, 0.1, np.random.default_rng(seed))
    places = [np.flatnonzero(owner == k) for k in range(16)]
    return [_apart(k, rows[p], labels[p], seed) for k, p in enumerate(places) if len(p) >= 7]


def rotated(seed: int) -> list[tuple[ClientData, ClientData]]:
    """Digits at 20 clients, IID, each client's turned by one of four right angles."""
    data = files.embedded_digits()
    rows = parse_backbone("identity").extract(data).reshape(-1, 8, 8)
    places = np.array_split(np.random.default_rng(seed).permutation(len(rows)), 20)
    return [
        _apart(k, np.rot90(rows[p], k % 4, axes=(1, 2)).reshape(len(p), -1), data.labels[p], seed)
        for k, p in enumerate(places)
    ]


def sites(seed: int) -> list[tuple[ClientData, ClientData]]:
    """Hand signs at 32 pixels, the sixteen real sites."""
    clients, _, _ = case("signs")
    return [_apart(k, c.features, c.labels, seed) for k, c in enumerate(clients)]


def _apart(
    client: int, rows: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[ClientData, ClientData]:
    """Rows in the sum, and three tenths kept out."""
    order = np.random.default_rng([seed, client]).permutation(len(rows))
    cut = round(0.3 * len(rows))
    kept_out, used = order[:cut], order[cut:]
    return (
        ClientData(f"c{client:02d}", np.ascontiguousarray(rows[used]), labels[used]),
        ClientData(f"c{client:02d}", np.ascontiguousarray(rows[kept_out]), labels[kept_out]),
    )


Deal = Callable[[int], list[tuple[ClientData, ClientData]]]
WAYS: dict[str, Any] = {
    "prior": PFedACnnL(personal="prior"),
    "proximal": PFedACnnL(personal="proximal"),
    "auto": PFedACnnL(),
}
GROUPED: dict[str, Any] = {
    f"{n} groups by fit": PFedACnnL(groups=n, personal="none") for n in (2, 4, 6)
}
DEALS: dict[str, tuple[Deal, dict[str, Any]]] = {
    "digits, Dirichlet 0.1": (skewed, WAYS),
    "signs, Dirichlet 0.1": (partial(pooled_and_skewed, "signs"), WAYS),
    "pneumonia, Dirichlet 0.1": (partial(pooled_and_skewed, "pneumonia"), WAYS),
    "digits, rotated": (rotated, WAYS | GROUPED),
    "signs, 16 sites": (sites, {**WAYS, "2 groups by fit": GROUPED["2 groups by fit"]}),
}


def personal(made: tuple[Deal, dict[str, Any]]) -> dict[str, Any]:
    """Mean accuracy of clients' own models on their kept-out rows, beside FedACnnL's, by deal.

    Both are judged on the same rows: where a client chooses on half of them, on the other half.
    """
    deal, ways = made
    table: dict[str, dict[str, list[float]]] = {way: {"own": [], "global": []} for way in ways}
    for seed in SEEDS:
        pairs = deal(seed)
        clients = [used for used, _ in pairs]
        classes = tuple(str(c) for c in range(int(max(c.labels.max() for c in clients)) + 1))
        task = task_of(clients, classes)
        totals: list[Integers] = []
        plain = _learned(FedACnnL(), clients, task, totals)
        common = FedACnnL().model(plain)
        for way, method in ways.items():
            # Heads of clients' own follow from the same sums; groups have sums of theirs.
            public = _learned(method, clients, task, [] if method.grouped else totals)
            own, beside = [], []
            for used, rows in pairs:
                judged = halves(rows)[1] if method.chooses_on_kept and len(rows) > 1 else rows
                made_own = method.personalise(public, used, {}, rows).model
                own.append(made_own.accuracy(judged.features, judged.labels))
                beside.append(common.accuracy(judged.features, judged.labels))
            table[way]["own"].append(mean(own))
            table[way]["global"].append(mean(beside))
            print(way, seed, table[way]["own"][-1], table[way]["global"][-1], flush=True)
    return {
        way: {
            "own": mean(found["own"]),
            "global": mean(found["global"]),
            "gains": [a - b for a, b in zip(found["own"], found["global"], strict=True)],
        }
        for way, found in table.items()
    }


def _learned(
    method: AnyMethod, clients: list[ClientData], task: Task, totals: list[Integers]
) -> Any:
    """Learn in the clear; totals that are there already are not summed again."""
    public, round_ = method.begin(task), 0
    while method.layout(public) is not None:
        if round_ == len(totals):
            totals.append(sum_of(method.contribute(public, c, {}, b"") for c in clients))
        public = method.absorb(public, totals[round_], ())
        round_ += 1
    return public


def kept(title: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is measured is not measured again."""
    file = POINTS / f"layers private {title}.json"
    if not file.exists():
        file.write_text(json.dumps(measure()), encoding="utf-8")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    print(title, found, flush=True)
    return found


if __name__ == "__main__":
    main()
