"""The ledger: a client's own record of what was released about its data, and its refusals.

`book` says what the file holds, `rules` what may be added, `store` how the file is kept and
authenticated, `rows` how data is recognised under another name. `ledger` joins them. It must not
know methods, sessions' contents or who carries a sum.
"""

from typing import TYPE_CHECKING

from protocols.lazy import lazily

if TYPE_CHECKING:
    from secure_afl.privacy.ledger.book import Budget, Charge, Entry, RunSpent, Spent, Void
    from secure_afl.privacy.ledger.ledger import Ledger

__all__ = ["Budget", "Charge", "Entry", "Ledger", "RunSpent", "Spent", "Void"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "secure_afl.privacy.ledger.book": (
            "Budget",
            "Charge",
            "Entry",
            "RunSpent",
            "Spent",
            "Void",
        ),
        "secure_afl.privacy.ledger.ledger": ("Ledger",),
    },
)
