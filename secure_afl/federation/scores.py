"""How good the models of a run are, on rows that no model was made from."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from statistics import mean

import msgspec

from secure_afl.analytic.heads.head import fit_first
from secure_afl.analytic.heads.ridge import DEFAULT_RIDGE, Ridge
from secure_afl.analytic.moments import Moments
from secure_afl.analytic.rows import ClientData, check_data
from secure_afl.errors import ConfigError, DataError
from secure_afl.evaluation.figures import Figures
from secure_afl.evaluation.models import evaluate_model, under_priors
from secure_afl.federation.numeric_scores import score_numbers, score_private_numbers
from secure_afl.federation.report import (
    Accuracy,
    NumericReport,
    PersonalReport,
    Site,
    SiteFigures,
)
from secure_afl.methods.method import AnyMethod, Own, PublicState
from secure_afl.methods.model import LinearModel, Model
from secure_afl.methods.personal.personal import halves


@dataclass(frozen=True)
class Scored:
    """A run's accuracy, that of its clients' own models where there are any, and figures."""

    accuracy: Accuracy
    personal: PersonalReport | None = None
    results: tuple[Figures, ...] = ()
    sites: tuple[SiteFigures, ...] = ()
    numeric: NumericReport | None = None


def check_scored(sets: Sequence[ClientData], like: ClientData, classes: int) -> None:
    """Raise DataError unless rows to score on fit the clients' features and classes."""
    for data in sets:
        check_data(f"test rows '{data.name}'", data, classes)
        if data.features.shape[1] != like.features.shape[1]:
            raise DataError(
                f"test rows '{data.name}' have {data.features.shape[1]} features a row, clients "
                f"have {like.features.shape[1]}; use the same backbone for both"
            )


def score(
    method: AnyMethod,
    public: PublicState,
    model: Model,
    own: Mapping[str, Own],
    clients: Sequence[ClientData],
    test: ClientData | None,
    holdout: Sequence[ClientData],
) -> Scored:
    """Score a run's models by accuracy, beside models of float features.

    These are the run's own head on all rows in one place, and a ridge on each client's. Models of
    numbers are scored as `score_numbers` says.

    Args:
        method, public: of the run, when all rounds are done.
        model, own: the run's models.
        clients: those in the sum.
        test, holdout: rows that no model was made from; those of clients not in the sum are left
            out. Where a client's model was chosen on half of its rows, the other half counts.
    """
    if model.numeric:
        numeric = score_numbers(method, public, model, clients, test, holdout)
        return Scored(Accuracy(), numeric=numeric)
    names = {client.name for client in clients}
    if method.fine_rows and not method.heads(public.task):
        # A ridge is no baseline for coefficients with errors.
        plain = Accuracy()
        if test is not None:
            plain = Accuracy(federated=model.accuracy(test.features, test.labels))
        results = () if test is None else tested(model, test)
        return Scored(plain, results=results, sites=at_sites(model, holdout, names))
    if test is None and names.isdisjoint(data.name for data in holdout):
        # Nothing shows the models of float rows: to fit one a client is most of a small run.
        return Scored(Accuracy(), PersonalReport.of([]) if method.personalises else None)
    moments = {
        client.name: _float_moments(method, client, len(model.classes), public)
        for client in clients
    }
    central = _central(method, public, reduce(add, moments.values()), model.classes)
    local = _locals(method, public, moments, model.classes)
    sites = [
        _site(_reported(method, data), model, own, local) for data in holdout if data.name in names
    ]
    accuracy = Accuracy(
        personal_mean=_mean(site.personal for site in sites),
        holdout_federated_mean=_mean(site.federated for site in sites),
        holdout_local_mean=_mean(site.alone for site in sites),
    )
    personal = PersonalReport.of(sites) if method.personalises else None
    each = at_sites(model, holdout, names)
    if test is None:
        return Scored(accuracy, personal, sites=each)
    features, labels = test.features, test.labels
    alone = [m.accuracy(features, labels) for m in local.values()]
    accuracy = msgspec.structs.replace(
        accuracy,
        federated=model.accuracy(features, labels),
        centralised_float=central.accuracy(features, labels),
        local_mean=mean(alone) if alone else None,
        agreement=float((model.predict(features) == central.predict(features)).mean()),
    )
    return Scored(accuracy, personal, tested(model, test), each)


