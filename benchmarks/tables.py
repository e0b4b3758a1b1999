"""Render the documents' tables from `benchmarks/results/` and the registry; a test compares them.

python -m benchmarks.tables
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.headlines import headlines
from benchmarks.hospitals_tables import (
    hospitals_classes,
    hospitals_coefficients,
    hospitals_numbers,
)
from benchmarks.logistic import logistic_table
from benchmarks.methods_table import methods_table
from benchmarks.privacy_tables import one_sum_table, relations_table
from benchmarks.private_tables import (
    audits,
    private_accuracy,
    private_auc,
    private_balanced,
    private_costs,
    private_differences,
    private_guard,
    private_picking,
)
from benchmarks.rendering import markdown_table, read_results, sources_table
from benchmarks.speed_tables import peers_table, processes_table, speed_table, wire_table
from benchmarks.sums_tables import mixtures_table, sums_leakage_table

_ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    _ROOT / "README.md",
    _ROOT / "docs" / "figures.md",
    _ROOT / "docs" / "methods.md",
    _ROOT / "docs" / "privacy.md",
    _ROOT / "docs" / "private-figures.md",
    _ROOT / "docs" / "attacks.md",
    _ROOT / "docs" / "speed.md",
    _ROOT / "docs" / "tables.md",
)


def main() -> None:
    """Rewrite the documents' tables in place."""
    for document in DOCUMENTS:
        document.write_text(render(document.read_text(encoding="utf-8")), encoding="utf-8")


def render(text: str) -> str:
    """The text with every `<!-- table: name -->` … `<!-- end -->` filled in anew."""
    return re.sub(
        r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)",
        lambda found: found[1] + TABLES[found[2]]() + found[3],
        text,
        flags=re.DOTALL,
    )


def _federations() -> str:
    names = {
        "signs": "hand signs, 16 sites, MobileNet 128 px",
        "pneumonia": "PneumoniaMNIST, 10 clients, Dirichlet 0.1, MobileNet 96 px",
        "digits": "embedded digits, 10 clients, Dirichlet 0.1, projection 512",
    }
    rows = []
    for name, run in read_results("federation")["runs"].items():
        accuracy, sizes = run["accuracy"], run["bytes"]
        rows.append(
            [
                names[name],
                f"{run['examples']:,} × {run['feature_dim']}",
                "yes" if run["exact"] else "NO",
                _percent(accuracy["federated"]),
                _percent(accuracy["centralised_float"]),
                _percent(accuracy["local_mean"]),
                f"{sizes['upload_per_client'] / sizes['plain_float64_per_client']:.3f} ×",
            ]
        )
    head = ["", "rows × features", "exact", "federated", "central float", "each alone", "upload"]
    return markdown_table(head, rows)


def _personal() -> str:
    rows = []
    for name, readings in read_results("federation")["personal"].items():
        for reading, points in readings.items():
            rows.append(
                [
                    f"{name}, {reading}",
                    *(_percent(point["personal"]) for point in points),
                    _percent(points[0]["alone"]),
                ]
            )
    points = read_results("federation")["personal"]["digits"]["joint"]
    return markdown_table(["", *(f"α = {point['alpha']:g}" for point in points), "alone"], rows)


def _fedavg() -> str:
    results = read_results("fedavg")
    rows = []
    for name in ("signs", "pneumonia"):
        data = results[name]
        afl = data["afl"]
        target = afl["accuracy"]
        rows.append(
            [f"{name}: AFL", _percent(target), "1", _megabytes(afl["upload_bytes"]), "–", "–"]
        )
        for method, title in (("fedavg", "FedAvg"), ("fedsgd", "FedSGD")):
            run = data[method]
            until = run["until_reached"]
            rows.append(
                [
                    f"{name}: {title}",
                    ", ".join(f"{100 * share:.1f}" for share in run["final_accuracy"]) + " %",
                    str(run["curve"]["rounds"][-1]),
                    _megabytes(run["of_all_rounds"]["upload_bytes"]),
                    ", ".join("never" if at is None else str(at) for at in run["reached"]),
                    _megabytes(until["upload_bytes"]) if until else "–",
                ]
            )
    head = ["", "accuracy (3 seeds)", "rounds", "upload", "reaches AFL at round", "upload by then"]
    return markdown_table(head, rows)


