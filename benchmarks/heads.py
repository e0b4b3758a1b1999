"""Heads and priors from one blind sum, beside scikit-learn with all rows in one place.

    python -m benchmarks.heads

Each split is summed once over `additive` and checked against the pooled rows; every head is
arithmetic on that sum. "best" picks λ or ρ on the test rows, which nobody could; it bounds what a
choice can gain. Nothing else was chosen while looking at test rows here.
"""

import sys
from collections.abc import Iterable, Mapping
from statistics import mean
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from benchmarks import splits
from benchmarks.record import RESULTS, write
from benchmarks.splits import Split
from protocols import Additive
from protocols.layout import Integers
from secure_afl.analytic.heads.head import Fitted, Head, fit_first
from secure_afl.analytic.heads.lda import LDA
from secure_afl.analytic.heads.means import Means
from secure_afl.analytic.heads.ridge import Ridge
from secure_afl.analytic.moments import Moments
from secure_afl.analytic.quantise import MAX_BITS, Quantiser
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.evaluation.calibration import calibrate
from secure_afl.federation.simulation import Federation
from secure_afl.intervals import student_reach
from secure_afl.methods import AFL
from secure_afl.methods.model import LinearModel

TODAY, DEFAULT = "ridge 0.1", "lda observed"
HEADS: Mapping[str, Head] = {
    TODAY: Ridge(ridge=0.1),
    "ridge gcv": Ridge(),
    "ridge gcv, intercept": Ridge(intercept=True),
    DEFAULT: LDA(),
    "lda uniform": LDA(prior="uniform"),
    "means": Means(),
}
RIDGES = 10.0 ** np.arange(-3, 1.6, 0.25)
SHRINKAGES = 10.0 ** np.arange(-2, 1.1, 0.25)
UNIT = Quantiser(MAX_BITS)


def main() -> None:
    """Measure all sets of splits, draw reliability, and write `results/heads.json`."""
    signs, signs_test = splits.signs()
    train, val, test = splits.pneumonia()
    digits = splits.digits()
    sets: Mapping[str, Iterable[Split]] = {
        "signs": splits.fixed(signs, signs_test),
        "signs, other sites": splits.by_site(signs),
        "pneumonia, test split": splits.fixed(splits.joined(train, val), test),
        "pneumonia, training mix": splits.at_random(splits.joined(train, val)),
        "digits": splits.at_random(digits),
        "signs, long tail": splits.long_tails(signs, signs_test),
        "digits, long tail": splits.long_tails(digits),
    }
    wanted = sys.argv[1:] or list(sets)
    figures = {}
    for name in wanted:
        runs = [measured(split) for split in sets[name]]
        figures[name] = summary(runs)
        print(name, figures[name]["paired"], file=sys.stderr, flush=True)
    if not sys.argv[1:]:
        write("heads", {"sets": figures})
        draw({name: figures[name]["reliability"] for name in list(sets)[:5]})


def measured(split: Split) -> dict[str, Any]:
    """Sum a split blindly, fit every head to the sum, and score all on the test rows."""
    names = tuple(str(c) for c in range(split.classes))
    result = Federation(AFL(), Additive()).run(split.clients, classes=names)
    assert result.report.exact, "the sum is that of the pooled rows"
    bits = result.report.feature_bits
    moments = Moments.of(result.statistics, Quantiser(bits))
    models = {
        name: model_of(fit_first((head,), moments, names).fitted, names)
        for name, head in HEADS.items()
    }
    asked, default = split.test.features, models[DEFAULT]
    scores = {name: scored(model.predict(asked), split.test) for name, model in models.items()}
    # What the command's default makes is the head that is measured here, bit for bit.
    assert np.array_equal(result.model.scores(asked), default.scores(asked))
    scores["ridge, best λ on test"] = best(
        (Ridge(ridge=float(value)) for value in RIDGES), moments, names, split.test
    )
    scores["lda, best ρ on test"] = best(
        (LDA(shrinkage=float(value)) for value in SHRINKAGES), moments, names, split.test
    )
    scores |= peers(pooled(split.clients), split.test)
    shares = default.probabilities(split.test.features)
    raw = LinearModel(
        default.weights, names, default.offset, default.observed, default.prior, 1.0
    ).probabilities(split.test.features)
    return {
        "scores": scores,
        "reliability": {
            "before": calibrate(raw, split.test.labels),
            "after": calibrate(shares, split.test.labels),
        },
        "chosen": {"ridge": fit_first((Ridge(),), moments, names).fitted.value,
                   "shrinkage": result.report.head.value if result.report.head else None,
                   "temperature": default.temperature},
    }  # fmt: skip


