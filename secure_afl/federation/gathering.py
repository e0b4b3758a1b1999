"""All parties of a run in one process: how they are made, and how they come to a session."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from protocols.errors import InvalidSession
from protocols.identity import Identity
from protocols.party import Party
from protocols.roster import CLIENT, Roster
from protocols.session import Session
from secure_afl.federation.accounts import unsent
from secure_afl.federation.client import FederationClient
from secure_afl.federation.convener import Convener
from secure_afl.federation.participant import Participant
from secure_afl.federation.server import FederationCoordinator
from secure_afl.federation.task import Terms
from secure_afl.privacy.ledger import Ledger

log = logging.getLogger("secure_afl")

Member = TypeVar("Member", bound=FederationClient)


def gather(
    terms: Terms,
    members: Mapping[str, Member],
    clients: Mapping[str, Identity],
    coordinators: Mapping[str, Identity],
    *,
    pinned: Roster | None = None,
    same_set: bool = False,
) -> list[Participant]:
    """Make everybody's side of a run, coordinators first.

    Args:
        members: the clients' halves, by name.
        clients: their identities, by name.
        coordinators: identities, by the protocol's default names.
        pinned: the roster that coordinators have.
        same_set: coordinators insist on the same clients in all rounds.

    Raises:
        InvalidSession: a client has the name of a coordinator.
    """
    roles = terms.protocol.coordinators()
    people = [
        Participant(
            FederationCoordinator(identity.name, terms, pinned, same_set=same_set),
            identity,
            roles[default],
        )
        for default, identity in coordinators.items()
    ]
    if twice := {person.name for person in people} & set(members):
        raise InvalidSession(
            f"two parties have the name '{min(twice)}', which is a coordinator's",
            fix="rename the client",
        )
    return people + [
        Participant(member, clients[name], CLIENT, bound=member.max_rows)
        for name, member in members.items()
    ]


def open_session(
    convener: Convener,
    people: Sequence[Participant],
    ledger: Ledger | None = None,
    note: Callable[[Session], None] = lambda session: None,
) -> tuple[Session, list[Party]]:
    """Let everybody enrol in the next session and join it.

    Args:
        ledger: of the clients; it is given the session back if not all join.
        note: is told of the session before anybody joins.

    Returns:
        The session, and its parties in the order of `people`.

    Raises:
        InvalidSession, LedgerRefusal: a party does not join; nothing was sent.
    """
    nonce = convener.invite()
    for person in people:
        convener.enrol(person.hello(nonce))
    session, opening = convener.open()
    log.info("round %d: %r", session.header.round, session)
    note(session)
    # Clients share one view of the session in one process; it has no enrolments but their own.
    view = Session(session.header, session.roster)
    with unsent(ledger, session):
        for person in people:
            person.join(view if person.role == CLIENT else session, opening)
    return session, [person.party(nonce) for person in people]
