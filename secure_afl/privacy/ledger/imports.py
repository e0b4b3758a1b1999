"""Ledgers of format 1, which had no key: how their releases come into a new one."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from secure_afl.errors import LedgerRefusal
from secure_afl.privacy.ledger.book import Budget, Entry, Id
from secure_afl.privacy.ledger.ledger import Ledger
from secure_afl.privacy.sensitivity import Neighbours, Unit


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lineage: str
    run: Id
    session: Id
    rounds: int
    mu: float | None
    distance: float
    unit: Unit
    neighbours: Neighbours
    epsilon: float | None
    mechanism: str
    when: Annotated[datetime, Meta(tz=True)]


class _Book(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format_version: int
    budget: Budget | None
    entries: tuple[_Entry, ...]


def import_ledger(old: Path, new: Path, anchor: Path | None = None) -> Ledger:
    """Copy budget and releases of a ledger of format 1 into a new one, and mark them so.

    Whether the old file is as it was written nobody can tell: the owner answers for it. It is
    left as it is.

    Args:
        old: file of format 1.
        new: file that does not exist yet.
        anchor: folder of the client's identity, as for `Ledger.open`.

    Raises:
        LedgerRefusal: the old file cannot be read or has another format, or the new one exists or
            cannot be written.
    """
    try:
        book = msgspec.json.decode(old.read_bytes(), type=_Book)
        if book.format_version != 1:
            raise ValueError(f"format {book.format_version}, wanted 1")
        fields = [msgspec.to_builtins(entry) for entry in book.entries]
        entries = [msgspec.convert({**own, "party": "", "imported": True}, Entry) for own in fields]
    except (OSError, ValueError, RecursionError) as error:
        raise LedgerRefusal(
            f"{old} is no ledger of format 1 ({error}); name the file of an earlier version"
        ) from None
    ledger = Ledger.open(new, anchor=anchor, new=True)
    ledger.take_over(book.budget, entries)
    return ledger
