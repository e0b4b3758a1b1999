"""From settings to the things that they name: method, protocol, promise, ledger, reduction."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protocols.protocol import Protocol
from protocols.schemes.additive.protocol import Additive
from protocols.schemes.encrypted.protocol import Bfv, Ckks
from protocols.schemes.pairwise.protocol import Pairwise
from protocols.schemes.plain import Plain
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.features.reduction import (
    Reduction,
    choose_dimension,
    public_reduction,
    random_reduction,
)
from secure_afl.federation.keys import Keys
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import declared_rows, default_cohort
from secure_afl.methods import AFL, AnyMethod, ConvNet, FedAvg, FedHiP, FedSGD, Linear
from secure_afl.privacy import accounting
from secure_afl.privacy.ledger import Budget, Ledger
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import statistics_sensitivity
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import GRADIENT_METHODS, Prepared


def make_federation(
    config: RunConfig,
    backbone: bytes,
    keys: Keys | None = None,
    ledger: Ledger | None = None,
    lineages: Mapping[str, str] | None = None,
) -> Federation:
    """The configured federation, over features of a backbone with this digest."""
    return Federation(
        make_method(config),
        make_protocol(config),
        feature_bits=config.feature_bits,
        min_cohort=config.min_cohort,
        corrupt=config.corrupt,
        backbone=backbone,
        keys=keys,
        privacy=make_privacy(config),
        ledger=ledger,
        lineages=lineages,
    )


def check_terms(config: RunConfig, clients: int) -> None:
    """Refuse what no session would be formed with, before the features are made."""
    privacy = make_privacy(config)
    declared_rows((), config.max_rows, privacy)
    trains_pixels = config.method in GRADIENT_METHODS and config.architecture == "convnet"
    if trains_pixels and (config.dimension or config.public is not None):
        raise ConfigError(
            "--dimension and --public reduce features; a convnet trains on pixels. Leave them out, "
            "or train --architecture linear"
        )
    if privacy is not None and config.holdout > 0:
        # Which rows are held out turns on how many there are: one more would move many others.
        raise ConfigError(
            f"--holdout {config.holdout:g} with --epsilon; allowed: 0, for scores on clients' own "
            "rows would be releases too. Leave one of the two out"
        )
    least = config.min_cohort or default_cohort(clients, privacy)
    if config.corrupt + 2 > least or least > clients:
        raise ConfigError(
            f"minimum cohort {least} of {clients} clients, {config.corrupt} of them declared "
            f"corrupt; it has to be ≥ corrupt + 2 = {config.corrupt + 2} and ≤ {clients}"
        )
    if config.drop > clients - least:
        raise ConfigError(
            f"drop {config.drop} of {clients} clients leaves fewer than the minimum cohort "
            f"{least}; allowed: ≤ {clients - least}, or more with a lower --min-cohort"
        )


def choose_reduction(config: RunConfig, prepared: Prepared) -> Reduction | None:
    """How features are brought to fewer dimensions, if they are; by what is public alone."""
    method, privacy = make_method(config), make_privacy(config)
    dim = prepared.clients[0].features.shape[1]
    wanted = config.dimension
    if wanted is not None and wanted > dim:
        raise ConfigError(f"--dimension {wanted} of features with {dim}; allowed: ≤ {dim}")
    if wanted is None and privacy is not None and method.row_additive:
        wanted = _suggested_dimension(config, prepared.clients, method, privacy)
    if prepared.public is not None:
        # Rows span no more axes than there are of them, less one for their mean.
        kept = min(wanted or dim, len(prepared.public) - 1)
        return public_reduction(prepared.public, kept, whiten=config.whiten)
    return random_reduction(dim, wanted, config.seed) if wanted not in (None, 0, dim) else None


def _suggested_dimension(
    config: RunConfig, clients: Sequence[ClientData], method: AnyMethod, privacy: Privacy
) -> int:
    """What the public bound on rows and the noise suggest."""
    bounds = declared_rows(clients, config.max_rows, privacy)
    sensitivity = statistics_sensitivity(
        1, privacy.unit, privacy.neighbours, max(bounds), privacy.cross_weight
    )
    z = accounting.noise_multiplier(privacy.epsilon, privacy.delta, method.sums)
    dim = clients[0].features.shape[1]
    return choose_dimension(sum(bounds), z * sensitivity.joint, dim)


def make_privacy(config: RunConfig) -> Privacy | None:
    """The configured promise."""
    if config.epsilon is None:
        return None
    return Privacy(
        config.epsilon,
        config.delta,
        config.unit,
        config.neighbours,
        config.noise,
        config.cross_weight,
    )


def open_ledger(config: RunConfig) -> Ledger | None:
    """The configured ledger."""
    if config.ledger is None:
        if config.budget is not None:
            raise ConfigError(f"--budget {config.budget} is kept in a --ledger; name one")
        return None
    budget = None
    if config.budget is not None:
        budget = Budget(config.budget, config.delta, config.unit, config.neighbours)
    return Ledger.open(Path(config.ledger), budget)


def make_method(config: RunConfig) -> AnyMethod:
    """The configured method."""
    if config.method == "fedhip":
        return FedHiP(alpha=config.alpha, ridge=config.ridge, reading=config.reading)
    if config.method in GRADIENT_METHODS:
        return _gradient_method(config)
    return AFL(ridge=config.ridge)


def make_protocol(config: RunConfig) -> Protocol:
    """The configured protocol."""
    match config.protocol:
        case "additive":
            return Additive(config.aggregators)
        case "pairwise":
            return Pairwise(config.corrupt_fraction, config.dropout_fraction, config.server_trust)
        case "ckks":
            return Ckks(config.verify)
        case "bfv":
            return Bfv(config.verify)
        case "plain":
            return Plain()


def _gradient_method(config: RunConfig) -> FedAvg | FedSGD:
    settings: dict[str, Any] = {
        "rounds": config.rounds,
        "learning_rate": config.learning_rate,
        "clip": config.update_clip,
    }
    # Numbers of rows are what privacy hides.
    weighted = config.epsilon is None
    given = {name: value for name, value in settings.items() if value is not None}
    architecture = ConvNet() if config.architecture == "convnet" else Linear()
    if config.method == "fedsgd":
        return FedSGD(**given, weighted=weighted, architecture=architecture, seed=config.seed)
    return FedAvg(
        **given,
        weighted=weighted,
        architecture=architecture,
        seed=config.seed,
        local_epochs=config.local_epochs,
        batch_size=config.batch_size,
        proximal=config.proximal,
    )