def _heads() -> str:
    sets = read_results("heads")["sets"]
    rows = []
    for name, figures in sets.items():
        means = figures["means"]
        # What is best on test rows nobody could choose.
        open_to_all = [head for head in _HEADS if "best" not in head]
        best = max(open_to_all, key=lambda head: float(means[head]["balanced"]))
        cells = [f"{name} ({figures['splits']})"]
        for head in _HEADS:
            point = means[head]
            text = f"{point['accuracy']:.1f} ({point['balanced']:.1f})"
            cells.append(f"**{text}**" if head == best else text)
        rows.append(cells)
    gains = []
    for name, figures in sets.items():
        if not figures["paired"]:
            continue
        gain = figures["paired"]["lda observed"]
        written = (
            f"{gain[key]['mean']:+.1f} ({gain[key]['low']:+.1f} to {gain[key]['high']:+.1f})"
            for key in ("accuracy", "balanced")
        )
        gains.append([name, *written])
    table = markdown_table(["data (splits)", *_HEADS.values()], rows)
    columns = ["default less ridge λ = 0.1, paired, 95 %", "accuracy", "balanced"]
    return table + "\n" + markdown_table(columns, gains)


_HEADS = {
    "ridge 0.1": "ridge λ = 0.1",
    "ridge gcv": "ridge, GCV",
    "lda observed": "lda (default)",
    "lda uniform": "lda, uniform",
    "means": "means",
    "ridge, best λ on test": "best λ on test",
    "lda, best ρ on test": "best ρ on test",
    "scikit-learn logistic": "logistic, one place",
    "scikit-learn LDA": "LDA, one place",
}


def _ways() -> str:
    sets = read_results("personal")["sets"]
    ways = ["global", "prior", "auto", "proximal", "joint", "ridge, prior", "each alone"]
    rows = [
        [
            name,
            *(
                f"{figures[way]['accuracy']:.1f}"
                + ("" if way == "global" else f" ({figures[way]['clients_hurt']:.1f})")
                for way in ways
            ),
        ]
        for name, figures in sets.items()
    ]
    return markdown_table(["mean over clients (clients hurt)", *ways], rows)


def _prototypes() -> str:
    sets = read_results("prototypes")["sets"]
    names = list(next(iter(sets.values())))
    rows = [
        [
            name,
            *(f"{figures[own]['accuracy']:.1f} ± {figures[own]['reach']:.1f}" for own in names),
        ]
        for name, figures in sets.items()
    ]
    return markdown_table(["balanced accuracy", *names], rows)


def _heads_leakage() -> str:
    rows = [
        [
            f"{name}, {figures['members']:,} members",
            *(
                f"{own['auc']:.2f} ± {own['auc_reach']:.2f}, {own['single_row_cosine']:.2f}"
                for own in figures["heads"].values()
            ),
        ]
        for name, figures in read_results("heads_leakage")["sets"].items()
    ]
    first = next(iter(read_results("heads_leakage")["sets"].values()))
    return markdown_table(
        ["membership AUC from the model; cosine of a single row", *first["heads"]], rows
    )


def _heads_inversion() -> str:
    sets = read_results("heads_inversion")["sets"]
    rows = [
        [
            f"{name}, {figures['members']:,} members",
            *(
                f"{own['inverted_cosine']:.2f} ± {own['inverted_reach']:.2f} "
                f"({own['strangers_cosine']:.2f})"
                for own in figures["heads"].values()
            ),
        ]
        for name, figures in sets.items()
    ]
    first = next(iter(sets.values()))
    return markdown_table(["inverted single row (strangers of its class)", *first["heads"]], rows)


def _evaluation() -> str:
    results = read_results("evaluation")

    def yes(value: bool) -> str:
        return "yes" if value else "NO"

    rows = [
        [
            name,
            f"{own['rows']:,}",
            yes(own["sum_exact"] and own["confusion_equal"]),
            f"{100 * own['auc']:.3f} ({100 * own['auc_exact']:.3f})",
            f"{100 * own['greatest_auc_error']:.4f} ≤ {100 * own['greatest_auc_bound']:.4f}",
            f"{own['upload_evaluation'] / 1000:,.1f} + {own['upload_training'] / 1000:,.0f} kB",
        ]
        for name, own in results["exact"].items()
    ]
    exact = markdown_table(
        ["", "rows", "counts equal", "AUC (pooled rows)", "worst class off by", "upload"], rows
    )
    rows = [
        [
            name,
            f"{100 * own['accuracy_alone']:.1f}",
            f"{100 * own['accuracy_evaluated']:.1f}",
            f"{100 * own['counts_say']:.1f} ({100 * own['counts_low']:.1f} to "
            f"{100 * own['counts_high']:.1f})",
        ]
        for name, own in results["noisy"].items()
    ]
    noisy = markdown_table(
        ["one promise for all sums", "model alone", "with an evaluation", "its counts say"], rows
    )
    return f"{exact}\n{noisy}"


