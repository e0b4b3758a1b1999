"""Writes the test vectors that pin the wire format: `python -m tests.protocols.make_vectors`.

Run it only when the format changes on purpose, with a new wire version; each has a folder. Keys and
sealing are random, so that every run writes other sessions and messages. All keys in the files are
throwaway. Whatever is longer than 4 kB stands there as its length and SHA-256: parties that go on
from their saved states say it again.
"""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from protocols import (
    Additive,
    Bfv,
    Block,
    Ckks,
    Identity,
    Layout,
    Pairwise,
    Plain,
    Protocol,
    Roster,
    enrol,
    form_session,
    new_nonce,
)
from protocols.codec import WIRE_VERSION, encode
from protocols.layout import Integers, RingVector
from protocols.release import next_context
from tests.kit.worlds import Route, World, addends, messages_of, run

VECTORS = Path(__file__).parent.parent / "vectors"
FOLDER = VECTORS / f"v{WIRE_VERSION}"

PROTOCOLS: tuple[Protocol, ...] = (Plain(), Additive(), Pairwise(), Ckks(), Bfv())

RINGS = {
    32: (Block("full", 3, -(2**31), 2**31 - 1), Block("small", 2, 0, 1000, 0.5)),
    40: (Block("full", 3, -(2**39), 2**39 - 1), Block("small", 2, 0, 1000, 0.5, 0, 1000)),
    48: (Block("full", 3, 5 - 2**48, 4), Block("small", 2, -1000, 0, least=-1000, most=7)),
    64: (Block("full", 3, -(2**63), 2**63 - 1), Block("small", 2, -7, 7)),
}
LONG_BYTES = 4096
STATE = hashlib.sha256(b"the state that follows").digest()

Shortened = str | dict[str, str | int]


def shortened(data: bytes) -> Shortened:
    """Return bytes as hexadecimal digits, or what identifies them if they are long."""
    if len(data) <= LONG_BYTES:
        return data.hex()
    return {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def ring_case(blocks: tuple[Block, ...]) -> dict[str, Any]:
    """Three addends with sums at the bounds, packed, and their packed and decoded sum.

    Beside them an arbitrary total, and how many of its entries are outside.
    """
    layout = Layout(blocks)
    rng = random.Random(layout.ring_bits)
    vectors = addends(rng, layout, 3, edges=True)
    total: RingVector = layout.zeros()
    for vector in vectors:
        total = total + layout.embed(vector)
    anything = rng.randbytes(layout.packed_bytes)
    outside = layout.decode(layout.unpack(anything))
    return {
        "layout": encode(layout).hex(),
        "ring_bits": layout.ring_bits,
        "vectors": [vector.tolist() for vector in vectors],
        "packed": [layout.pack(layout.embed(vector)).hex() for vector in vectors],
        "packed_total": layout.pack(total).hex(),
        "total": layout.decode(total).total.tolist(),
        "packed_anything": anything.hex(),
        "anything": outside.total.tolist(),
        "outside": [list(count) for count in outside.outside],
    }


def vector_world(protocol: Protocol) -> World:
    """Three of four clients, in the second attempt of a run's second round."""
    layout = Layout((Block("signed", 2, -(2**35), 2**35, 2**-8), Block("count", 1, 0, 100)))
    names = ["client0", "client1", "client2"]
    vectors = dict(zip(names, addends(random.Random(0), layout, 3, edges=False), strict=True))
    nonce = new_nonce()
    identities = {name: Identity.generate(name) for name in names}
    bounds = {"client0": 2**63 - 1, "client1": 100}
    enrolments = enrol(protocol, identities, nonce, bounds=bounds)
    members = [enrolment.member for enrolment in enrolments.values()]
    absent = Identity.generate("client1a").enrol("client", nonce).member
    roster = Roster.of([*members, absent], 7)
    session = form_session(
        protocol,
        members,
        nonce,
        layout,
        min_cohort=3,
        corrupt=1,
        context=hashlib.sha256(b"what the sum is for").digest(),
        round=2,
        attempt=1,
        void=hashlib.sha256(b"what made the first attempt void").digest(),
        same_set=roster.bits(names),
        roster=roster,
    )
    return World(protocol, session, enrolments, vectors)


def session_case(protocol: Protocol) -> dict[str, Any]:
    """A session whose parties have begun, and every message that follows from there."""
    world = vector_world(protocol)
    session = world.session
    parties = world.parties()
    for party in parties:
        party.start()
    saved = {party.name: party.save() for party in parties}
    again = [world.load(name, state) for name, state in saved.items()]
    outcome = run(world, None, again)
    assert outcome.total is not None
    (release,) = (party.release for party in again if party.release is not None)
    assert session.members is not None
    return {
        "wire_version": WIRE_VERSION,
        "protocol": protocol.name,
        "parameters": encode(protocol).hex(),
        "header": encode(session.header).hex(),
        "roster": session.thin.hex(),
        "members": [encode(member).hex() for member in session.members],
        "id": session.id.hex(),
        "order": world.names,
        "enrolments": {name: e.save().hex() for name, e in world.enrolments.items()},
        "vectors": {name: vector.tolist() for name, vector in world.vectors.items()},
        "begun": {name: state.hex() for name, state in saved.items()},
        "ended": {name: shortened(r.held[-1]) for name, r in outcome.transcript.items()},
        "messages": [
            message_case(world, *item) for item in messages_of(outcome.transcript).items()
        ],
        "included": outcome.total.included,
        "total": plain_list(outcome.total.total),
        "release": encode(release).hex(),
        "next_context": next_context(session.context, release, STATE).hex(),
    }


def message_case(world: World, route: Route, data: bytes) -> dict[str, Any]:
    """A message as sent, and what its recipient finds in it."""
    content = world.content(data)
    return {**route._asdict(), "message": shortened(data), "content": shortened(content)}


def plain_list(vector: Integers) -> list[int]:
    return [int(entry) for entry in np.asarray(vector)]


def main() -> None:
    """Write the files of this version."""
    cases: dict[str, Any] = {protocol.name: session_case(protocol) for protocol in PROTOCOLS}
    rings = [ring_case(blocks) for blocks in RINGS.values()]
    cases["rings"] = {"wire_version": WIRE_VERSION, "rings": rings}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, case in cases.items():
        text = json.dumps(case, indent=1) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
