"""Accuracy under a promise: noisy gradients beside one noisy sum and beside DP-SGD, paired.

    SECURE_AFL_DATA=… python -m benchmarks.private [SET …]

Ten clients, real sums over `additive`, integers, the noise of drop-outs and colluders; ε from 0.1
to 8 at δ = 1e-5, unit example. DP-SGD (Opacus) has the rows in one place, and no noise beyond its
promise. Its settings are picked by accuracy on the *test* rows, the best of six over two seeds,
which favours it and which no ε covers; beside it stand its untuned default, and the best of six on
rows centred as ours are, from a noisy sum that it pays for.

Differences are means over seeds, with 95 % intervals from a bootstrap over test rows and seeds.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks import private_sets
from benchmarks.private_sets import Case
from benchmarks.record import POINTS, write
from benchmarks.splits import CLIENTS
from protocols import Additive
from protocols.layout import Integers
from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser
from secure_afl.analytic.rows import pooled
from secure_afl.evaluation.bootstrap import weights
from secure_afl.features.centring import centred
from secure_afl.features.reduction import reduction_at_random
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import Terms
from secure_afl.intervals import student_reach
from secure_afl.methods import AFL, AnyMethod, PrivateGradient
from secure_afl.methods.model import Model
from secure_afl.privacy.accounting import epsilon_of, mu_of
from secure_afl.privacy.mechanism import DEFAULT_DELTA, Privacy
from secure_afl.runs.reduce import suggested_dimension, unfold
from secure_afl.tuning.dpsgd import SWEEP, DpSgdSettings, train_dpsgd

EPSILONS = (0.1, 0.5, 1.0, 2.0, 8.0)
SEEDS, PICKING_SEEDS = 10, 2
STEPS, FIVE, ONE = "private-gradient", "private-gradient, 5 sums", "afl, one sum"
BEST, UNTUNED, CENTRED = "DP-SGD, best of six on test", "DP-SGD, untuned", "DP-SGD, centred"
OURS: dict[str, AnyMethod] = {
    STEPS: PrivateGradient(),
    FIVE: PrivateGradient(rounds=5),
    ONE: AFL(),
}
DRAWS = 2000

# Of the budget of the centred DP-SGD, the share that its first sum takes: as much as ours.
_FIRST_SHARE = 1 / 5


@dataclass(frozen=True, eq=False)
class Run:
    """Scores of one trained model on each test set, with priors where it has them.

    Attributes:
        scores: (n, C) by test set and prior ("" where the model has none).
        rounds, upload: sums, and bytes of one client, of a federation; 0 for others.
        seconds: of all parties together, from features to model.
    """

    scores: dict[str, dict[str, Floats]]
    rounds: int = 0
    upload: float = 0.0
    seconds: float = 0.0


def main() -> None:
    """Measure the named sets, all by default, and write `results/private.json`."""
    wanted = sys.argv[1:] or list(private_sets.CASES)
    POINTS.mkdir(exist_ok=True)
    figures = {}
    with threadpool_limits(1):
        for name in private_sets.CASES:
            file = POINTS / f"private {name}.json"
            if name in wanted and not file.exists():
                measured = [at(private_sets.CASES[name], epsilon) for epsilon in EPSILONS]
                file.write_bytes(msgspec.json.encode(measured))
            if file.exists():
                figures[name] = {
                    "kept_apart": name in private_sets.KEPT_APART,
                    "epsilons": msgspec.json.decode(file.read_bytes()),
                }
    write(
        "private",
        {
            "seeds": SEEDS,
            "picking_seeds": PICKING_SEEDS,
            "clients": CLIENTS,
            "picking_epsilon": {f"{e:g}": composed(e, len(SWEEP)) for e in EPSILONS},
            "sets": figures,
        },
    )


def composed(epsilon: float, runs: int) -> float:
    """ε of as many runs together."""
    return epsilon_of(DEFAULT_DELTA, runs**0.5 * mu_of(epsilon, DEFAULT_DELTA))


def at(case: Callable[[int], Case], epsilon: float) -> dict[str, Any]:
    """Train every arm with every seed at one ε, and summarise."""
    cases = [case(seed) for seed in range(SEEDS)]
    arms = {
        name: [federated(method, cases[s], epsilon, s) for s in range(SEEDS)]
        for name, method in OURS.items()
    }
    rates = {UNTUNED: DpSgdSettings()}
    for name, train in ((BEST, trained), (CENTRED, trained_centred)):
        rates[name] = picked(train, cases, epsilon)
    for name, settings in rates.items():
        train = trained_centred if name == CENTRED else trained
        arms[name] = [train(settings, cases[s], epsilon, s) for s in range(SEEDS)]
    print(f"{cases[0].name}, ε = {epsilon:g} done", file=sys.stderr, flush=True)
    return {
        "epsilon": epsilon,
        "settings": {name: msgspec.to_builtins(used) for name, used in rates.items()},
        "arms": {name: list(summaries(runs, cases)) for name, runs in arms.items()},
        "costs": {
            name: {
                "rounds": mean(run.rounds for run in runs),
                "upload": mean(run.upload for run in runs),
                "seconds": mean(run.seconds for run in runs),
            }
            for name, runs in arms.items()
        },
        "differences": {
            peer: list(differences(arms[STEPS], arms[peer], cases))
            for peer in (BEST, UNTUNED, CENTRED)
        },
    }


# Arms


def federated(method: AnyMethod, case: Case, epsilon: float, seed: int) -> Run:
    """Run a federation with noise, in as many dimensions as the promise suggests."""
    if isinstance(method, PrivateGradient):
        method = msgspec.structs.replace(method, seed=seed)
    privacy = Privacy(epsilon)
    reduction = None
    if method.prefers_fewer_dimensions:
        dim = case.clients[0].features.shape[1]
        kept = dimension(method, case, privacy)
        reduction = reduction_at_random(dim, kept, seed, centred=True)
    clients = case.clients
    if reduction is not None:
        clients = [replace(data, features=reduction.apply(data.features)) for data in clients]
    result = Federation(method, Additive(), privacy=privacy).run(
        clients, classes=case.classes, max_rows=case.max_rows
    )
    assert result.report.exact, "the sums are those of one place"
    spent = result.report.seconds
    return Run(
        scores_of(unfold(reduction, result.model), case),
        len(result.rounds),
        result.report.bytes.upload_per_client,
        spent.statistics + spent.protect + spent.aggregate + spent.solve,
    )


def dimension(method: AnyMethod, case: Case, privacy: Privacy) -> int:
    """Return how many dimensions a run of this promise keeps, by public numbers."""
    bounds, dim = [case.max_rows] * len(case.clients), case.clients[0].features.shape[1]
    terms = Terms(method, Additive(), privacy)
    wanted = suggested_dimension(terms, bounds, dim, len(case.classes))
    assert wanted is not None, "there is noise"
    return wanted


def trained(settings: DpSgdSettings, case: Case, epsilon: float, seed: int) -> Run:
    """Train DP-SGD on all rows in one place."""
    rows = pooled(case.clients)
    found = train_dpsgd(
        rows.features,
        rows.labels,
        case.classes,
        epsilon=epsilon,
        delta=DEFAULT_DELTA,
        settings=settings,
        seed=seed,
    )
    return Run(scores_of(found.model, case), seconds=found.seconds)


def trained_centred(settings: DpSgdSettings, case: Case, epsilon: float, seed: int) -> Run:
    """Train DP-SGD on rows less what they share, which a noisy sum tells at a fifth of μ²."""
    rows = pooled(case.clients)
    mu = mu_of(epsilon, DEFAULT_DELTA)
    plain = _part_one(rows.features)
    noise = np.random.default_rng(seed).standard_normal(plain.shape[1])
    total = plain.sum(axis=0) + noise / (mu * _FIRST_SHARE**0.5)
    direction = total / np.linalg.norm(total)

    def prepared(features: NDArray[np.floating]) -> Floats:
        part = _part_one(features)
        return part - np.outer(part @ direction, direction)

    found = train_dpsgd(
        prepared(rows.features),
        rows.labels,
        case.classes,
        epsilon=epsilon_of(DEFAULT_DELTA, mu * (1 - _FIRST_SHARE) ** 0.5),
        delta=DEFAULT_DELTA,
        settings=settings,
        seed=seed,
    )
    tests = {name: (prepared(test.features), test.labels) for name, test in case.tests.items()}
    scores = {name: {"": found.model.scores(features)} for name, (features, _) in tests.items()}
    return Run(scores, seconds=found.seconds)


def _part_one(features: NDArray[np.floating]) -> Floats:
    quantiser = Quantiser(MAX_BITS)
    return centred(features, quantiser, None) / quantiser.scale


def picked(
    train: Callable[[DpSgdSettings, Case, float, int], Run], cases: list[Case], epsilon: float
) -> DpSgdSettings:
    """Return the settings of the best accuracy on the first test set, over two seeds."""

    def accuracy(settings: DpSgdSettings) -> float:
        found = []
        for seed in range(PICKING_SEEDS):
            run = train(settings, cases[seed], epsilon, seed)
            name, test = next(iter(cases[seed].tests.items()))
            found.append(float(right(run.scores[name][""], test.labels).mean()))
        return mean(found)

    return max(SWEEP, key=accuracy)


def scores_of(model: Model, case: Case) -> dict[str, dict[str, Floats]]:
    """Score every test set, under both priors where the model has one."""
    found = {}
    for name, test in case.tests.items():
        found[name] = {"": model.scores(test.features)}
        if model.has_prior and model.observed is not None:
            equal, observed = np.ones(len(case.classes)), model.observed
            found[name] = {
                "": model.with_prior(observed).scores(test.features),
                "uniform": model.with_prior(equal).scores(test.features),
            }
    return found


# Figures


def summaries(runs: list[Run], cases: list[Case]) -> Iterator[dict[str, Any]]:
    """Yield means over seeds, with 95 % reaches (Student), of each test set and prior."""
    for name in cases[0].tests:
        for prior in runs[0].scores[name]:
            each = [
                figures(run.scores[name][prior], case.tests[name].labels)
                for run, case in zip(runs, cases, strict=True)
            ]
            yield {
                "test": name,
                "prior": prior,
                **{
                    key: {
                        "mean": mean(found[key] for found in each),
                        "reach": student_reach([found[key] for found in each]),
                    }
                    for key in each[0]
                },
            }


def figures(scores: Floats, labels: Integers) -> dict[str, float]:
    """Accuracy, balanced accuracy and AUC (mean over classes), in per cent."""
    alone = np.ones((1, len(labels)))
    return {key: 100 * float(value[0]) for key, value in weighted(scores, labels, alone).items()}


def weighted(scores: Floats, labels: Integers, counts: Floats) -> dict[str, Floats]:
    """The same of rows counted so many times, (draws, n)."""
    hits = right(scores, labels)
    shares, areas = [], []
    for c in range(scores.shape[1]):
        own = labels == c
        if not own.any():
            continue
        shares.append((counts[:, own] * hits[own]).sum(1) / np.maximum(counts[:, own].sum(1), 1))
        areas.append(auc(margins(scores, c), own, counts))
        if scores.shape[1] == 2 and c == 1:
            areas = areas[-1:]
    return {
        "accuracy": (counts * hits).sum(1) / counts.sum(1),
        "balanced": np.mean(shares, axis=0),
        "auc": np.mean(areas, axis=0),
    }


def right(scores: Floats, labels: Integers) -> Any:
    """Whether each row's prediction is its label."""
    return scores.argmax(axis=1) == labels