def model_of(fitted: Fitted, names: tuple[str, ...]) -> LinearModel:
    """The model of a fitted head, for rows of norm 1."""
    return LinearModel.fitted(fitted, names, UNIT)


def best(
    heads: Iterable[Head], moments: Moments, names: tuple[str, ...], test: ClientData
) -> dict[str, float]:
    """The greatest accuracy and the greatest balanced accuracy of any of the heads."""
    found = []
    for head in heads:
        model = model_of(head.fit(moments, names).fitted, names)
        found.append(scored(model.predict(test.features), test))
    return {key: max(point[key] for point in found) for key in found[0]}


def peers(train: ClientData, test: ClientData) -> dict[str, dict[str, float]]:
    """scikit-learn on the same rows of norm 1 in one place; C is chosen on a fifth of them."""
    rows, asked = UNIT.scaled(train.features), UNIT.scaled(test.features)
    order = np.random.default_rng(0).permutation(len(rows))
    cut = len(rows) // 5

    def logistic(c: float, places: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=c, max_iter=300).fit(rows[places], train.labels[places])

    held = order[:cut]
    hits = {
        c: logistic(c, order[cut:]).score(rows[held], train.labels[held]) for c in (10.0, 100.0)
    }
    chosen = max(hits, key=lambda c: hits[c])
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(rows, train.labels)
    return {
        "scikit-learn logistic": scored(logistic(chosen, order).predict(asked), test),
        "scikit-learn LDA": scored(lda.predict(asked), test),
    }


def scored(predicted: Integers, test: ClientData) -> dict[str, float]:
    """Accuracy and balanced accuracy, in per cent."""
    recalls = [float((predicted[test.labels == c] == c).mean()) for c in np.unique(test.labels)]
    accuracy = float((predicted == test.labels).mean())
    return {"accuracy": 100 * accuracy, "balanced": 100 * mean(recalls)}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the splits, and paired differences to today's default with 95 % intervals."""
    names = list(runs[0]["scores"])

    def column(name: str, key: str) -> list[float]:
        return [run["scores"][name][key] for run in runs]

    def paired(name: str, key: str) -> dict[str, float]:
        gains = [a - b for a, b in zip(column(name, key), column(TODAY, key), strict=True)]
        reach = student_reach(gains)
        return {"mean": mean(gains), "low": mean(gains) - reach, "high": mean(gains) + reach}

    reliability = {
        when: {
            "log_loss": mean(run["reliability"][when].log_loss for run in runs),
            "ece": mean(run["reliability"][when].ece for run in runs),
            "bins": [
                (part.confidence, part.accuracy, part.examples)
                for part in runs[0]["reliability"][when].bins
            ],
        }
        for when in ("before", "after")
    }
    return {
        "splits": len(runs),
        "means": {
            name: {key: mean(column(name, key)) for key in ("accuracy", "balanced")}
            for name in names
        },
        "paired": {
            name: {key: paired(name, key) for key in ("accuracy", "balanced")}
            for name in names
            if name != TODAY and len(runs) > 1
        },
        "chosen": [run["chosen"] for run in runs],
        "reliability": reliability,
    }


def draw(reliability: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the first split's reliability before and after the temperature."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(reliability), figsize=(3.1 * len(reliability), 3.4))
    for axis, (name, curves) in zip(axes, reliability.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
        for when, colour in (("before", "#c44e00"), ("after", "#0072b2")):
            curve = curves[when]
            points = np.array(curve["bins"])
            label = f"{when}: log loss {curve['log_loss']:.3f}"
            axis.plot(points[:, 0], points[:, 1], "o-", color=colour, markersize=4, label=label)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("confidence")
        axis.legend(fontsize=7, loc="upper left")
        axis.set_xlim(0.2, 1.02)
        axis.set_ylim(0, 1.05)
    axes[0].set_ylabel("share right")
    figure.tight_layout()
    figure.savefig(RESULTS / "heads_reliability.png", dpi=110)


if __name__ == "__main__":
    main()