def _sessions() -> str:
    results = read_results("sessions")
    sizes = ["n=100", "n=1000", "n=10000"]

    def cells(size: float, cpu: float) -> str:
        time = f"{1000 * cpu:.2g} ms" if cpu < 0.1 else f"{cpu:.2g} s"
        return f"{_kilobytes(size)}, {time}"

    before = results["before"]
    rows = [
        ["version 0.1, the session alone"]
        + [cells(before[n]["session_bytes"], before[n]["session_cpu_seconds"]) for n in sizes]
    ]
    words = {"additive": "`additive`", "ckks": "`ckks`, its public key included"}
    for protocol in ("additive", "ckks", "pairwise"):
        found = [results[n][protocol] for n in sizes]
        rows.append(
            [words.get(protocol, "`pairwise`, everybody there to the end")]
            + [cells(one["sent_to_client_bytes"], one["client_cpu_seconds"]) for one in found]
        )
    thin = [f"+ {_kilobytes(results[n]['thin_list_bytes'])}" for n in sizes]
    rows.append(["the roster, where the client has another", *thin])
    return markdown_table(["", "100 clients", "1,000", "10,000"], rows)


def _additive() -> str:
    results = read_results("additive")
    rows = [
        [
            f"client, {point['ring_bits']}-bit ring",
            f"{point['split_and_seal']['ratio']:.1f} ×",
            f"packed vector + {point['bytes_over_packed'] / 1e3:.1f} kB",
            "–",
        ]
        for point in results["client"]
    ]
    streaming = results["streaming"]
    places = "collector", "other aggregator"
    for aggregator, place in zip(streaming["aggregators"], places, strict=True):
        memory = aggregator["peak_rss_mib"]
        rows.append(
            [
                f"{place}, {streaming['clients']:,} clients",
                f"{aggregator['ratio_wall']:.0f} × "
                f"({aggregator['ratio_without_spool']:.1f} × without the disk)",
                "–",
                f"{memory['after 10 uploads']:.0f} → {memory['end']:.0f} MiB",
            ]
        )
    return markdown_table(["", "time", "upload", "peak memory, 10 → all clients"], rows)


def _pairwise() -> str:
    results = read_results("pairwise")
    rows = []
    for threads, run in results["n=100, k=99"].items():
        rows.append(
            [
                f"100 clients, 99 neighbours, {threads.replace('1 threads', '1 thread')}",
                f"{run['client_ratio']:.2f} ×",
                f"{run['server_ratio']:.1f} ×",
                f"{run['sent_over_packed']:.4f} ×",
            ]
        )
    large = results["n=1000"]
    rows.append(
        [
            f"1,000 clients, {large['neighbours']} neighbours, 50 drop out",
            f"{large['client_seconds_median']:.2f} s",
            f"{large['server_seconds']:.1f} s",
            f"{large['sent_over_packed']:.4f} ×",
        ]
    )
    flower = results["beside Flower"]
    return markdown_table(["", "client", "server", "sent / packed vector"], rows) + (
        f"\nBeside the SecAgg+ client of Flower {flower['flower']['flwr']} at the same vector and "
        f"neighbours: {flower['client_cpu_ratio']:.0f} × less client CPU; largest error of "
        f"the sum {flower['ours_largest_error']} against {flower['flower_largest_error']:.1e}.\n"
    )


