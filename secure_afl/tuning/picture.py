"""The picture of a sweep: accuracy against ε, and the audited lower bounds."""

import math
from collections.abc import Sequence
from pathlib import Path

from secure_afl.errors import ConfigError
from secure_afl.tuning.outcomes import Outcome, Summary, summarise


def draw(outcomes: Sequence[Outcome], file: Path) -> None:
    """Draw accuracy against ε with 95 % bands, and the audited lower bounds.

    A setting of one seed has no band.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise ConfigError("the picture needs matplotlib: pip install 'secure-afl[tune]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    audits = [outcome for outcome in outcomes if outcome.lower_bound is not None]
    panels = 2 if audits else 1
    figure, axes = plt.subplots(
        1,
        panels,
        figsize=(9.6 if audits else 6.4, 4.4),
        width_ratios=(3, 2)[:panels],
        squeeze=False,
    )
    accuracy = axes[0, 0]
    curves: dict[str, list[Summary]] = {}
    for summary in summarise(outcomes):
        curves.setdefault(summary.label, []).append(summary)
    for name, curve in curves.items():
        if curve[0].epsilon is None:
            accuracy.axhspan(*_band(curve[0]), color="0.9")
            accuracy.axhline(100 * curve[0].accuracy, color="0.4", linestyle="--", label=name)
            continue
        epsilons = [summary.epsilon for summary in curve]
        middle = [100 * summary.accuracy for summary in curve]
        style = "s:" if curve[0].kind == "dp-sgd" else "o-"
        (line,) = accuracy.plot(epsilons, middle, style, markersize=4, label=name)
        accuracy.fill_between(
            epsilons,
            [_band(summary)[0] for summary in curve],
            [_band(summary)[1] for summary in curve],
            color=line.get_color(),
            alpha=0.15,
            linewidth=0,
        )
    accuracy.set(xscale="log", xlabel="ε", ylabel="accuracy on test rows, %")
    accuracy.legend(fontsize="small")
    accuracy.set_title("accuracy, mean and 95 % interval over seeds", fontsize="medium")
    if audits:
        promised = [outcome.point.config.epsilon for outcome in audits]
        audited = axes[0, 1]
        ends = [min(e for e in promised if e), max(e for e in promised if e)]
        audited.plot(ends, ends, color="0.4", linestyle="--", label="promised")
        bounds = [outcome.lower_bound for outcome in audits]
        audited.plot(promised, bounds, "v", label="shown by the audit")
        audited.set(xscale="log", yscale="log", xlabel="ε", ylabel="ε")
        audited.legend(fontsize="small")
        audited.set_title("audited lower bound, 99.9 %", fontsize="medium")
    for panel in axes[0]:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _band(summary: Summary) -> tuple[float, float]:
    """Return the ends of an interval in per cent; NaN, which is not drawn, where there is none."""
    if summary.low is None or summary.high is None:
        return math.nan, math.nan
    return 100 * summary.low, 100 * summary.high
