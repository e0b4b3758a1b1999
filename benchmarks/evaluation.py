"""Federated evaluation beside the pooled rows that no site would show.

    python -m benchmarks.evaluation

Every client keeps a fifth of its rows out; one further blind sum counts what the model makes of
them. The counts have to be those of the pooled rows exactly, the AUC within its bound.
With ε the promise covers both sums; the model alone under the same promise stands beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import splits
from benchmarks.record import write
from protocols import Additive, Bfv, Ckks, Pairwise, Plain, Protocol
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.evaluation.figures import measure
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, AnyMethod
from secure_afl.methods.evaluated import evaluated
from secure_afl.privacy.mechanism import Privacy

SHARE = 0.2
PROTOCOLS: Sequence[Protocol] = (Plain(), Additive(), Pairwise(), Ckks(), Bfv())
EPSILONS = (2.0, 8.0)


def main() -> None:
    """Evaluate on every data set, over every protocol on digits, and write the results."""
    digits = next(iter(splits.at_random(splits.digits())))
    signs, signs_test = splits.signs()
    train, val, test = splits.pneumonia()
    sets = {
        "signs": next(iter(splits.fixed(signs, signs_test))),
        "pneumonia": next(iter(splits.fixed(splits.joined(train, val), test))),
    }
    exact = {f"digits, {p.name}": against(AFL(), p, digits.clients) for p in PROTOCOLS}
    exact |= {
        f"digits, ridge, {Additive.name}": against(AFL(ridge=0.1), Additive(), digits.clients)
    }
    for name, split in sets.items():
        exact[f"{name}, {Additive.name}"] = against(AFL(), Additive(), split.clients)
    noisy = {f"digits, ε = {e:g}": promised(e, digits.clients, digits.test) for e in EPSILONS}
    write("evaluation", {"share": SHARE, "exact": exact, "noisy": noisy})


def against(learner: AnyMethod, protocol: Protocol, clients: list[ClientData]) -> dict[str, Any]:
    """Run with an evaluation, and compare its figures with those of the pooled rows."""
    method = evaluated(learner, SHARE)
    classes = _names(clients)
    result = Federation(method, protocol).run(clients, classes=classes)
    task, found = result.rounds[-1].public.task, result.report.pooled
    assert found is not None, "there is a sum of counts"
    kept = [rows for client in clients if (rows := method.kept(task, client)) is not None]
    rows = pooled(kept)
    truth = measure(result.model.comparable(rows.features), rows.labels, classes)
    # Classes of fewer than ten rows are hidden.
    same = all(
        shown is None or shown == counts
        for shown, counts in zip(found.confusion, truth.confusion, strict=True)
    )
    pairs = [
        (own.auc, own.auc_error, other.auc.value)
        for own, other in zip(found.classes, truth.classes, strict=True)
        if own.auc is not None and own.auc_error is not None and other.auc is not None
    ]
    training, counting = (
        float(np.mean([round_.sent_bytes[client.name] for client in clients]))
        for round_ in (result.rounds[0], result.rounds[-1])
    )
    return {
        "rows": len(rows),
        "sum_exact": result.report.exact,
        "confusion_equal": same,
        "accuracy": found.accuracy.value if found.accuracy else None,
        "auc": found.auc,
        "auc_exact": float(np.mean([truth for _, _, truth in pairs])),
        "greatest_auc_bound": max(bound for _, bound, _ in pairs),
        "greatest_auc_error": max(abs(auc - truth) for auc, _, truth in pairs),
        "auc_within_bounds": all(abs(a - t) <= bound + 1e-12 for a, bound, t in pairs),
        "upload_training": training,
        "upload_evaluation": counting,
    }


def promised(epsilon: float, clients: list[ClientData], test: ClientData) -> dict[str, Any]:
    """Run with noise, with an evaluation and without, under one promise."""
    classes, privacy = _names(clients), Privacy(epsilon)

    def run(method: AnyMethod) -> Any:
        federation = Federation(method, Additive(), privacy=privacy)
        return federation.run(clients, classes=classes, max_rows=256, test=test).report

    alone, both = run(AFL()), run(evaluated(AFL(), SHARE))
    found = both.pooled
    return {
        "accuracy_alone": alone.accuracy.federated,
        "accuracy_evaluated": both.accuracy.federated,
        "counts_say": found.accuracy.value if found.accuracy else None,
        "counts_low": found.accuracy.low if found.accuracy else None,
        "counts_high": found.accuracy.high if found.accuracy else None,
        "noise_std": found.noise_std,
    }


def _names(clients: list[ClientData]) -> list[str]:
    return [str(c) for c in range(1 + max(int(client.labels.max()) for client in clients))]


if __name__ == "__main__":
    main()
