"""One run from configuration to files: features → federation → model and report."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.features.backbone import Backbone
from secure_afl.features.reduction import Reduction
from secure_afl.federation.keys import Keys, load_keys
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import Terms
from secure_afl.privacy.ledger import Ledger
from secure_afl.progress import Progress
from secure_afl.runs.advice import warn_of_terms
from secure_afl.runs.choose import make_terms, open_ledger
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import Accounts, Prepared, prepare
from secure_afl.runs.reduce import choose_reduction, unfold
from secure_afl.runs.saving import check_folder, save

# An independent stream of the seed, beside those of `prepare`.
_DROP = 2


def run(
    config: RunConfig,
    progress: Progress | None = None,
    tell: Callable[[Accounts], None] | None = None,
) -> Result:
    """Run a federation as configured and, with `config.out`, save what it yields.

    Args:
        config: the settings.
        progress: called with what is under way, how much is done, and of how much.
        tell: called with the account of what was read, as `prepare` says.

    Raises:
        SecureAflError: with what to change.
    """
    if config.out is not None:
        check_folder(Path(config.out))
    # All that can be wrong with the settings shows before the features are made.
    terms = make_terms(config)
    keys = load_keys(Path(config.keys)) if config.keys else None
    ledger = open_ledger(config)
    prepared = prepare(
        config, terms, progress, lambda data: check_terms(config, terms, len(data)), tell
    )
    result = federate(config, terms, prepared, keys=keys, ledger=ledger)
    if config.out is not None:
        save(result, prepared.backbone, config, Path(config.out), keys)
    return result


def federate(
    config: RunConfig,
    terms: Terms,
    prepared: Prepared,
    *,
    keys: Keys | None = None,
    ledger: Ledger | None = None,
) -> Result:
    """Run a federation over prepared rows."""
    reduction = choose_reduction(config, terms, prepared)

    def rows(data: ClientData) -> ClientData:
        if reduction is None:
            return data
        return replace(data, features=reduction.apply(data.features))

    federation = make_federation(
        config, terms, _digest(prepared.backbone, reduction), keys, ledger, prepared.lineages
    )
    result = federation.run(
        [rows(data) for data in prepared.clients],
        classes=prepared.classes,
        max_rows=config.max_rows,
        test=None if prepared.test is None else rows(prepared.test),
        holdout=[rows(data) for data in prepared.holdout],
        drop=_choose_drops(config, prepared.clients),
    )
    bounds = terms.declared_rows(prepared.clients, config.max_rows)
    return replace(
        result,
        model=unfold(reduction, result.model),
        personal={name: unfold(reduction, model) for name, model in result.personal.items()},
        report=msgspec.structs.replace(
            result.report,
            warnings=(*warn_of_terms(terms, bounds), *result.report.warnings),
            seconds=msgspec.structs.replace(result.report.seconds, features=prepared.seconds),
            settings=config.flat(),
        ),
    )


def make_federation(
    config: RunConfig,
    terms: Terms,
    backbone: bytes,
    keys: Keys | None = None,
    ledger: Ledger | None = None,
    lineages: Mapping[str, str] | None = None,
) -> Federation:
    """Make the configured federation, over features of a backbone with this digest."""
    return Federation(
        terms.method,
        terms.protocol,
        feature_bits=config.feature_bits,
        min_cohort=config.min_cohort,
        corrupt=config.corrupt,
        backbone=backbone,
        keys=keys,
        privacy=terms.privacy,
        same_set=config.same_set,
        accept_outside=config.accept_outside,
        ledger=ledger,
        lineages=lineages,
    )


def check_terms(config: RunConfig, terms: Terms, clients: int) -> None:
    """Refuse what no session would be formed with, before the features are made.

    Raises:
        ConfigError: naming the setting and what it may be.
    """
    terms.declared_rows((), config.max_rows)
    if terms.method.images and (config.dimension or config.public is not None):
        raise ConfigError(
            "--dimension and --public reduce features; a convnet trains on pixels. Leave them out, "
            "or train --architecture linear"
        )
    if terms.privacy is not None and config.holdout > 0:
        # Which rows are held out turns on how many there are: one more would move many others.
        raise ConfigError(
            f"--holdout {config.holdout:g} with --epsilon; allowed: 0, for scores on clients' own "
            "rows would be releases too. Leave one of the two out"
        )
    least = config.min_cohort or terms.default_cohort(clients)
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


def _digest(backbone: Backbone, reduction: Reduction | None) -> bytes:
    if reduction is None:
        return backbone.digest
    return hashlib.sha256(backbone.digest + reduction.digest).digest()


def _choose_drops(config: RunConfig, clients: Sequence[ClientData]) -> list[str]:
    rng = np.random.default_rng([config.seed, _DROP])
    chosen = rng.choice(len(clients), size=config.drop, replace=False)
    return [clients[i].name for i in chosen]