def _tune() -> str:
    cases = read_results("tune")["cases"]
    names = {
        "pneumonia": "PneumoniaMNIST",
        "pneumonia_public": "PneumoniaMNIST, public features",
        "digits": "embedded digits",
    }
    epsilons = [audit["epsilon"] for audit in cases["pneumonia"]["audits"]]
    rows = []
    for case, name in names.items():
        summaries = cases[case]["summaries"]
        exact = next(s for s in summaries if s["kind"] == "exact")
        ours = [s for s in summaries if s["kind"] == "private"]
        peers = [s for s in summaries if s["kind"] == "dp-sgd"]
        best = [
            max((s for s in peers if s["epsilon"] == epsilon), key=lambda s: float(s["accuracy"]))
            for epsilon in epsilons
            if peers
        ]
        for kind, line in (("AFL", ours), ("DP-SGD", best)):
            if not line:
                continue
            seconds = sum(s["seconds"] for s in line) / len(line)
            rows.append(
                [
                    f"{name}: {kind}",
                    *(_percent(s["accuracy"]) for s in line),
                    _percent(exact["accuracy"]) if kind == "AFL" else "",
                    f"{seconds:.1f}",
                ]
            )
    return markdown_table(["", *(f"ε = {e:g}" for e in epsilons), "no privacy", "seconds"], rows)


def _privacy() -> str:
    results = read_results("privacy")
    variance = results["variance"]
    lines = [
        f"Noise costs a client {results['client_noise']['seconds_per_million']:.2f} s per million "
        "entries. Variance of the noise that nobody knows, over the calibrated one, from 5,120 "
        "draws or more (2 of 10 may drop out, 2 collude): "
        + "; ".join(
            f"{word} {min(ratios.values()):.2f} to {max(ratios.values()):.2f}"
            for word, ratios in (
                ("when all of that happens", variance["worst_promised"]),
                ("when nothing does", variance["nobody_fails"]),
            )
        )
        + ".\n\n"
    ]
    audits = [
        [
            f"{audit['neighbours']}, ε = {audit['epsilon']:g}",
            f"{audit['lower_bound']:.2f}",
            f"{audit['tests']:,}",
            "no" if audit["lower_bound"] <= audit["epsilon"] else "YES",
        ]
        for audit in results["audits"]
    ]
    broken = [
        [
            f"{name}, promised ε = {audit['promised']:g}",
            f"{audit['lower_bound']:.2f}",
            f"{audit['tests']:,}",
            "yes" if audit["flagged"] else "NO",
        ]
        for name, audit in results["mutations"].items()
    ]
    head = ["audit, worst promised case", "ε is at least (99.9 %)", "canaries", "flagged"]
    return "".join(lines) + markdown_table(head, audits + broken)


def _leakage() -> str:
    results = read_results("leakage")
    views = {
        "plain: server": ("plain", "server"),
        "additive: collector": ("additive", "collector"),
        "additive: all": ("additive", "all-aggregators"),
        "pairwise: server": ("pairwise", "server"),
        "ckks: key holder": ("ckks", "key-holder"),
        "ckks: with server": ("ckks", "server-and-key-holder"),
    }
    most = max(cell["rows"] for cell in results["cells"])
    lines = [
        ("class-counts", 40),
        ("single-rows", 40),
        ("rows-non-negative", 40),
        ("rows-lattice", 40),
        ("rows-lattice", most),
        ("client-statistics", most),
        ("membership-leverage", most),
        ("membership-model", most),
        ("attribution", most),
        ("uniformity", most),
    ]

    def value(cells: list[dict[str, Any]], attack: str, rows: int, view: tuple[str, str]) -> str:
        for cell in cells:
            place = (cell["attack"], cell["rows"], cell["method"], cell["protocol"])
            if (*place, cell["adversary"]) == (attack, rows, "afl", *view):
                return f"{cell['measures'][0]['value']:.2f}" if cell["claimed"] else "–"
        return ""

    table = []
    for attack, rows in lines:
        there = [c for c in results["cells"] if (c["attack"], c["rows"]) == (attack, rows)]
        metric = next(c["measures"][0]["metric"] for c in there if c["measures"])
        exact = [value(results["cells"], attack, rows, view) for view in views.values()]
        noisy = value(results["noisy"], attack, rows, views["additive: collector"])
        table.append([f"{attack}, n = {rows}: {metric}", *exact, noisy])
    minutes = results["seconds"] / 60
    return markdown_table(["", *views, "collector, ε = 8"], table) + (
        f"\n{len(results['cells'])} cells in {minutes:.0f} minutes on one core; n rows of 16 sites "
        "in the sum, – is nothing to attack.\n"
    )


