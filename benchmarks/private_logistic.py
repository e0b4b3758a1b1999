"""How often intervals of `private-logistic` hold the true coefficients, on made-up tables.

    python -m benchmarks.private_logistic

Columns are normal within ±4 deviations, which are their ranges; log-odds have the intercept −½,
or less for a rare class, and slopes from −1 to 1, or −1 of a single column. Five sites, unit
example, add-remove, δ = 1e-5, blind sums over `plain`, whose sums are those of all protocols. 200
tables a size. The number of sums, and from where on intervals are given, were chosen on other
seeds.
"""

from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from benchmarks.record import write
from protocols.schemes.plain import Plain
from secure_afl.analytic.rows import ClientData
from secure_afl.data.columns import Column, Columns
from secure_afl.federation.simulation import Federation
from secure_afl.methods.private_logistic import PrivateLogistic
from secure_afl.privacy.mechanism import Privacy

TABLES, SITES = 200, 5


class Size(NamedTuple):
    """How tables are drawn, and the noise.

    Attributes:
        dim: columns.
        rows: of all sites.
        epsilon: ε.
        intercept: log-odds where all columns are 0.
        rare: share of the second class, as the report calls it; empty where both are frequent.
    """

    dim: int
    rows: int
    epsilon: float
    intercept: float = -0.5
    rare: str = ""

    def __str__(self) -> str:
        rare = f", {self.rare} yes" if self.rare else ""
        return f"{self.dim} × {self.rows:,}{rare}, ε = {self.epsilon:g}"


SIZES = (
    Size(5, 20_000, 8.0),
    Size(5, 20_000, 1.0),
    Size(5, 100_000, 1.0),
    Size(10, 50_000, 8.0),
    Size(1, 20_000, 8.0, -4.4, "2 %"),
    Size(1, 20_000, 8.0, -5.1, "1 %"),
    Size(5, 50_000, 8.0, -4.9, "2 %"),
)


def main() -> None:
    """Measure all sizes and write `results/private_logistic.json`."""
    figures = {}
    for size in SIZES:
        figures[str(size)] = covered(size)
        print(size, figures[str(size)], flush=True)
    what = " ".join((__doc__ or "").split("\n\n")[2].split())
    write("private_logistic", {"what": what, "tables": TABLES, "sizes": figures})


def covered(size: Size) -> dict[str, Any]:
    """Count tables with intervals, and how often these hold the truth."""
    found = [table(size, 30_000 + seed) for seed in range(TABLES)]
    given = [one for one in found if one is not None]
    if not given:
        return {"given": 0}
    held = np.array([one[0] for one in given])
    return {
        "given": len(given),
        "covered": float(held.mean()),
        "least": float(held.mean(axis=0).min()),
        "width": mean(one[1] for one in given),
    }


def table(size: Size, seed: int) -> tuple[list[bool], float] | None:
    """Fit one table; returns which intervals hold the truth, and their mean width."""
    dim, rows = size.dim, size.rows
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, dim)).clip(-4, 4)
    truth = np.concatenate([[size.intercept], np.linspace(-1, 1, dim)])
    odds = truth[0] + values @ truth[1:]
    labels = (rng.uniform(size=rows) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    columns = Columns(tuple(Column.over(f"x{place}", -4, 4) for place in range(dim)))
    features = columns.features(values)
    clients = [
        ClientData(f"site_{site}", features[site::SITES], labels[site::SITES])
        for site in range(SITES)
    ]
    federation = Federation(
        PrivateLogistic(),
        Plain(),
        row_mode="columns",
        columns=columns,
        privacy=Privacy(size.epsilon, 1e-5),
    )
    result = federation.run(clients, classes=("no", "yes"), max_rows=rows // SITES)
    assert result.report.exact
    (fit,) = result.report.fits
    ends = [(c.low, c.high) for c in fit.coefficients if c.low is not None and c.high is not None]
    if not ends:
        return None
    held = [low <= value <= high for (low, high), value in zip(ends, truth, strict=True)]
    return held, mean(high - low for low, high in ends[1:])


if __name__ == "__main__":
    main()
