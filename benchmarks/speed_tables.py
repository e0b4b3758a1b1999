"""The table of docs/speed.md, from `benchmarks/results/speed.json`."""

from typing import Any

from benchmarks.rendering import read_results

_PEERS = {
    "afl_numpy": "AFL in NumPy",
    "dsyrk": "one `dsyrk`",
    "aes": "its AES stream",
}
_PROCESSES = {
    "help": "`secure-afl --help`",
    "run_help": "`secure-afl run --help`",
    "party": "imports of a site's party",
    "party_terms": "and its method and protocol",
    "cached_run": "a run, 1,633 cached features, 16 sites",
}
_CALLS = {
    "statistics_100_8": ("statistics, 100 × 1024, 8 bits", "afl_numpy"),
    "statistics_100_12": ("statistics, 100 × 1024, 12 bits", "afl_numpy"),
    "statistics_25000_8": ("statistics, 25,000 × 1024, 8 bits", "dsyrk"),
    "noise_2": ("noise, 10⁶ draws, σ = 2", "aes"),
    "noise_1000": ("noise, 10⁶ draws, σ = 1000", "aes"),
    "noise_1e9": ("noise, 10⁶ draws, σ = 10⁹", "aes"),
    "federation": ("simulation, 16 × 100 rows, with its scores", "afl_numpy"),
}


def speed_table() -> str:
    """Every item of `benchmarks.speed` before and after, and beside its limit or peer."""
    found = read_results("speed")
    items: dict[str, Any] = found["items"]
    floor = items["floor"]["after"]
    rows = [_row(title, items[name], memory=True) for name, title in _PROCESSES.items()]
    rows += [
        _row(title, items[name], memory=False, beside=peer)
        for name, (title, peer) in _CALLS.items()
    ]
    head = ["", "before", "after", "faster", "memory", "beside its limit or peer"]
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + (
        f"\nNumPy, msgspec and HPKE alone take {_milliseconds(floor['cpu_seconds'])} and "
        f"{floor['peak_megabytes']:.0f} MB to import.\n"
    )


def _row(title: str, item: dict[str, Any], memory: bool, beside: str = "") -> list[str]:
    before, after = item["before"], item["after"]
    key = "cpu_seconds" if memory else "ours"
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
