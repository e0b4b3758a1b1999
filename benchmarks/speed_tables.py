"""The tables of docs/speed.md, from `benchmarks/results/speed.json` and those of peers."""

from collections.abc import Callable
from typing import Any

from benchmarks.rendering import markdown_table, read_results

_PEERS = {
    "afl_numpy": "AFL in NumPy",
    "dsyrk": "one `dsyrk`",
    "aes": "its AES stream",
    "bound": "one AES pass and one addition",
}
_PROCESSES = {
    "help": "`secure-afl --help`",
    "run_help": "`secure-afl run --help`",
    "party": "imports of a site's party",
    "party_terms": "and its method and protocol",
    "cached_run": "a run, 1,633 cached features, 16 sites",
    "ten_thousand": "a run, 10⁴ clients of 64 features",
}
# Item, figure, and what it is beside.
_CALLS = {
    "statistics, 100 × 1024, 8 bits": ("statistics_100_8", "ours", "afl_numpy"),
    "statistics, 100 × 1024, 12 bits": ("statistics_100_12", "ours", "afl_numpy"),
    "statistics, 25,000 × 1024, 8 bits": ("statistics_25000_8", "ours", "dsyrk"),
    "noise, 10⁶ draws, σ = 2": ("noise_2", "ours", "aes"),
    "noise, 10⁶ draws, σ = 1000": ("noise_1000", "ours", "aes"),
    "noise, 10⁶ draws, σ = 10⁹": ("noise_1e9", "ours", "aes"),
    "`additive`, 530,000 entries: client": ("additive", "client", "bound"),
    "and its collector, a client": ("additive", "collector", "bound"),
    "and its other aggregator, a client": ("additive", "aggregator_1", "bound"),
    "simulation, 16 × 100 rows, with its scores": ("federation", "ours", "afl_numpy"),
}


def speed_table() -> str:
    """Every item of `benchmarks.speed` before and after, and beside its limit or peer."""
    found = read_results("speed")
    items: dict[str, Any] = found["items"]
    floor = items["floor"]["after"]
    rows = [_row(title, items[name], memory=True) for name, title in _PROCESSES.items()]
    rows += [
        _row(title, items[name], memory=False, key=key, beside=peer)
        for title, (name, key, peer) in _CALLS.items()
    ]
    head = ["", "before", "after", "faster", "memory", "beside its limit or peer"]
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + (
        f"\nNumPy, msgspec and HPKE alone take {_milliseconds(floor['cpu_seconds'])} and "
        f"{floor['peak_megabytes']:.0f} MB to import.\n"
    )


def peers_table() -> str:
    """Parties beside other software and beside what cannot be avoided, all of one run."""
    found = read_results("speed_peers")
    rows, versions = found["rows"], found["versions"]
    run, additive, thousands = rows["federation"], rows["additive"], rows["ten_thousand"]
    parties = run["ours"] - run["scores"] - run["oracle"]
    ckks, fedavg, noise = rows["ckks"], rows["fedavg"], rows["noise"].values()
    slowest = max(noise, key=lambda point: float(point["ratio"]))
    numpy, units = "AFL in NumPy", "one AES pass and one addition"
    lines = [
        _peer("client's statistics, 100 × 1024", numpy, rows["statistics_100"], "afl_numpy", "0.6"),
        _peer("the same, 25,000 × 1024", "one `dsyrk`", rows["statistics_25000"], "dsyrk"),
        _peer("all parties, 16 × 100 rows", numpy, run | {"ours": parties}, "afl_numpy", "1.1"),
        _peer("the same, with scores and oracle", numpy, run, "afl_numpy"),
        _peer("a client's upload", f"{numpy}, float64", run["bytes"], "afl_numpy", "0.253", _bytes),
        *(
            _peer(title, units, additive | {"ours": additive[party]}, "bound", limit)
            for title, party, limit in (
                ("`additive` client, 530,000 entries", "client", ""),
                ("its collector, an upload, in memory", "collector", ""),
                ("its other aggregator, an upload, in memory", "aggregator_1", "2"),
            )
        ),
        *_disk(rows["durable"]),
        _peer(
            "`pairwise` client, 100 clients",
            f"SecAgg+ in Flower {versions['flwr']}",
            rows["pairwise"],
            "flower",
        ),
        _peer(
            "100 signatures, in a pool of two threads",
            "in one thread",
            {"ours": rows["signatures"]["pooled_cpu"], "peer": rows["signatures"]["serial_cpu"]},
            "peer",
        ),
        _peer(
            "`ckks` encryption of 535,050 entries",
            f"`ckks_vector` of TenSEAL {versions['tenseal']}",
            {"ours": ckks["ours_seconds"], "peer": ckks["peer_seconds"]},
            "peer",
        ),
        _peer("a draw of noise, any σ measured", f"OpenDP {versions['opendp']}", slowest, "opendp"),
        _peer(
            "one round of AFL, hand signs, 16 sites",
            f"FedAvg until as accurate, {fedavg['reached']} rounds",
            fedavg,
            "fedavg",
        ),
        _peer(
            "and a client's bytes, up and down",
            f"FedAvg until as accurate, {fedavg['reached']} rounds",
            fedavg["bytes"],
            "fedavg",
            show=_bytes,
        ),
    ]
    head = ["", "peer or limit", "ours", "peer's", "ratio", "wanted"]
    table = [head, ["---", "---", *["--:"] * 4], *lines]
    load = found["machine"]["load_average"]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in table) + (
        f"\nTen thousand clients of 64 features in one process take "
        f"{thousands['cpu_seconds']:.1f} s and {thousands['peak_bytes'] / 1e9:.2f} GB in the same "
        f"run; 39 s are wanted. The load of the machine, which has "
        f"{found['machine']['cores']} cores, was {load['before']:.1f} before and "
        f"{load['after']:.1f} after.\n"
    )


