"""Errors of the learning side. Those of the blind sums, and the base of all, are in `protocols`."""

from protocols.errors import SecureAflError

__all__ = ["ConfigError", "DataError", "LedgerRefusal", "SecureAflError"]


class DataError(SecureAflError, ValueError):
    """Input data that cannot be used.

    The message names the value, the range and the fix.
    """


class ConfigError(SecureAflError, ValueError):
    """A setting that cannot be used; the message names the field and the allowed values."""


class LedgerRefusal(SecureAflError):
    """A ledger's refusal of another release about these data.

    The message says what is left.
    """
