"""How well a number is predicted, on rows that no model was made from."""

from collections.abc import Sequence

import numpy as np

from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.data.columns import Columns
from secure_afl.errors import ConfigError
from secure_afl.evaluation.numeric import NumericFigures, measure_numbers
from secure_afl.federation.report import NumericReport, SiteFit
from secure_afl.methods.method import AnyMethod, PublicState, Task
from secure_afl.methods.model import Model


def own_values(columns: Columns | None, data: ClientData) -> Floats:
    """Return the numbers that are to be predicted, (n,), in the target's own unit."""
    assert data.targets is not None, "checked before anything was learned"
    target = None if columns is None else columns.target
    return data.targets if target is None else target.own(data.targets)


def measure_model(model: Model, columns: Columns | None, data: ClientData) -> NumericFigures:
    """Measure a numeric model on rows whose number is known."""
    predicted = model.scores(data.features)[:, 0]
    return measure_numbers(predicted, own_values(columns, data), patients=data.people)


def score_numbers(
    method: AnyMethod,
    public: PublicState,
    model: Model,
    clients: Sequence[ClientData],
    test: ClientData | None,
    holdout: Sequence[ClientData],
) -> NumericReport:
    """Score a run's numeric model, beside that of all float rows and those of each client's rows.

    Arguments are those of `score`.
    """
    columns = public.task.columns
    kept = {data.name: data for data in holdout}
    sites = tuple(
        _site(method, public.task, model, data, test, kept.get(data.name)) for data in clients
    )
    if test is None:
        return NumericReport(sites=sites)
    central = method.unrounded(public.task, clients)
    differences = None
    if central is not None:
        apart = model.scores(test.features) - central.scores(test.features)
        differences = float(np.abs(apart).max())
    return NumericReport(
        measure_model(model, columns, test),
        None if central is None else measure_model(central, columns, test),
        differences,
        sites,
    )


def score_private_numbers(
    public: PublicState, model: Model, test: ClientData | None
) -> NumericReport:
    """Score a private numeric model on test rows, which are not the clients'."""
    if test is None:
        return NumericReport()
    return NumericReport(measure_model(model, public.task.columns, test))


def _site(
    method: AnyMethod,
    task: Task,
    model: Model,
    data: ClientData,
    test: ClientData | None,
    kept: ClientData | None,
) -> SiteFit:
    """Fit a client's rows alone, by the run's method, and score that."""
    begun, columns = method.begin(task), task.columns
    federated = None if kept is None else measure_model(model, columns, kept)
    try:
        alone = method.absorb(begun, method.contribute(begun, data, {}, b""), (data.name,))
    except ConfigError:  # fewer rows than columns
        return SiteFit(data.name, len(data), None, None, None, federated)
    own = method.model(alone)
    return SiteFit(
        data.name,
        len(data),
        next(iter(method.fits(alone)), None),
        None if test is None else measure_model(own, columns, test),
        None if kept is None else measure_model(own, columns, kept),
        federated,
    )
