"""Tables of accuracy under a promise, beside DP-SGD: docs/private-figures.md."""

from collections.abc import Iterator
from typing import Any

from benchmarks.rendering import markdown_table, read_results

_OURS = "private-gradient"
_PRIOR = {"": "", "uniform": ", equal priors"}


def private_auc() -> str:
    """Render AUC of every arm by ε, which no prior changes."""
    return _by_epsilon("auc", priors=False)


def private_balanced() -> str:
    """Render balanced accuracy by ε."""
    return _by_epsilon("balanced", priors=True)


def private_accuracy() -> str:
    """Render accuracy by ε."""
    return _by_epsilon("accuracy", priors=True)


def private_differences() -> str:
    """Render ours less DP-SGD's, with paired intervals; bold where they exclude zero."""
    head = ["private-gradient less …", *(f"ε = {at['epsilon']:g}" for at in _first())]
    rows = []
    for name, epsilons in _sets():
        peers = [peer for peer in epsilons[0]["differences"] if peer.startswith("DP-SGD")]
        for peer in peers:
            for test in dict.fromkeys(d["test"] for d in epsilons[0]["differences"][peer]):
                for key, prior in (("auc", ""), ("balanced", ""), ("balanced", "uniform")):
                    title = {"auc": "AUC", "balanced": f"balanced{_PRIOR[prior]}"}[key]
                    cells = [
                        _interval(_found(at["differences"][peer], test, prior)[key])
                        for at in epsilons
                    ]
                    rows.append([f"{name}, {test}: {peer}, {title}", *cells])
    return markdown_table(head, rows)


def private_costs() -> str:
    """Render sums, megabytes of a client and CPU seconds of all parties at ε = 1."""
    head = ["ε = 1", "sums", "MB a client", "seconds, all parties"]
    rows = []
    for name, epsilons in _sets():
        (at,) = (at for at in epsilons if at["epsilon"] == 1)
        for arm, cost in at["costs"].items():
            sent = [f"{cost['rounds']:.0f}", f"{cost['upload'] / 1e6:.3f}"]
            if not cost["rounds"]:
                sent = ["–", "–"]
            rows.append([f"{name}: {arm}", *sent, f"{cost['seconds']:.1f}"])
    return markdown_table(head, rows)


def private_picking() -> str:
    """Render the ε that six runs have together."""
    picking = read_results("private")["picking_epsilon"]
    head = ["ε of one run", *picking]
    return markdown_table(head, [["of six together", *(f"{e:.2f}" for e in picking.values())]])


def private_guard() -> str:
    """Render accuracy on many rows, with the guard of the step and without."""
    found = read_results("private_guard")
    head = [
        f"{found['rows']:,} rows, ε = {found['epsilon']:g}, {found['sums']} sums",
        "accuracy, %",
    ]
    rows = [
        [name, f"{figure['mean']:.1f} ({min(figure['each']):.1f} to {max(figure['each']):.1f})"]
        for name, figure in found["accuracy"].items()
    ]
    return markdown_table(head, rows)


def audits() -> str:
    """Render lower bounds on ε of runs as promised, and of broken ones."""
    found = read_results("audits")
    head = [f"private-gradient, {found['sums']} sums", "shown at least", "tests", "by", "flagged"]
    rows = [
        [
            name if kind == "promises" else f"{name}, promised ε = {each['promised']:g}",
            f"{each['lower_bound']:.2f}",
            f"{each['tests']:,}",
            each["shown_by"],
            "yes" if each["flagged"] else "no",
        ]
        for kind in ("promises", "broken")
        for name, each in found[kind].items()
    ]
    return markdown_table(head, rows)


def _by_epsilon(key: str, *, priors: bool) -> str:
    head = ["", *(f"ε = {at['epsilon']:g}" for at in _first())]
    rows = []
    for name, epsilons in _sets():
        for test in dict.fromkeys(arm["test"] for arm in epsilons[0]["arms"][_OURS]):
            for arm in epsilons[0]["arms"]:
                of_arm = [each for at in epsilons for each in at["arms"][arm]]
                for prior in dict.fromkeys(each["prior"] for each in of_arm):
                    if prior and not priors:
                        continue
                    title = arm + (_PRIOR[prior] if priors else "")
                    cells = [_cell(at["arms"][arm], test, prior, key) for at in epsilons]
                    rows.append([f"{name}, {test}: {title}", *cells])
    return markdown_table(head, rows)


def _sets() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name, found in read_results("private")["sets"].items():
        yield name + (" (kept apart)" if found["kept_apart"] else ""), found["epsilons"]


def _first() -> list[dict[str, Any]]:
    return next(iter(_sets()))[1]


def _found(figures: list[dict[str, Any]], test: str, prior: str) -> dict[str, Any]:
    (found,) = (each for each in figures if (each["test"], each["prior"]) == (test, prior))
    return found


def _cell(figures: list[dict[str, Any]], test: str, prior: str, key: str) -> str:
    """Render one figure; a dash where the head had no prior at this ε."""
    there = any((each["test"], each["prior"]) == (test, prior) for each in figures)
    return _mean(_found(figures, test, prior)[key]) if there else "–"


def _mean(figure: dict[str, float]) -> str:
    return f"{figure['mean']:.1f} ± {figure['reach']:.1f}"


def _interval(figure: dict[str, float]) -> str:
    text = f"{figure['mean']:+.1f} ({figure['low']:+.1f} to {figure['high']:+.1f})"
    return f"**{text}**" if figure["low"] > 0 or figure["high"] < 0 else text
