"""Tables of docs/privacy.md: one noisy sum, and what replace-one costs."""

from typing import Any

from benchmarks.rendering import markdown_table, read_results


def one_sum_table() -> str:
    """Accuracy, balanced accuracy and AUC of what `afl` was, of ridge, and of `afl` as it comes."""
    names = {
        "ridge, rows as they are": "ridge, rows as they are",
        "ridge": "ridge",
        "as it comes": "as it comes",
    }
    head = ["set, rows scored", "head", "prior", *(f"ε = {e:g}" for e in (0.1, 0.5, 1, 2, 8))]
    rows = []
    for name, measured in read_results("one_sum")["sets"].items():
        points = measured["epsilons"]
        tests = list(dict.fromkeys(t["test"] for t in points[-1]["arms"]["as it comes"]["tests"]))
        for test in tests:
            for arm, words in names.items():
                for prior in ("uniform", "observed") if arm == "as it comes" else ("",):
                    cells = [_cell(point["arms"][arm], test, prior) for point in points]
                    rows.append([f"{name}, {test}", words, prior or "–", *cells])
    return markdown_table(head, rows)


def relations_table() -> str:
    """Noise of sums by relation, and the accuracy on digits."""
    results = read_results("relations")
    rows = []
    for epsilon, by in results["noise"].items():
        for relation, found in by.items():
            accuracy = ""
            if epsilon == "1":
                at = results["digits"][relation]
                accuracy = f"{at['mean']:.1f} ± {at['reach']:.1f} %"
            rows.append(
                [
                    f"{epsilon}, {relation}",
                    f"{found['multiplier']:.3g}",
                    f"{found['ridge']:.3g}",
                    f"{found['lda']:.3g}",
                    f"{found['gradient']:.3g} ({found['sums']} sums)",
                    accuracy or "–",
                ]
            )
    return markdown_table(
        [
            "ε, relation",
            "z",
            "z·Δ, ridge",
            "z·Δ, lda",
            "z·Δ, a gradient",
            "private-gradient, digits",
        ],
        rows,
    )


def _cell(arm: dict[str, Any], test: str, prior: str) -> str:
    found = {t["prior"]: t for t in arm["tests"] if t["test"] == test}
    # Where the public rule leaves the sum to ridge there is no prior.
    at = found.get(prior, found.get(""))
    assert at is not None, "each arm has the test set"
    figures = " / ".join(f"{at[key]['mean']:.1f}" for key in ("accuracy", "balanced", "auc"))
    return f"{figures} (± {at['accuracy']['reach']:.1f})" + ("" if prior in found else " r")