def margins(scores: Floats, c: int) -> Floats:
    """How far a class is ahead of the best other, (n,)."""
    others = np.delete(scores, c, axis=1)
    found: Floats = scores[:, c] - others.max(axis=1)
    return found


def auc(margin: Floats, own: Any, counts: Floats) -> Floats:
    """Area under the ROC curve of rows counted so many times, ties as halves, (draws,)."""
    order = np.argsort(margin, kind="stable")
    sorted_margin, sorted_own, sorted_counts = margin[order], own[order], counts[:, order]
    _, ties = np.unique(sorted_margin, return_inverse=True)
    positive = np.zeros((len(counts), ties[-1] + 1))
    negative = np.zeros_like(positive)
    np.add.at(positive.T, ties, (sorted_counts * sorted_own).T)
    np.add.at(negative.T, ties, (sorted_counts * ~sorted_own).T)
    below = np.cumsum(negative, axis=1) - 0.5 * negative
    found: Floats = (positive * below).sum(1) / np.maximum(positive.sum(1) * negative.sum(1), 1)
    return found


def differences(ours: list[Run], peers: list[Run], cases: list[Case]) -> Iterator[dict[str, Any]]:
    """Yield ours less the peer's, under both of our priors, with paired 95 % intervals."""
    for name in cases[0].tests:
        theirs = "uniform" if "uniform" in peers[0].scores[name] else ""
        for prior in ours[0].scores[name]:
            of_peer = theirs if prior == "uniform" else ""
            drawn = _drawn(ours, peers, cases, name, prior, of_peer)
            yield {"test": name, "prior": prior} | {
                key: {
                    "mean": 100 * float(values[:, 0].mean()),
                    **dict(
                        zip(
                            ("low", "high"),
                            (100 * np.quantile(_over_seeds(values), (0.025, 0.975))).tolist(),
                            strict=True,
                        )
                    ),
                }
                for key, values in drawn.items()
            }


