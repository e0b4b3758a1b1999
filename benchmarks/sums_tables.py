"""Tables of what single sums give away: mixtures of rows, sums by class, adapters' updates."""

from collections.abc import Mapping
from typing import Any

from benchmarks.rendering import markdown_table, read_results

_MIXTURES = (0.25, 1.0, 4.0)


def mixtures_table() -> str:
    """Render accuracy and membership by size and number of mixtures, and beside plain rows."""
    sets = read_results("mixtures")["sets"]
    sizes = list(dict.fromkeys(name.split(", ")[0] for name in _ways(sets) if "rows" not in name))
    head = [
        "rows of a mixture",
        *(f"{name}: {number:g} a row" for name in sets for number in _MIXTURES),
    ]
    mixed = [
        [size, *(_told(own["ways"][f"{size}, {n:g}"]) for own in sets.values() for n in _MIXTURES)]
        for size in sizes
    ]
    shares = [name for name in _ways(sets) if name.startswith("rows")]
    plain = [[name, *(_told(own["ways"][share]) for share in shares)] for name, own in sets.items()]
    titles = [f"{100 * float(share.split(', ')[1]):g} %" for share in shares]
    small = [
        [
            name,
            *(f"{own['mixtures']:.2f}, {own['rows']:.2f}, {own['cosine']:.2f}" for own in found),
        ]
        for name, found in ((n, list(own["small"].values())) for n, own in sets.items())
    ]
    sums = list(next(iter(sets.values()))["small"])
    of = ["rows" if s == "rows" else "of {}, {} a row".format(*s.split(", ")) for s in sums]
    return (
        f"{markdown_table(head, mixed)}\n"
        f"{markdown_table(['plain rows, a share of them', *titles], plain)}\n"
        f"{markdown_table(['40 rows: mixtures exact, rows exact, cosine', *of], small)}"
    )


def sums_leakage_table() -> str:
    """Render what is told of members, single rows, labels and images, by clients in the sum."""
    results = read_results("sums_leakage")
    titles = {"1": "1 client", "3": "3, blind", "10": "10, blind"}
    rows = []
    for name, found in results["by_class"].items():
        rows.append([f"{name}: membership AUC", *(_mean(found[n], "auc") for n in titles)])
        for key, title in (
            ("single_cosine", "cosine of a single row"),
            ("guess_cosine", "that of its class's public mean"),
        ):
            rows.append([f"{name}: {title}", *(_mean(found[n], key) for n in titles)])
    adapters = results["adapters"]
    for each in dict.fromkeys(key.split(", ")[0] for key in adapters):
        of = f"adapters, {each} row{'' if each == '1' else 's'} a client"
        for key, title in (
            ("labels", "labels right"),
            ("labels_chance", "of labels drawn at random"),
            ("embedding", "cosine of an embedding"),
            ("image", "correlation of images"),
            ("guess", "that of the class's mean image"),
        ):
            cells = [_mean(adapters[f"{each}, {n}"], key) for n in titles]
            if any(cell != "–" for cell in cells):
                rows.append([f"{of}: {title}", *cells])
    return markdown_table(["", *titles.values()], rows)


def _ways(sets: Mapping[str, Any]) -> list[str]:
    return list(next(iter(sets.values()))["ways"])


def _told(own: Mapping[str, float]) -> str:
    """Write accuracy, and the AUC of the better attack."""
    auc = max(own["membership-subspace"], own["membership-leverage"])
    return f"{own['accuracy']:.1f} ± {own['reach']:.1f}, {auc:.2f}"


def _mean(own: Mapping[str, Mapping[str, float]], key: str) -> str:
    return f"{own[key]['mean']:.2f} ± {own[key]['reach']:.2f}" if key in own else "–"
