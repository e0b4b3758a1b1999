"""The README's three figures, as sentences made from `benchmarks/results/`."""

from typing import Any

from benchmarks.rendering import read_results


def headlines() -> str:
    """Render one sentence or two for each of three result files, and name the file."""
    texts = {"federation": _exact(), "patients": _promised(), "leakage": _told()}
    return "".join(
        f"- {text} ([{name}.json](benchmarks/results/{name}.json))\n"
        for name, text in texts.items()
    )


def _exact() -> str:
    run = read_results("federation")["runs"]["signs"]
    accuracy = run["accuracy"]
    equal = "equals" if run["exact"] else "DIFFERS FROM"
    return (
        f"**Exact.** Over {run['clients']['total']} sites of hand signs the blind sum {equal} the "
        "integers of all rows in one place. Its ridge classifier has an accuracy of "
        f"{_percent(accuracy['federated'])}. In one place and in floating point it has "
        f"{_percent(accuracy['centralised_float'])}, and at one site alone "
        f"{_percent(accuracy['local_mean'])} on average."
    )


def _promised() -> str:
    case = read_results("patients")["cases"]["signs"]
    private, afl = (case["methods"][name]["patient"]["8"] for name in ("private-gradient", "afl"))
    return (
        "**Under a promise.** On hand signs, with ε = 8 for every patient, `private-gradient` has "
        f"{_spread(private)} and `afl` {_spread(afl)}: mean and deviation of "
        f"{len(private['runs'])} runs. Without noise `afl` has "
        f"{_percent(case['exact']['accuracy'])}. The constants of `private-gradient` were fitted "
        "on this set, among others."
    )


def _told() -> str:
    results = read_results("leakage")
    rows = max(cell["rows"] for cell in results["cells"])
    seen, noisy = (
        _measure(results[cells], "membership-leverage", rows, "additive", "collector")
        for cells in ("cells", "noisy")
    )
    plain = _measure(results["cells"], "attribution", rows, "plain", "server")
    blind = _measure(results["cells"], "attribution", rows, "additive", "collector")
    return (
        "**Attacked.** Whoever has a row asks at which site it is. A server in `plain` is right in "
        f"{_share(plain['value'])}, the collector of `additive` in {_share(blind['value'])} "
        f"(guessing: {_share(blind['chance'])}). Whether a row is in an exact sum of {rows} the "
        f"collector tells with AUC {seen['value']:.2f}. With ε = 8 the AUC is {noisy['value']:.2f}."
    )


def _measure(
    cells: list[dict[str, Any]], attack: str, rows: int, protocol: str, adversary: str
) -> dict[str, Any]:
    wanted = (attack, rows, "afl", protocol, adversary)
    keys = ("attack", "rows", "method", "protocol", "adversary")
    cell = next(c for c in cells if tuple(c[key] for key in keys) == wanted)
    found: dict[str, Any] = cell["measures"][0]
    return found


def _spread(points: dict[str, Any]) -> str:
    return f"{_percent(points['accuracy'])} ± {100 * points['deviation_of_runs']:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"