def _rebuild() -> str:
    results = read_results("rebuild")

    def cell(measures: dict[str, Any], metric: str, percent: bool) -> str:
        measure = measures.get(metric)
        if measure is None or not measure["trials"]:
            return "–"
        value, low, high = (measure[end] for end in ("value", "low", "high"))
        if percent:
            return f"{100 * value:.0f} % ({100 * low:.0f}–{100 * high:.0f})"
        return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"

    rows = []
    for column in results["columns"]:
        measures = {measure["metric"]: measure for measure in column["decoder"]}
        rows.append(
            [
                column["title"],
                cell(measures, "retrieval@1", True),
                cell(measures, "retrieval@5", True),
                cell(measures, "PSNR over the mean image, dB", False),
            ]
        )
    head = ["seen by", "found again, first", "among the first five", "dB over the mean image"]
    return markdown_table(head, rows)


def _inversion() -> str:
    results, prior = read_results("inversion"), read_results("gradient_prior")
    raw, plain = results["raw_gradients"], results["fedsgd_plain"]
    blind, published = results["fedsgd_blind_sum"], results["published"]

    def decibels(measures: list[dict[str, Any]], metric: str = "PSNR, dB") -> str:
        one = next(measure for measure in measures if measure["metric"] == metric)
        return f"{one['value']:.1f} ({one['low']:.1f} to {one['high']:.1f})"

    def over_mean(measures: list[dict[str, Any]]) -> str:
        return decibels(measures, "PSNR over the mean image, dB")

    linear = raw["linear_layer"]
    rows = [
        [
            "dense layer, raw gradient (Phong et al. 2018)",
            f"≥ {linear['least_psnr_db']:.0f} on {linear['psnr']['trials']} of 50",
            "",
            published["linear_layer"]["psnr_db"],
        ]
    ]
    named = {
        "DLG, LeNet, raw gradient": (raw["dlg_lenet"], "dlg"),
        "Inverting Gradients, LeNet, raw gradient": (
            raw["inverting_gradients_lenet"],
            "inverting_gradients",
        ),
        "linear head, FedSGD upload in plain": (plain["linear_head/gradient-linear"], None),
        "DLG, ConvNet, FedSGD upload in plain": (plain["convnet/gradient-dlg"], None),
        "Inverting Gradients, ConvNet, upload in plain": (plain["convnet/gradient-cosine"], None),
        "linear head, blind sum of 10, three classes absent": (
            blind["linear_head/gradient-linear"],
            None,
        ),
        "linear head, blind sum of 10, one of each class": (
            results["fedsgd_blind_sum_of_all_classes"]["linear_head/gradient-linear"],
            None,
        ),
        "Inverting Gradients, ConvNet, blind sum of 10": (blind["convnet/gradient-cosine"], None),
    }
    for name, (found, source) in named.items():
        measures = found["measures"]
        theirs = published[source]["psnr_db"] if source else ""
        rows.append([name, decibels(measures), over_mean(measures), theirs])
    closed = prior["r_gap"]["float32"]
    rows.append(
        [
            "R-GAP, its own network, float32",
            f"≥ {closed['least_psnr_db']:.0f} on {closed['images']} of 20",
            "",
            published["r_gap"]["psnr_db"],
        ]
    )
    table = markdown_table(["attack", "PSNR, dB", "over the mean image", "published"], rows)
    gains = [
        [f"{title}, noise {noise} × the gradient's", *_gain(prior[network]["gains"], noise)]
        for network, title in (("lenet", "LeNet"), ("convnet", "ConvNet"))
        for noise in ("0", "1")
    ]
    head = ["gain of a generative prior, dB", "over pixels with TV", "of its feature maps"]
    return table + "\n" + markdown_table(head, gains)


def _gain(gains: dict[str, list[float]], noise: str) -> list[str]:
    kinds = ("the better of them for each image", "latent only")
    triples = (gains[f"noise {noise}, {kind}"] for kind in kinds)
    return [f"{value:+.1f} ({low:+.1f} to {high:+.1f})" for value, low, high in triples]


