"""What a run's settings alone should make people think of."""

from collections.abc import Mapping, Sequence
from typing import Any

from secure_afl.federation.task import Terms

NO_LEDGER = (
    "No ledger: nothing keeps account of what was released about these data, and a second exact "
    "sum shows what changed in between. --ledger FILE --new-ledger begins one."
)


def warn_of_terms(terms: Terms, bounds: Sequence[int]) -> tuple[str, ...]:
    """List what is doubtful about a promise, given the public bounds on each client's units."""
    privacy = terms.privacy
    if privacy is None or privacy.delta * sum(bounds) < 1:
        return ()
    what = "patient" if terms.by_patient else "row"
    return (
        f"δ = {privacy.delta:g} is not below 1 / {sum(bounds):,}, the declared bound on all "
        f"{what}s: a mechanism that publishes one {what} at random keeps such a promise too. Take "
        "--delta "
        f"{0.1 / sum(bounds):.0e} or less.",
    )


def needs_ledger(settings: Mapping[str, Any]) -> bool:
    """Say whether a run about people's data keeps no account; the embedded digits are public.

    Args:
        settings: as its report has them.
    """
    return settings.get("ledger") is None and settings.get("clients") is not None