def _peer(
    title: str,
    peer: str,
    point: dict[str, Any],
    against: str,
    wanted: str = "",
    show: Callable[[float], str] | None = None,
) -> list[str]:
    ours, theirs = float(point["ours"]), float(point[against])
    show = show or _duration
    limit = f"≤ {wanted} ×" if wanted else "–"
    return [title, peer, show(ours), show(theirs), _times(ours / theirs), limit]


def _disk(durable: dict[str, Any]) -> list[list[str]]:
    """An aggregator's upload beside writing the same bytes and waiting for the disk."""
    parties = {"collector": ("its collector", "3"), "aggregator_1": ("its other aggregator", "")}
    rows = []
    for party, (title, limit) in parties.items():
        for way, where in (("spool", "spool in files"), ("seat", "seat")):
            for clock, what in (("wall", "wall"), ("cpu", "CPU")):
                point = {"ours": durable[party][way][clock], "peer": durable[party]["write"][clock]}
                wanted = limit if clock == "wall" else ""
                name = f"{title}, an upload, {where}, {what}"
                rows.append(_peer(name, "write and fsync", point, "peer", wanted))
    return rows


def _duration(seconds: float) -> str:
    if seconds < 1e-4:
        return f"{1e9 * seconds:,.0f} ns"
    return _milliseconds(seconds)


def _bytes(size: float) -> str:
    return f"{size / 1e6:.2f} MB"


def _times(ratio: float) -> str:
    return f"{ratio:.2f} ×" if ratio >= 0.01 else f"{ratio:.4f} ×"


def _row(
    title: str, item: dict[str, Any], memory: bool, key: str = "cpu_seconds", beside: str = ""
) -> list[str]:
    before, after = item["before"], item["after"]
    megabytes = [f"{v['peak_megabytes']:.0f} MB" if memory else "–" for v in (before, after)]
    limit = "–"
    if beside:
        ratios = (v[key] / v[beside] for v in (before, after))
        limit = " → ".join(f"{ratio:.2f}" for ratio in ratios) + f" × {_PEERS[beside]}"
    return [
        title,
        _milliseconds(before[key]),
        _milliseconds(after[key]),
        f"{before[key] / after[key]:.1f} ×",
        " → ".join(megabytes) if memory else "–",
        limit,
    ]


def _milliseconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"


def wire_table() -> str:
    """Every case of `benchmarks.speed_wire`: uploads in units of one AES-CTR pass and one sum."""
    head = ["", "before", "after", "less CPU", "without SHA-256 and keys", "memory, first call"]
    lines = [head, ["---"] + ["--:"] * (len(head) - 1)]
    for case in read_results("speed_wire")["cases"]:
        both = case["before"], case["after"]
        before, after = (
            (v["upload"] / v["bound"], (v["upload"] - v["fixed"]) / v["bound"]) for v in both
        )
        # The version before hashed the body twice.
        hashed = [times * v["sha"] / v["bound"] for times, v in zip((2, 1), both, strict=True)]
        settled = case["when"] == "settled"
        when = "heap settled" if settled else "first call of a process"
        peaks = (f"{v['peak_megabytes']:.0f} MB" for v in both)
        lines.append(
            [
                f"{case['entries']:,} entries, {case['ring_bits']} bits, {when}",
                f"{before[0]:.1f} ×",
                f"{after[0]:.1f} ×",
                f"{both[0]['upload'] / both[1]['upload']:.2f} ×",
                f"{before[1] - hashed[0]:.2f} → {after[1] - hashed[1]:.2f} ×",
                "–" if settled else " → ".join(peaks),
            ]
        )
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def processes_table() -> str:
    """`attack --quick` by the number of processes."""
    found = read_results("attack_processes")
    rows = []
    for processes in ("1 processes", "2 processes"):
        run = found[processes]
        before, after = run["load_average"]
        rows.append(
            [
                processes.replace("1 processes", "1 process"),
                f"{run['wall_seconds']:.0f} s",
                f"{run['cpu_seconds']:.0f} s",
                f"{run['peak_megabytes_of_a_process']:.0f} MB",
                f"{before:.1f} → {after:.1f}",
            ]
        )
    head = [f"{found['cells']} cells", "wall", "CPU", "most memory of a process", "load"]
    return markdown_table(head, rows)
