"""One run from configuration to files: features → federation → model and report."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from secure_afl.analytic.rows import ClientData
from secure_afl.features.backbone import Backbone
from secure_afl.features.reduction import (
    Reduction,
)
from secure_afl.federation.keys import Keys, load_keys
from secure_afl.federation.simulation import Result
from secure_afl.methods.model import LinearModel, Model
from secure_afl.privacy.ledger import Ledger
from secure_afl.runs.choose import check_terms, choose_reduction, make_federation, open_ledger
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import Prepared, Progress, prepare
from secure_afl.runs.saving import check_folder, save

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


def _choose_drops(config: RunConfig, clients: Sequence[ClientData]) -> list[str]:
    rng = np.random.default_rng([config.seed, _DROP])
    chosen = rng.choice(len(clients), size=config.drop, replace=False)
    return [clients[i].name for i in chosen]
