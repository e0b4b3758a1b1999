"""Whether intervals of a noisy regression hold what they say.

    python -m benchmarks.regression

Tables of d columns and N rows at five sites, drawn anew 200 times: columns normal about 0.1 with
deviation 0.35 of half their range and a correlation of 0.3, cut to it; coefficients of 0.05 to
0.25 with signs in turn; a residual of deviation 0.15. Every site packs its sums and adds its share
of the noise, and the sum is fitted as a run does; unit example, add-remove, δ = 1e-5, nominal
95 %. A table whose noise leaves no interval is counted and has none. `covered` is the share of
coefficients, the intercept among them, whose interval holds the true one.
"""

import secrets
from typing import Any, NamedTuple

import numpy as np

from benchmarks.record import write
from protocols.party import ENTROPY_BYTES
from protocols.schemes.additive import Additive
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.data.columns import Column, Columns
from secure_afl.federation.sums import this_noisy_sum
from secure_afl.federation.task import Declared, Terms, plan_task
from secure_afl.methods.method import Task
from secure_afl.methods.regression import Regression
from secure_afl.privacy.mechanism import Privacy

SITES, TABLES, DIMS, ROWS, EPSILONS = 5, 200, (5, 10), (2_000, 20_000), (None, 8.0, 1.0)
INTERCEPT, RESIDUAL, DEVIATION, CORRELATION = 0.1, 0.15, 0.35, 0.3


class Drawn(NamedTuple):
    """Values (N, d) and targets (N,), both in [−1, 1]."""

    values: Floats
    targets: Floats


def main() -> None:
    """Measure all sizes and write `results/regression.json`."""
    figures = [case(dim, rows, epsilon) for dim in DIMS for rows in ROWS for epsilon in EPSILONS]
    what = (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip()
    write("regression", {"what": what, "tables": TABLES, "sites": SITES, "cases": figures})


def slopes(dim: int) -> Floats:
    """True coefficients, (d,)."""
    signs = np.where(np.arange(dim) % 2, -1.0, 1.0)
    return np.asarray(signs * np.linspace(0.05, 0.25, dim))


def draw(rng: np.random.Generator, dim: int, rows: int) -> Drawn:
    """Draw a table; targets out of range are cut, about one in ten thousand."""
    common = rng.standard_normal((rows, 1))
    own = rng.standard_normal((rows, dim))
    mixed = np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * own
    values = np.clip(0.1 + DEVIATION * mixed, -1, 1)
    targets = INTERCEPT + values @ slopes(dim) + RESIDUAL * rng.standard_normal(rows)
    return Drawn(values, np.clip(targets, -1, 1))


def case(dim: int, rows: int, epsilon: float | None) -> dict[str, Any]:
    """Fit all tables of a size at an ε."""
    columns = Columns(tuple(Column(f"x{i}", 0.0, 1.0) for i in range(dim)), Column("y", 0.0, 1.0))
    each = rows // SITES
    declared = Declared(
        dim, ("y",), tuple((f"s{i}", each) for i in range(SITES)), bytes(32), SITES,
        row_mode="columns", columns=columns,
    )  # fmt: skip
    method = Regression()
    terms = Terms(method, Additive(), None if epsilon is None else Privacy(epsilon))
    task = plan_task(terms, declared)
    truth = np.append(INTERCEPT, slopes(dim))
    hits, widths, biases = [], [], []
    for table in range(TABLES):
        # The same tables at every ε.
        drawn = draw(np.random.default_rng([dim, rows, table]), dim, rows)
        total = blind_sum(method, task, columns, drawn)
        names = tuple(name for name, _ in declared.max_rows)
        fit = method.absorb(method.begin(task), total, names).fit
        assert fit is not None
        if np.isfinite(fit.errors).all():
            hits.append((fit.low <= truth) & (truth <= fit.high))
            widths.append(fit.high - fit.low)
            biases.append((fit.estimates - truth) / fit.errors)
    found: dict[str, Any] = {
        "columns": dim, "rows": rows, "epsilon": epsilon, "with_intervals": len(hits)
    }  # fmt: skip
    if hits:
        by_coefficient = np.mean(hits, axis=0)
        found |= {
            "covered": float(by_coefficient.mean()),
            "least_covered": float(by_coefficient.min()),
            "width": float(np.mean(np.array(widths)[:, 1:])),
            "bias_in_errors": float(np.abs(np.mean(biases, axis=0)).max()),
        }
    print(found, flush=True)
    return found


def blind_sum(method: Regression, task: Task, columns: Columns, drawn: Drawn) -> Any:
    """Add up the sites' vectors, each with its share of the noise."""
    public = method.begin(task)
    total: Any = 0
    for site in range(SITES):
        values, targets = drawn.values[site::SITES], drawn.targets[site::SITES]
        labels = np.zeros(len(values), dtype=np.int64)
        data = ClientData(f"s{site}", columns.features(values), labels, targets=targets)
        total = total + method.contribute(public, data, {}, b"")
        if task.mechanism is not None:
            share = this_noisy_sum(method, public).share(secrets.token_bytes(ENTROPY_BYTES))
            total = total + share
    return total


if __name__ == "__main__":
    main()