def _ckks() -> str:
    results = read_results("ckks")
    beside = results["beside_tenseal_ckks_vector"]
    sessions = results["sessions"]
    rows = [
        [
            "this project's `ckks`",
            _megabytes(beside["ours_bytes"]),
            f"{beside['ours_seconds']:.2f} s",
            f"{beside['ours_largest_error']:g}",
            "0 of 100",
        ],
        [
            "TenSEAL's `ckks_vector`",
            _megabytes(beside["peer_bytes"]),
            f"{beside['peer_seconds']:.2f} s",
            f"{beside['peer_largest_error']:.0e}",
            f"{beside['peer_keys_recovered_of_10']} of 10",
        ],
    ]
    table = markdown_table(["", "upload", "client", "largest error", "key recovered"], rows)
    cost = (
        f"\nIn a session of 10 clients the key holder takes "
        f"{sessions['ckks']['coordinator_seconds']['key_holder']:.1f} s verified, "
        f"{sessions['ckks_unverified']['coordinator_seconds']['key_holder']:.1f} s unverified, "
        f"{sessions['bfv']['coordinator_seconds']['key_holder']:.1f} s with `bfv`.\n\n"
    )
    attacks = {name: found for name, found in results["attacks"].items() if name != "sessions_each"}
    head = ["attack, successes of 100", "naive", "unverified", "verified"]
    return (
        table
        + cost
        + markdown_table(
            head,
            [
                [name, *(str(found[kind]) for kind in ("naive", "unverified", "verified"))]
                for name, found in attacks.items()
            ],
        )
    )


def _layers() -> str:
    cases = read_results("layers")["cases"]
    names = {
        "digits": "digits 8 px, 10 clients, Dirichlet 0.1",
        "signs": "hand signs 32 px, 16 sites",
        "pneumonia": "PneumoniaMNIST 28 px, 10 clients",
    }
    rows = []
    for name, found in cases.items():
        least = found["fedacnnl"]["cpu_seconds"]
        for method, figures in found.items():
            if not isinstance(figures, dict):
                continue
            accuracy = _percent(figures["accuracy"])
            if figures.get("deviation"):
                accuracy += f" ± {100 * figures['deviation']:.1f}"
            if figures.get("reached") is False:
                accuracy += f" (best {_percent(figures['best'])})"
            title = f"{names[name]}: {method}" if method == "fedacnnl" else method
            rows.append(
                [
                    title,
                    accuracy,
                    str(figures.get("sums") or figures["rounds"]),
                    _megabytes(figures["upload_per_client"]),
                    f"{figures['cpu_seconds']:.1f} s",
                    f"{figures['cpu_seconds'] / least:.1f} ×",
                ]
            )
    return markdown_table(
        ["", "accuracy", "sums", "upload", "CPU, all parties", "of FedACnnL's"], rows
    )


def _layers_private() -> str:
    results = read_results("layers_private")
    rows = [
        [title, *(f"{_percent(p['accuracy'])} ± {100 * p['deviation']:.1f}" for p in by.values())]
        for title, by in results["pneumonia"].items()
    ]
    rows.append(
        ["audit of both sums: ε is at least"]
        + [f"{found['lower_bound']:.2f}" for found in results["audit"].values()]
    )
    own = []
    for deal, ways in results["personal"].items():
        for way, found in ways.items():
            gains = [100 * gain for gain in found["gains"]]
            own.append(
                [
                    f"{deal}: {way}",
                    _percent(found["global"]),
                    _percent(found["own"]),
                    f"{sum(gains) / len(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})",
                ]
            )
    private = markdown_table(["PneumoniaMNIST, unit example, δ = 1e-5", "ε = 1", "ε = 8"], rows)
    head = ["", "FedACnnL", "pFedACnnL", "gain (least to greatest)"]
    return private + "\n" + markdown_table(head, own)


def _layers_leakage() -> str:
    results = read_results("layers_leakage")
    columns = [
        ("1 image", "cells", "plain", 5),
        ("5, blind", "cells", "additive", 5),
        ("40, blind", "cells", "additive", 40),
        ("718, blind", "cells", "additive", 718),
        ("5, ε = 8", "noisy", "additive", 5),
        ("718, ε = 8", "noisy", "additive", 718),
    ]
    rows = []
    for attack, metric in (
        ("layer-images", "image correlation"),
        ("layer-images", "images recovered"),
        ("layer-membership", "AUC"),
        ("membership-leverage", "AUC"),
    ):
        cells = []
        for _, kind, protocol, number in columns:
            values = [
                measure["value"]
                for cell in results[kind]
                if (cell["attack"], cell["protocol"], cell["rows"]) == (attack, protocol, number)
                for measure in cell["measures"]
                if measure["metric"] == metric
            ]
            cells.append(f"{sum(values) / len(values):.2f}" if values else "–")
        rows.append([f"{attack}: {metric}", *cells])
    return markdown_table(["", *(title for title, *_ in columns)], rows)


def _kilobytes(size: float) -> str:
    return f"{size / 1000:,.3g} kB" if size < 1e6 else _megabytes(size)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.2f} MB"


