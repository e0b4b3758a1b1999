"""The tables of docs/speed.md, from `benchmarks/results/speed.json` and those of peers."""

from typing import Any

from benchmarks.rendering import read_results

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
    """What parties take beside other software and beside what cannot be avoided."""
    speed = read_results("speed")["items"]
    run, ckks = speed["federation"]["after"], read_results("ckks")["beside_tenseal_ckks_vector"]
    noise, pairwise = read_results("noise"), read_results("pairwise")["beside Flower"]
    opendp = min(point["times_as_fast_as_opendp"] for point in noise["sigmas"].values())
    parties = run["ours"] - run["scores"] - run["oracle"]
    rows = [
        ["client's statistics, 100 × 1024", "AFL in NumPy", _beside(speed["statistics_100_8"])],
        ["the same, 25,000 × 1024", "one `dsyrk`", _beside(speed["statistics_25000_8"], "dsyrk")],
        ["all parties, 16 × 100 rows", "AFL in NumPy", _times(parties / run["afl_numpy"])],
        ["the same, with scores and oracle", "AFL in NumPy", _beside(speed["federation"])],
        [
            "`additive` client, 530,000 entries",
            "one AES pass and one addition",
            _beside(speed["additive"], "bound", "client"),
        ],
        [
            "`pairwise` client, 100 clients, CPU",
            f"SecAgg+ in Flower {pairwise['flower']['flwr']}",
            _times(1 / pairwise["client_cpu_ratio"]),
        ],
        ["`ckks` encryption", "TenSEAL's `ckks_vector`", _times(ckks["ratio"])],
        [
            "noise, any σ measured",
            f"OpenDP {noise['opendp']}",
            f"≤ {_times(1 / opendp)}",
        ],
    ]
    head = ["", "peer or limit", "time"]
    lines = [head, ["---", "---", "--:"], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _beside(item: dict[str, Any], peer: str = "afl_numpy", key: str = "ours") -> str:
    return _times(item["after"][key] / item["after"][peer])


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