def _drawn(
    ours: list[Run], peers: list[Run], cases: list[Case], name: str, prior: str, of_peer: str
) -> dict[str, Floats]:
    """Differences by seed and draw, (seeds, 1 + draws): first of the rows as they are."""
    found: dict[str, list[Floats]] = {}
    for run, peer, case in zip(ours, peers, cases, strict=True):
        labels = case.tests[name].labels
        # The same draws for all seeds that share their test rows.
        draws = np.concatenate(list(weights(np.arange(len(labels)), DRAWS, 0)))
        counts = np.concatenate([np.ones((1, len(labels))), draws])
        own = weighted(run.scores[name][prior], labels, counts)
        other = weighted(peer.scores[name][of_peer], labels, counts)
        for key, values in own.items():
            found.setdefault(key, []).append(values - other[key])
    return {key: np.array(values) for key, values in found.items()}


def _over_seeds(values: Floats) -> Floats:
    """Means over seeds drawn with replacement, one draw of them for each draw of rows."""
    rng = np.random.default_rng(1)
    seeds = rng.integers(0, len(values), (len(values), values.shape[1] - 1))
    drawn: Floats = np.take_along_axis(values[:, 1:], seeds, axis=0).mean(axis=0)
    return drawn


if __name__ == "__main__":
    main()
