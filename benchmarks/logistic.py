"""Logistic regression in blind sums, beside statsmodels: differences, sums, and cover of intervals.

python -m benchmarks.logistic

Tables are drawn anew from a known law each time. A run has three sites and exact sums, and pooled
rows, rounded likewise, go to statsmodels. Differences are in statsmodels' standard errors.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import statsmodels.api as sm
from threadpoolctl import threadpool_limits

from benchmarks.record import write
from benchmarks.rendering import markdown_table, read_results
from protocols import Plain
from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.data.columns import Column, Columns
from secure_afl.federation.simulation import Federation
from secure_afl.methods import Logistic

TABLES = 200
BITS = 12


@dataclass(frozen=True)
class Law:
    """How tables are drawn: columns of mean 50 and deviation 10, public range 0 to 100.

    Attributes:
        rows: N.
        intercepts: log-odds of each class but the first at the columns' means, (K,).
        weights: their change with one deviation of each column, (d, K).
    """

    rows: int
    intercepts: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]

    def draw(self, seed: int) -> tuple[Floats, Integers]:
        """Draw values (N, d) in own units, and classes (N,)."""
        rng = np.random.default_rng(seed)
        values = np.clip(rng.normal(50, 10, (self.rows, len(self.weights))), 0, 100)
        odds = np.array(self.intercepts) + (values - 50) / 10 @ np.array(self.weights)
        odds = np.hstack([np.zeros((self.rows, 1)), odds])
        return values, (odds + rng.gumbel(size=odds.shape)).argmax(axis=1).astype(np.int64)

    @property
    def truth(self) -> Floats:
        """Coefficients in own units, the intercept first, (d + 1, K)."""
        weights = np.array(self.weights) / 10
        return np.vstack([np.array(self.intercepts) - 50 * weights.sum(axis=0), weights])


LAWS = {
    "two classes, 500 rows": Law(500, (0.0,), ((1.0,), (-0.5,), (0.0,))),
    "one row in twenty, 2,000 rows": Law(2000, (-3.3,), ((0.7,), (-0.5,), (0.0,))),
    "three classes, 900 rows": Law(900, (0.3, -0.5), ((0.8, 0.0), (0.0, 0.6), (0.0, 0.0))),
}


def main() -> None:
    """Run all tables, and write `results/logistic.json`."""
    with threadpool_limits(1):
        found = {name: measured(law) for name, law in LAWS.items()}
    write("logistic", {"tables": TABLES, "laws": found})


def measured(law: Law) -> dict[str, Any]:
    """Return what the tables of a law show together."""
    column = Column.over("x", 0, 100)
    columns = Columns((column,) * len(law.weights))
    covered, off, bound, sums = [], 0.0, 0.0, []
    for seed in range(TABLES):
        values, labels = law.draw(seed)
        rows = columns.features(values)
        clients = [ClientData(f"s{i}", rows[i::3], labels[i::3]) for i in range(3)]
        federation = Federation(Logistic(), Plain(), columns=columns, row_mode="columns")
        names = tuple(str(place) for place in range(len(law.intercepts) + 1))
        report = federation.run(clients, classes=names).report
        assert report.exact, "the sums are those of one place"
        rounding = Quantiser(BITS, "columns")
        whole = columns.values(rounding.integers(rows) / rounding.steps(rows.shape[1]))
        theirs = sm.MNLogit(labels, sm.add_constant(whole)).fit(
            disp=0, tol=1e-12, method="newton", maxiter=100
        )
        for k, fit in enumerate(report.fits):
            ours = np.array([c.estimate for c in fit.coefficients], dtype=float)
            ends = np.array([(c.low, c.high) for c in fit.coefficients], dtype=float)
            truth = law.truth[:, k]
            covered.append((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
            off = max(off, float((np.abs(ours - theirs.params[:, k]) / theirs.bse[:, k]).max()))
            bound = max(bound, fit.figures["rounding_in_errors"])
        sums.append(report.rounds)
    share = float(np.mean(covered))
    return {
        "covered": share,
        # Coefficients of a table are not independent: the error is that of tables' mean shares.
        "covered_error": float(np.reshape(covered, (TABLES, -1)).mean(axis=1).std())
        / math.sqrt(TABLES),
        "largest_difference": off,
        "largest_bound": bound,
        "sums_median": float(np.median(sums)),
        "sums_most": max(sums),
    }


def logistic_table() -> str:
    """Render the table for docs/tables.md."""
    found = read_results("logistic")
    head = [
        f"{found['tables']} tables each",
        "95 % intervals that cover",
        "off statsmodels, in standard errors",
        "bound on rounding, likewise",
        "blind sums",
    ]
    rows = [
        [
            name,
            f"{100 * law['covered']:.1f} ± {100 * law['covered_error']:.1f} %",
            _most(law["largest_difference"]),
            _most(law["largest_bound"]),
            f"{law['sums_median']:g}, at most {law['sums_most']}",
        ]
        for name, law in found["laws"].items()
    ]
    return markdown_table(head, rows)


def _most(number: float) -> str:
    """Round a number up to one digit."""
    unit = 10.0 ** math.floor(math.log10(number))
    return f"≤ {math.ceil(number / unit) * unit:.0e}"


if __name__ == "__main__":
    main()
