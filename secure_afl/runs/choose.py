"""From settings to the things that they name: method, protocol, promise, ledger."""

from pathlib import Path

from protocols.protocol import PROTOCOLS, Protocol
from secure_afl.errors import ConfigError
from secure_afl.federation.task import Terms
from secure_afl.methods.evaluated import evaluated
from secure_afl.methods.method import METHODS, AnyMethod
from secure_afl.methods.scaled import scaled
from secure_afl.privacy.ledger import Budget, Ledger
from secure_afl.privacy.mechanism import Privacy
from secure_afl.runs.config import RunConfig


def make_terms(config: RunConfig) -> Terms:
    """Make the configured method, protocol and promise.

    Raises:
        SecureAflError: settings that contradict each other.
    """
    method = make_method(config)
    if config.evaluate is not None:
        method = evaluated(method, config.evaluate)
    if config.scale is not None:
        if config.epsilon is not None:
            raise ConfigError(
                "--scale federated with --epsilon: one row can move a quantile as far as it likes, "
                "and no noise hides that; declare ranges, or leave one of the two out"
            )
        method = scaled(method)
    return Terms(method, make_protocol(config), make_privacy(config))


def make_method(config: RunConfig) -> AnyMethod:
    """Make the configured method."""
    declared = METHODS[config.method]
    settings = config.given_to(declared)
    return declared.configured(settings, private=config.epsilon is not None, seed=config.seed)


def make_protocol(config: RunConfig) -> Protocol:
    """Make the configured protocol."""
    declared = PROTOCOLS[config.protocol]
    return declared(**config.given_to(declared))


def make_privacy(config: RunConfig) -> Privacy | None:
    """Make the configured promise; None for exact sums."""
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
    """Open the configured ledger, or begin a new one; None without one.

    Nothing is written before the first release. With keys, their folder is the ledger's anchor.

    Raises:
        LedgerRefusal: no such file, one that exists and is to be new, or one that is not as it was
            written.
    """
    if config.ledger is None:
        return None
    budget = None
    if config.budget is not None:
        budget = Budget(config.budget, config.delta, config.unit, config.neighbours)
    anchor = None if config.keys is None else Path(config.keys)
    return Ledger.open(Path(config.ledger), budget, anchor=anchor, new=config.new_ledger)


def reopen_ledger(config: RunConfig, *, used: bool) -> Ledger | None:
    """Open the ledger of a run that was stopped, which may or may not have begun a new one.

    Args:
        used: a sum came out, so that there is a ledger.

    Raises:
        LedgerRefusal: as `open_ledger`.
    """
    if config.ledger is None or not config.new_ledger:
        return open_ledger(config)
    path = Path(config.ledger)
    if used or path.exists():
        return open_ledger(config.replaced(new_ledger=False))
    Ledger.clear_unborn(path, anchor=None if config.keys is None else Path(config.keys))
    return open_ledger(config)
