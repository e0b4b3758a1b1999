"""What whoever drives all parties tells the clients' ledger about a session.

Nothing here may end a run: a sum that is out must not be lost because a note about it cannot be
written, and what is not noted counts.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from protocols.codec import encode
from protocols.errors import NotVoidable, SessionAborted
from protocols.network import Network
from protocols.protocol import Protocol
from protocols.session import Session
from protocols.void import Evidence, Voids
from secure_afl.errors import LedgerRefusal, SecureAflError
from secure_afl.privacy.ledger import Ledger

log = logging.getLogger("secure_afl")


@contextmanager
def unsent(ledger: Ledger | None, session: Session) -> Iterator[None]:
    """Give a session back if not all parties join it; nothing of it has been sent then."""
    try:
        yield
    except SecureAflError as error:
        _void(ledger, session, f"refused before anything was sent: {error}")
        raise


@contextmanager
def given_back(ledger: Ledger | None, protocol: Protocol, network: Network) -> Iterator[None]:
    """Give a session back that ends without a sum, if enough of its parties can sign for that."""
    try:
        yield
    except SessionAborted as error:
        session = network.parties[0].session
        signed = []
        for party in network.parties:
            with suppress(NotVoidable):
                signed.append(party.void())
        if ledger is None or not signed:
            raise
        voids = Voids.of(signed)
        lacks = protocol.void_lacks(session, voids.parties(session))
        if lacks:
            log.warning("the session counts as a release: no void of %s", lacks)
            raise
        try:
            evidence = Evidence(encode(session.header), session.thin, voids)
            ledger.void(session.id, f"no sum came out: {error}"[:1000], encode(evidence))
        except LedgerRefusal as problem:
            log.warning("the session's releases count: %s", problem)
        raise


@contextmanager
def dropped(ledger: Ledger | None, session: Session) -> Iterator[None]:
    """Give a session back whose sum cannot be kept: it is dropped, and nobody was given it."""
    try:
        yield
    except SecureAflError as error:
        _void(ledger, session, f"its sum could not be kept, and was dropped: {error}")
        raise


def note_released(ledger: Ledger | None, session: Session) -> None:
    """Note that a session's sum is out."""
    if ledger is None:
        return
    try:
        ledger.released(session.id)
    except LedgerRefusal as problem:
        log.warning("the ledger does not know that the sum is out: %s", problem)


def _void(ledger: Ledger | None, session: Session, reason: str) -> None:
    """Give a session back, if the ledger knows it and can be written."""
    try:
        if ledger is not None and ledger.knows(session.id):
            ledger.void(session.id, reason[:1000])
    except LedgerRefusal as problem:
        log.warning("the session's releases count: %s", problem)
