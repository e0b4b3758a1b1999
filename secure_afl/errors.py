"""Errors of the learning side. Those of the blind sums, and the base of all, are in `protocols`."""

from typing import Any

from protocols.errors import SecureAflError

__all__ = [
    "ConfigError",
    "DataError",
    "LedgerRefusal",
    "NoModel",
    "NotKept",
    "NotResumable",
    "NotSaved",
    "OutOfBoundsTotal",
    "RunFailed",
    "SecureAflError",
    "Unfinished",
]


class DataError(SecureAflError, ValueError):
    """Input data that cannot be used.

    The message names the value, the range and the fix.
    """


class ConfigError(SecureAflError, ValueError):
    """A setting that cannot be used; the message names the field and the allowed values."""


class NoModel(ConfigError):
    """A sum that is out and of which no model can be made, however often it is tried."""


class LedgerRefusal(SecureAflError):
    """A ledger's refusal of another release about these data.

    The message says what is left.
    """


class RunFailed(SecureAflError):
    """A run between sites that is over without a model."""


class OutOfBoundsTotal(SecureAflError):
    """A released sum of which entries break their bounds, from which no model is made.

    Attributes:
        outside: block and number of its entries that are out of bounds.
    """

    def __init__(self, outside: tuple[tuple[str, int], ...]) -> None:
        self.outside = outside
        counts = ", ".join(f"{count} of block '{name}'" for name, count in outside)
        super().__init__(
            f"the sum is out and entries of it break their bounds ({counts}): a client lied about "
            "its vector, or declared too few rows. No model is made of it; run again without that "
            "client, or pass --accept-outside for a marked model (one-shot methods only)"
        )


class NotKept(SecureAflError):
    """A session or a sum that cannot be written down, and so is not begun, or dropped."""


class Unfinished(SecureAflError):
    """A run that was stopped, and stands in the way of a new one until it is finished."""


class NotResumable(SecureAflError):
    """A folder that no run can be finished from."""


class NotSaved(SecureAflError):
    """Results that cannot be written, of a run that is done.

    Attributes:
        result: of the run, as `secure_afl.federation.result.Result`.
    """

    def __init__(self, what: str, result: Any) -> None:
        self.result = result
        super().__init__(what)
