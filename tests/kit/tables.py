"""Made-up tables, and what statsmodels makes of the same rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.data.columns import Column, Columns
from secure_afl.methods.method import Task


def columns_of(values: Floats, target: Floats, names: Sequence[str] | None = None) -> Columns:
    """Columns whose ranges hold these values (n, d) and targets (n,), with a little room."""

    def over(name: str, of: Floats) -> Column:
        room = 0.05 * (np.ptp(of) or 1.0)
        return Column.over(name, float(of.min() - room), float(of.max() + room))

    named = [f"c{i}" for i in range(values.shape[1])] if names is None else names
    made = tuple(over(name, column) for name, column in zip(named, values.T, strict=True))
    return Columns(made, over("y", target))


def table_client(
    name: str,
    columns: Columns,
    values: Floats,
    target: Floats,
    patients: Sequence[str] | None = None,
) -> ClientData:
    """Rows of a table, in the columns' own units."""
    assert columns.target is not None, "it has a target"
    labels = np.zeros(len(values), dtype=np.int64)
    scaled = columns.target.scaled(target)
    return ClientData(name, columns.features(values), labels, patients, scaled)


def table_clients(columns: Columns, values: Floats, target: Floats, sites: int) -> list[ClientData]:
    """The rows dealt out to sites s0, s1, …"""
    return [
        table_client(f"s{i}", columns, values[i::sites], target[i::sites]) for i in range(sites)
    ]


def table_task(clients: Sequence[ClientData], columns: Columns | None, bits: int = 12) -> Task:
    """The task of these clients, each of which declares what it has."""
    return Task(
        feature_dim=clients[0].features.shape[1],
        classes=("y",),
        quantiser=Quantiser(bits, "columns"),
        total_rows=sum(map(len, clients)),
        client_rows=max(map(len, clients)),
        clients=len(clients),
        backbone=bytes(32),
        columns=columns,
    )


def quantised(task: Task, data: ClientData) -> tuple[Floats, Floats]:
    """The rows (n, d) and targets (n,) that the integers stand for, in own units."""
    assert data.targets is not None, "it has targets"
    quantiser, columns = task.quantiser, task.columns
    rows = quantiser.integers(data.features) / quantiser.steps(task.feature_dim)
    targets = np.rint(data.targets * quantiser.label_scale) / quantiser.label_scale
    if columns is None or columns.target is None:
        return rows, targets
    return columns.values(rows), columns.target.own(targets)


def ordinary(values: Floats, target: Floats) -> Any:
    """What statsmodels makes of them, with an intercept."""
    import statsmodels.api as sm

    return sm.OLS(target, sm.add_constant(values, has_constant="add")).fit()