def _gram() -> str:
    gram = read_results("gram")
    peaks = " and ".join(
        f"{size / 1e6:.0f} MB at {int(rows):,} rows" for rows, size in gram["peak_bytes"].items()
    )
    return (
        f"Quantising {gram['rows']:,} × {gram['dim']} rows and forming their exact statistics "
        f"takes {gram['times']['one thread']['ratio']:.2f} × the CPU time of one `dsyrk` of the "
        f"same product with one thread, {gram['times']['all cores']['ratio']:.2f} × with all "
        f"cores. Peak memory is {peaks}.\n"
    )


def _regression() -> str:
    rows = []
    for case in read_results("regression")["cases"]:
        epsilon = "none" if case["epsilon"] is None else f"ε = {case['epsilon']:g}"
        known = "covered" in case
        rows.append(
            [
                f"{case['columns']} × {case['rows']:,}, {epsilon}",
                str(case["with_intervals"]),
                f"{100 * case['covered']:.1f} %" if known else "–",
                f"{100 * case['least_covered']:.1f} %" if known else "–",
                f"{case['width']:.3f}" if known else "–",
            ]
        )
    head = ["columns × rows, noise", "with intervals", "covered", "least of a coefficient", "width"]
    return markdown_table(head, rows)


def _patients() -> str:
    rows = []
    for name, case in read_results("patients")["cases"].items():
        exact = case["exact"]
        error = 100 * exact["error_of_test_people"]
        about = f"{name}, without noise: {case['rows']:,} rows of {case['patients']} patients"
        rows.append([about, *[f"{_percent(exact['accuracy'])} (± {error:.1f})"] * 2])
        for method, units in case["methods"].items():
            for unit, by in units.items():
                cells = [
                    f"{_percent(p['accuracy'])} ± {100 * p['deviation_of_runs']:.1f} "
                    f"(± {100 * p['error_of_test_people']:.1f})"
                    for p in by.values()
                ]
                rows.append([f"{name}, {method}, unit {unit}", *cells])
    return markdown_table(["", "ε = 1", "ε = 8"], rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _private_logistic() -> str:
    """Render how often intervals of noisy logistic regression hold the truth."""
    rows = []
    for name, own in read_results("private_logistic")["sizes"].items():
        cells = [name, str(own["given"])]
        if own["given"]:
            cells += [f"{own['covered']:.1%}", f"{own['least']:.1%}", f"{own['width']:.3f}"]
        else:
            cells += ["–"] * 3
        rows.append(cells)
    head = ["columns × rows, noise", "with intervals", "covered", "least of a coefficient", "width"]
    return markdown_table(head, rows)


TABLES: dict[str, Callable[[], str]] = {
    "sources": sources_table,
    "federations": _federations,
    "personal": _personal,
    "headlines": headlines,
    "heads": _heads,
    "logistic": logistic_table,
    "ways": _ways,
    "heads_leakage": _heads_leakage,
    "heads_inversion": _heads_inversion,
    "evaluation": _evaluation,
    "prototypes": _prototypes,
    "sessions": _sessions,
    "additive": _additive,
    "attack_processes": processes_table,
    "audits": audits,
    "ckks": _ckks,
    "fedavg": _fedavg,
    "pairwise": _pairwise,
    "gram": _gram,
    "inversion": _inversion,
    "layers": _layers,
    "layers_leakage": _layers_leakage,
    "layers_private": _layers_private,
    "leakage": _leakage,
    "methods": methods_table,
    "mixtures": mixtures_table,
    "patients": _patients,
    "regression": _regression,
    "one_sum": one_sum_table,
    "relations": relations_table,
    "privacy": _privacy,
    "private_accuracy": private_accuracy,
    "private_auc": private_auc,
    "private_balanced": private_balanced,
    "private_costs": private_costs,
    "private_differences": private_differences,
    "private_guard": private_guard,
    "private_picking": private_picking,
    "rebuild": _rebuild,
    "private_logistic": _private_logistic,
    "hospitals_classes": hospitals_classes,
    "hospitals_coefficients": hospitals_coefficients,
    "hospitals_numbers": hospitals_numbers,
    "speed": speed_table,
    "speed_peers": peers_table,
    "speed_wire": wire_table,
    "sums_leakage": sums_leakage_table,
    "tune": _tune,
}


if __name__ == "__main__":
    main()
