"""The picture of accuracy under a promise, from `results/private.json`.

python -m benchmarks.private_picture
"""

from typing import Any

import matplotlib as mpl

from benchmarks.private import BEST, CENTRED, FIVE, ONE, STEPS
from benchmarks.record import RESULTS
from benchmarks.rendering import read_results

_STYLES = {STEPS: "o-", FIVE: "^-", ONE: "D-", BEST: "s:", CENTRED: "v:"}


def main() -> None:
    """Draw AUC against ε, a panel for each set, and write `results/private.png`."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    content = read_results("private")
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.4))
    for panel, (name, found) in zip(axes.flat, content["sets"].items(), strict=True):
        epsilons = found["epsilons"]
        for arm, style in _STYLES.items():
            figures = [_auc(at["arms"][arm]) for at in epsilons]
            panel.errorbar(
                [at["epsilon"] for at in epsilons],
                [each["mean"] for each in figures],
                [each["reach"] for each in figures],
                fmt=style,
                markersize=4,
                capsize=2,
                label=arm,
            )
        kept_apart = ", in no choice of constants" if found["kept_apart"] else ""
        test = epsilons[0]["arms"][STEPS][0]["test"]
        panel.set_title(f"{name}{kept_apart}\n({test})", fontsize="small")
        panel.set(xscale="log", xlabel="ε (less is more private)")
        panel.set_xticks([at["epsilon"] for at in epsilons])
        panel.set_xticklabels([f"{at['epsilon']:g}" for at in epsilons])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("AUC on test rows, %")
    axes.flat[0].legend(fontsize="x-small", loc="lower right")
    figure.suptitle(
        "How well the model tells classes apart, mean and 95 % interval over ten seeds",
        fontsize="medium",
    )
    figure.tight_layout()
    figure.savefig(RESULTS / "private.png", dpi=130)


def _auc(arms: list[dict[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = arms[0]["auc"]
    return found


if __name__ == "__main__":
    main()
