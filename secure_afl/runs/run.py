"""One run from configuration to files: features → federation → model and report."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from platformdirs import user_state_path
from safetensors import SafetensorError

from protocols.identity import Identity
from secure_afl.analytic.rows import ClientData
from secure_afl.data.tables.references import references
from secure_afl.errors import ConfigError, NotKept, NotSaved
from secure_afl.features.backbone import Backbone
from secure_afl.features.reduction import Reduction
from secure_afl.features.table import design_behind
from secure_afl.federation.keys import Keys, load_keys
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import Terms, check_cohort
from secure_afl.privacy.ledger import Ledger
from secure_afl.progress import Progress
from secure_afl.runs.advice import warn_of_terms
from secure_afl.runs.choose import make_terms, open_ledger, reopen_ledger
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import Accounts, Prepared, prepare
from secure_afl.runs.recovery import Recovery, digest_rows
from secure_afl.runs.reduce import choose_reduction, unfold
from secure_afl.runs.saving import check_folder, check_replaceable, save
from secure_afl.runs.tables import row_rule

log = logging.getLogger("secure_afl")

Deliver = Callable[[Result], None]
Tell = Callable[[Accounts], None]

# An independent stream of the seed, beside those of `prepare`.
_DROP = 2


def run(
    config: RunConfig,
    progress: Progress | None = None,
    deliver: Deliver | None = None,
    tell: Tell | None = None,
) -> Result:
    """Run a federation as configured and, with `config.out`, save what it yields.

    With `config.out` or `config.ledger` the run outlasts its process: `resume` finishes it.

    Args:
        config: the settings.
        progress: called with what is under way, how much is done, and of how much.
        deliver: called with the result before what the run kept is deleted.
        tell: called with the account of what was read, as `prepare` says.

    Raises:
        Unfinished: an earlier run was stopped, and has to be finished first.
        NotSaved: the run is done, and what it yields cannot be written.
        SecureAflError: with what to change.
    """
    if config.out is not None:
        check_folder(Path(config.out))
    # All that can be wrong with the settings shows before the features are made.
    parties = _Parties(config)
    recovery = Recovery.begin(config, parties.receiver)
    if config.out is not None:
        check_replaceable(Path(config.out), personal=parties.terms.method.personalises)
    ledger = open_ledger(config)
    return _finish(config, parties, ledger, recovery, progress, deliver, tell)


def resume(
    folder: Path,
    progress: Progress | None = None,
    deliver: Deliver | None = None,
    tell: Tell | None = None,
) -> Result:
    """Finish a run that was stopped, from the sums that are out; none comes out again.

    A session that was charged and whose sum was not kept is given back first. If no sum is out the
    run begins anew.

    Args:
        folder: the run's own, the one of its `--out`, or the one beside its ledger.
        progress, deliver, tell: as for `run`.

    Raises:
        NotResumable: there is nothing to finish, or it is damaged, a copy, or cannot be opened.
        Busy: another process has it.
        DataError: rows have changed, and sums are to come.
        NotSaved, SecureAflError: as `run`.
    """
    recovery = Recovery.reopen(folder)
    try:
        config = recovery.config
        parties = _Parties(config)
        ledger = reopen_ledger(config, used=recovery.kept is not None)
        if recovery.settle(ledger):
            log.warning("a session was charged and its sum never kept; it is given back")
        if config.out is not None:
            check_folder(Path(config.out))
            check_replaceable(Path(config.out), personal=parties.terms.method.personalises)
    except BaseException:
        recovery.close()
        raise
    return _finish(config, parties, ledger, recovery, progress, deliver, tell)


class _Parties:
    """The terms of a run, and its parties' keys where they have some."""

    def __init__(self, config: RunConfig) -> None:
        self.terms = make_terms(config)
        self.keys = load_keys(Path(config.keys)) if config.keys else None
        protocol = self.terms.protocol
        self.receiver: Identity | None = None
        if self.keys is not None:
            self.receiver = self.keys.coordinators(protocol)[protocol.receiver]


def _finish(
    config: RunConfig,
    parties: _Parties,
    ledger: Ledger | None,
    recovery: Recovery | None,
    progress: Progress | None,
    deliver: Deliver | None,
    tell: Tell | None,
) -> Result:
    """Run to the end, or go on; what was kept is deleted once the result is where it belongs."""
    terms = parties.terms
    try:
        prepared = prepare(
            config, terms, progress, lambda data: check_terms(config, terms, len(data)), tell
        )
        result = federate(
            config, terms, prepared, keys=parties.keys, ledger=ledger, recovery=recovery
        )
    except BaseException as error:
        if recovery is not None:
            recovery.stopped(error, ledger)
        raise
    try:
        unsaved = (
            None if config.out is None else _save(result, prepared, config, parties.keys, recovery)
        )
        if config.out is not None and unsaved is None and recovery is not None:
            recovery.remove()
        if deliver is not None:
            deliver(result)
        if unsaved is not None:
            raise unsaved
        if recovery is not None:
            recovery.remove()
    except BaseException as error:
        if recovery is not None:
            recovery.note(error)
            recovery.close()
        raise
    return result