def score_private(public: PublicState, model: Model, test: ClientData | None) -> Scored:
    """Score a private model on test rows, which are not the clients'.

    Baselines on the clients' rows, and scores on rows that they held out, would be releases of
    their own.
    """
    if model.numeric:
        return Scored(Accuracy(), numeric=score_private_numbers(public, model, test))
    if test is None:
        return Scored(Accuracy())
    accuracy = Accuracy(federated=model.accuracy(test.features, test.labels))
    return Scored(accuracy, results=tested(model, test))


def at_sites(
    model: Model, holdout: Sequence[ClientData], names: Collection[str]
) -> tuple[SiteFigures, ...]:
    """Measure a model on the rows that each of these clients kept out, under its own prior."""
    prior = next(iter(under_priors(model)))
    return tuple(
        SiteFigures(rows.name, evaluate_model(model, rows, prior=prior))
        for rows in holdout
        if rows.name in names
    )


def tested(model: Model, test: ClientData) -> tuple[Figures, ...]:
    """Measure a model on test rows, under each prior that its scores may have."""
    return tuple(
        evaluate_model(other, test, prior=name) for name, other in under_priors(model).items()
    )


def _central(
    method: AnyMethod, public: PublicState, moments: Moments, classes: tuple[str, ...]
) -> Model:
    """Fit the run's head to the float rows of all clients in one place."""
    heads = method.heads(public.task) or (Ridge(ridge=DEFAULT_RIDGE),)
    fitted = fit_first(heads, moments, classes).fitted
    return method.behind(public, LinearModel.fitted(fitted, classes, public.task.quantiser))


def _locals(
    method: AnyMethod,
    public: PublicState,
    moments: Mapping[str, Moments],
    classes: tuple[str, ...],
) -> dict[str, Model]:
    """Fit a ridge to each client's own float rows, with the λ of the run where it has one."""
    fitted = method.fitted(public)
    ridge = fitted.value if fitted is not None and fitted.setting == "ridge" else DEFAULT_RIDGE
    found: dict[str, Model] = {}
    for name, own in moments.items():
        try:
            weights = Ridge(ridge=ridge).fit(own, classes).fitted.weights
        except ConfigError:
            continue  # a client has fewer rows than dimensions, and λ is 0
        found[name] = method.behind(public, LinearModel(weights, classes))
    return found


def _reported(method: AnyMethod, kept: ClientData) -> ClientData:
    """Return the kept-out rows that no choice was made on."""
    return halves(kept)[1] if method.chooses_on_kept and len(kept) > 1 else kept


def _site(
    rows: ClientData, model: Model, own: Mapping[str, Own], local: Mapping[str, Model]
) -> Site:
    """Score a client's own model, the global one and that of its rows alone, on its own rows."""

    def share(scored: Model | None) -> float | None:
        return None if scored is None else scored.accuracy(rows.features, rows.labels)

    made = own.get(rows.name)
    return Site(
        name=rows.name,
        rows=len(rows),
        way=None if made is None else made.way,
        personal=None if made is None else share(made.model),
        federated=share(model),
        alone=share(local.get(rows.name)),
    )


def _mean(shares: Iterable[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return mean(known) if known else None


def _float_moments(
    method: AnyMethod, client: ClientData, classes: int, public: PublicState
) -> Moments:
    rows = public.task.quantiser.scaled(method.seen(public, client).features)
    return Moments.of_rows(rows, client.labels, classes)
