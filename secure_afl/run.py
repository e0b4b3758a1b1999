"""One run from configuration to files: features → federation → model and report."""

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from protocols.additive import Additive
from protocols.ckks import Bfv, Ckks
from protocols.pairwise import Pairwise
from protocols.plain import Plain
from protocols.protocol import Protocol
from secure_afl.clients import ClientData
from secure_afl.config import RunConfig
from secure_afl.errors import ConfigError
from secure_afl.features import Backbone
from secure_afl.keys import Keys, load_keys
from secure_afl.methods import AFL, AnyMethod, ConvNet, FedAvg, FedHiP, FedSGD, Linear
from secure_afl.model import LinearModel, Model
from secure_afl.prepare import GRADIENT_METHODS, Prepared, Progress, prepare
from secure_afl.privacy import accounting
from secure_afl.privacy.ledger import Budget, Ledger
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.reduction import (
    Reduction,
    choose_dimension,
    public_reduction,
    random_reduction,
)
from secure_afl.privacy.sensitivity import statistics_sensitivity
from secure_afl.simulation import Federation, Result, declared_rows, default_cohort

log = logging.getLogger("secure_afl")

# An independent stream of the seed, beside those of `prepare`.
_DROP = 2


def run(config: RunConfig, progress: Progress | None = None) -> Result:
    """Run a federation as configured and, with `config.out`, save what it yields.

    Args:
        config: the settings.
        progress: called with what is under way, how much is done, and of how much.

    Raises:
        SecureAflError, ProtocolError: with what to change.
    """
    if config.out is not None:
        check_folder(Path(config.out))
    # All that can be wrong with the settings shows before the features are made.
    keys = load_keys(Path(config.keys)) if config.keys else None
    ledger = open_ledger(config)
    make_federation(config, bytes(32))
    prepared = prepare(config, progress, lambda clients: check_terms(config, len(clients)))
    result = federate(config, prepared, keys=keys, ledger=ledger)
    if config.out is not None:
        save(result, prepared.backbone, config, Path(config.out))
    return result


def federate(
    config: RunConfig,
    prepared: Prepared,
    *,
    keys: Keys | None = None,
    ledger: Ledger | None = None,
) -> Result:
    """Run a federation over prepared rows."""
    reduction = choose_reduction(config, prepared)

    def rows(data: ClientData) -> ClientData:
        if reduction is None:
            return data
        return replace(data, features=reduction.apply(data.features))

    federation = make_federation(
        config, _digest(prepared.backbone, reduction), keys, ledger, prepared.lineages
    )
    result = federation.run(
        [rows(data) for data in prepared.clients],
        classes=prepared.classes,
        max_rows=config.max_rows,
        test=None if prepared.test is None else rows(prepared.test),
        holdout=[rows(data) for data in prepared.holdout],
        drop=_choose_drops(config, prepared.clients),
    )
    return replace(
        result,
        model=_unfolded(reduction, result.model),
        personal={name: _unfolded(reduction, model) for name, model in result.personal.items()},
        report=msgspec.structs.replace(
            result.report,
            seconds=msgspec.structs.replace(result.report.seconds, features=prepared.seconds),
            settings=msgspec.to_builtins(config),
        ),
    )


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


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless files can be written into a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror}); name another") from None


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


def _unfolded(reduction: Reduction | None, model: Model) -> Model:
    """A model of reduced rows as one of the backbone's."""
    if reduction is None:
        return model
    assert isinstance(model, LinearModel), "only linear models see reduced rows"
    weights, offset = reduction.fold(model.weights)
    return LinearModel(weights, model.classes, offset)


def _digest(backbone: Backbone, reduction: Reduction | None) -> bytes:
    if reduction is None:
        return backbone.digest
    return hashlib.sha256(backbone.digest + reduction.digest).digest()


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


def save(result: Result, backbone: Backbone, config: RunConfig, out: Path) -> None:
    """Write the model, the personal models, their cards and the report into a folder."""
    report = result.report
    card: dict[str, Any] = {
        "method": report.method,
        "backbone": {
            "spec": backbone.name,
            "digest": backbone.digest.hex(),
            "image_size": config.image_size,
            "seed": config.seed,
        },
        "quantiser": {"bits": report.feature_bits, "mode": "normalise"},
        "ridge": report.ridge,
        "session": report.session,
        "cohort": report.clients.included,
        "protocol": report.protocol,
        "protects": report.protects,
        "privacy": msgspec.to_builtins(report.privacy),
    }
    out.mkdir(parents=True, exist_ok=True)
    result.model.save(out / "model.safetensors", card)
    # Personal models of an earlier run into this folder do not belong to this one.
    shutil.rmtree(out / "personal", ignore_errors=True)
    if report.method == "fedhip":
        folder = out / "personal"
        folder.mkdir(exist_ok=True)
        for name, model in result.personal.items():
            # Made from that client's exact rows and for it alone: no promise covers it.
            model.save(folder / f"{name}.safetensors", card | {"client": name, "privacy": None})
    log.info("saved into %s", out)
    (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


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


def _choose_drops(config: RunConfig, clients: Sequence[ClientData]) -> list[str]:
    rng = np.random.default_rng([config.seed, _DROP])
    chosen = rng.choice(len(clients), size=config.drop, replace=False)
    return [clients[i].name for i in chosen]