def _save(
    result: Result,
    prepared: Prepared,
    config: RunConfig,
    keys: Keys | None,
    recovery: Recovery | None,
) -> NotSaved | None:
    """Save a result; returns why it cannot be saved, once what it is made of is safe."""
    assert config.out is not None, "there is a folder"
    try:
        save(result, prepared.backbone, config, Path(config.out), keys)
    except (OSError, SafetensorError, ConfigError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = f"the results cannot be saved into {config.out} ({reason})"
        if recovery is not None:
            try:
                recovery.rescue(user_state_path("secure-afl", appauthor=False))
            except NotKept as lost:
                problem += f"; and what they are made of is lost: {lost}"
        return NotSaved(f"{problem}. Make room there, or make the folder writable", result)
    return None


def federate(
    config: RunConfig,
    terms: Terms,
    prepared: Prepared,
    *,
    keys: Keys | None = None,
    ledger: Ledger | None = None,
    recovery: Recovery | None = None,
) -> Result:
    """Run a federation over prepared rows; with `recovery`, go on with what it has."""
    reduction = choose_reduction(config, terms, prepared)

    def rows(data: ClientData) -> ClientData:
        if reduction is None:
            return data
        return replace(data, features=reduction.apply(data.features))

    federation = make_federation(
        config, terms, prepared.backbone, reduction, keys, ledger, prepared.lineages
    )
    clients = [rows(data) for data in prepared.clients]
    test = None if prepared.test is None else rows(prepared.test)
    holdout = [rows(data) for data in prepared.holdout]
    changed: list[str] = []
    if recovery is not None:
        kept = recovery.kept
        sums = terms.method.sums if kept is None else terms.method.run_sums(kept.start.task)
        changed = recovery.compare(_digests(clients, holdout, test), sums)
    result = federation.run(
        clients,
        classes=prepared.classes,
        max_rows=config.max_rows,
        test=test,
        holdout=holdout,
        drop=_choose_drops(config, prepared.clients),
        keeper=recovery,
    )
    bounds = terms.declared_rows(prepared.clients, config.max_rows)
    warnings = (*warn_of_terms(terms, bounds), *result.report.warnings)
    if changed:
        warnings = (
            f"The rows of {', '.join(changed)} have changed since they went into the sum: scores, "
            "numbers of rows and personal models here are of the rows as they are now.",
            *warnings,
        )
    return replace(
        result,
        model=unfold(reduction, result.model),
        personal={name: unfold(reduction, model) for name, model in result.personal.items()},
        report=msgspec.structs.replace(
            result.report,
            seconds=msgspec.structs.replace(result.report.seconds, features=prepared.seconds),
            settings=config.flat(),
            warnings=warnings,
        ),
        references=references(design_behind(prepared.backbone)),
    )


def make_federation(
    config: RunConfig,
    terms: Terms,
    backbone: Backbone,
    reduction: Reduction | None = None,
    keys: Keys | None = None,
    ledger: Ledger | None = None,
    lineages: Mapping[str, str] | None = None,
) -> Federation:
    """Make the configured federation, over this backbone's features, reduced or not."""
    # The columns are those that the rows were made by, whatever the file holds by now.
    design, rule = design_behind(backbone), row_rule(config)
    return Federation(
        terms.method,
        terms.protocol,
        feature_bits=config.feature_bits,
        row_mode=rule.mode,
        clip=rule.clip,
        columns=None if design is None else design.columns,
        min_cohort=config.min_cohort,
        corrupt=config.corrupt,
        backbone=_digest(backbone, reduction),
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
            f"--dimension and --public reduce features; {config.method}, as it is set, learns from "
            "pixels. Leave them out, or choose a method or --architecture on features"
        )
    if terms.privacy is not None and config.holdout > 0:
        # Which rows are held out turns on how many there are: one more would move many others.
        raise ConfigError(
            f"--holdout {config.holdout:g} with --epsilon; allowed: 0, for scores on clients' own "
            "rows would be releases too. Leave one of the two out"
        )
    least = config.min_cohort or terms.default_cohort(clients)
    if terms.method.least_cohort > 2:
        check_cohort(terms.method, clients, least)
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


def _digests(
    clients: Sequence[ClientData], holdout: Sequence[ClientData], test: ClientData | None
) -> dict[str, bytes]:
    found = {f"'{data.name}'": digest_rows(data) for data in clients}
    found |= {f"'{data.name}' (held out)": digest_rows(data) for data in holdout}
    return found | ({} if test is None else {"the test set": digest_rows(test)})


def _choose_drops(config: RunConfig, clients: Sequence[ClientData]) -> list[str]:
    rng = np.random.default_rng([config.seed, _DROP])
    chosen = rng.choice(len(clients), size=config.drop, replace=False)
    return [clients[i].name for i in chosen]
