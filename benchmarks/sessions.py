"""What a session costs one client, as the number of clients grows: bytes that it is sent, and CPU.

python -m benchmarks.sessions [--before CHECKOUT]

The client takes part in full; the others do what it takes to give it real messages: they enrol,
advertise keys, and sign the survivors. The vector is short, so that the figures are the session's
own. `CHECKOUT` is a working tree at version 0.1, whose sessions carry the whole roster; what these
cost is measured beside, in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.record import write
from protocols import (
    Additive,
    Block,
    Ckks,
    Enrolment,
    Identity,
    Layout,
    Pairwise,
    Party,
    Protocol,
    Roster,
    Session,
    enrol,
    form_session,
    new_nonce,
)
from protocols import message as messages
from protocols.codec import encode
from protocols.message import Message
from protocols.primitives.shamir import SHARE_BYTES
from protocols.schemes.pairwise import keys as pairwise_keys
from protocols.schemes.pairwise import messages as wire
from protocols.schemes.pairwise.graph import draw_neighbours, sample

SIZES = (100, 1_000, 10_000)
ENTRIES = 100
CLIENT = "client00000"
REPEATS = 5


def main() -> None:
    """Write `results/sessions.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, help="a working tree at version 0.1")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"entries": ENTRIES}
    for clients in SIZES:
        crowd = Crowd(clients)
        row: dict[str, Any] = {"thin_list_bytes": len(encode(crowd.roster(Additive())))}
        row["additive"] = crowd.measure(Additive(), lambda *_: [])
        row["ckks"] = crowd.measure(Ckks(), ckks_messages)
        row["pairwise"] = crowd.measure(Pairwise(), pairwise_messages)
        row["pairwise"] |= crowd.floor(row["pairwise"]["client_cpu_seconds"])
        figures[f"n={clients}"] = row
    if arguments.before is not None:
        figures["before"] = before(arguments.before)
    write("sessions", figures)


class Crowd:
    """The clients of all sessions of one size."""

    def __init__(self, clients: int) -> None:
        self.names = [f"client{index:05}" for index in range(clients)]
        self.identities = {name: Identity.generate(name) for name in self.names}

    def roster(self, protocol: Protocol) -> Roster:
        """The roster that the client has pinned."""
        return self._formed(protocol)[0].roster

    def _formed(self, protocol: Protocol) -> tuple[Session, dict[str, Enrolment]]:
        nonce = new_nonce()
        enrolments = enrol(protocol, self.identities, nonce)
        members = [enrolment.member for enrolment in enrolments.values()]
        clients = len(self.names)
        layout = Layout((Block("values", ENTRIES, -clients * 100, clients * 100),))
        cohort = clients // 2 + 1
        return form_session(protocol, members, nonce, layout, min_cohort=cohort), enrolments

    def measure(
        self,
        protocol: Protocol,
        said: Callable[["Crowd", Session, dict[str, Enrolment], Party], list[Message]],
    ) -> dict[str, Any]:
        """One client's bytes and CPU, from the session's header to its last word."""
        session, enrolments = self._formed(protocol)
        header, pinned = encode(session.header), session.roster
        party = protocol.client(session, enrolments[CLIENT], _vector)
        heard = said(self, session, enrolments, party)
        times, reads = [], []
        for _ in range(REPEATS):
            begin = time.process_time()
            own = Session.read(header, Roster(pinned.number, pinned.lines))
            _ = own.id, own.places
            reads.append(time.process_time() - begin)
            client = protocol.client(own, enrolments[CLIENT], _vector, entropy=lambda n: bytes(n))
            client.start()
            for message in heard:
                client.receive(message)
            times.append(time.process_time() - begin)
        sent = [len(encode(message)) for message in heard]
        return {
            "header_bytes": len(header),
            "message_bytes": sent,
            "sent_to_client_bytes": len(header) + sum(sent),
            "session_cpu_seconds": median(reads),
            "client_cpu_seconds": median(times),
        }

    def floor(self, client: float) -> dict[str, Any]:
        """What the signatures alone cost: a quorum's and the neighbours', as many as there are."""
        session, _ = self._formed(Pairwise())
        found = wire.parameters_of(session)
        masked = len(self.names) - 1 if found.complete else 2 * found.neighbours
        line, signature = session.line(CLIENT), self.identities[CLIENT].sign(b"")
        count = found.quorum - 1 + masked
        begin = time.process_time()
        for _ in range(count):
            line.verify(signature, b"")
        floor = time.process_time() - begin
        return {
            "neighbours": found.neighbours,
            "quorum": found.quorum,
            "signatures_verified": count,
            "signatures_cpu_seconds": floor,
            "client_over_signatures": client / floor,
        }


def ckks_messages(
    crowd: Crowd, session: Session, enrolments: dict[str, Enrolment], party: Party
) -> list[Message]:
    """The public key, from the key holder."""
    holder = Ckks().coordinator(session, enrolments["key_holder"])
    return [m for m in holder.start() if m.header.recipient == CLIENT]


def pairwise_messages(
    crowd: Crowd, session: Session, enrolments: dict[str, Enrolment], party: Party
) -> list[Message]:
    """What a server tells one client of a session in which everybody is there to the end."""
    found = wire.parameters_of(session)
    own = pairwise_keys.keyring(session, CLIENT, bytes(32))
    if found.clients_choose:
        chosen = draw_neighbours(own.drawing_seed, len(crowd.names), 0, found.neighbours)
        # As many again have drawn this client.
        held = sample(os.urandom(32), len(crowd.names) - 1, found.neighbours)
        owners = sorted({place + 1 for place in held})
        places = tuple(sorted({*chosen, *owners}))
    else:
        places = tuple(range(1, len(crowd.names)))
        owners = list(places)
    rings = {
        place: pairwise_keys.keyring(session, crowd.names[place], os.urandom(32))
        for place in places
    }
    adverts = tuple(
        pairwise_keys.sign_advert(session, crowd.identities[crowd.names[place]], ring)
        for place, ring in rings.items()
    )
    share_key = pairwise_keys.public_key(own.share_key)
    sealed = b""
    for owner in owners:
        private = pairwise_keys.private_key(rings[owner].share_key)
        agreed = pairwise_keys.agree(private, share_key, CLIENT)
        share = bytes(2 * SHARE_BYTES)
        sealed += pairwise_keys.seal_share(session, agreed, crowd.names[owner], CLIENT, share)
    survivors = session.bits(session.clients)
    statement = pairwise_keys.survivors_statement(session, survivors)
    signers = crowd.names[: found.quorum]
    signatures = b"".join(crowd.identities[name].sign(statement) for name in signers)
    server = enrolments["server"]
    channel = messages.open_channel(session, server, CLIENT, os.urandom(32))
    contents = {
        wire.KEYS: wire.Keys(places, adverts),
        wire.SHARES: wire.Shares(places, tuple(owners), sealed),
        wire.SURVIVORS: wire.Survivors(survivors),
        wire.SIGNATURES: wire.Signatures(session.bits(signers), signatures),
    }
    return [
        messages.seal(session, server, channel, step, encode(content))
        for step, content in contents.items()
    ]


def _vector(entropy: bytes) -> Any:
    return np.ones(ENTRIES, dtype=np.int64)


_BEFORE = """
import json, sys, time
from protocols import Additive, Block, Identity, Layout, enrol, form_session, new_nonce
from protocols.codec import decode, encode
from protocols.session import Session

found = {}
for clients in map(int, sys.argv[1:]):
    names = [f"client{index:05}" for index in range(clients)]
    nonce = new_nonce()
    enrolments = enrol(Additive(), {name: Identity.generate(name) for name in names}, nonce)
    layout = Layout((Block("values", 100, -clients * 100, clients * 100),))
    data = encode(form_session(Additive(), enrolments, nonce, layout, min_cohort=clients // 2 + 1))
    begin = time.process_time()
    session = decode(data, Session)
    _ = session.id, session.clients
    found[f"n={clients}"] = {
        "session_bytes": len(data), "session_cpu_seconds": time.process_time() - begin
    }
print(json.dumps(found))
"""


def before(checkout: Path) -> dict[str, Any]:
    """What reading the session alone cost a client at version 0.1."""
    command = [sys.executable, "-c", _BEFORE, *map(str, SIZES)]
    done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
