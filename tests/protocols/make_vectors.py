"""Writes the test vectors that pin the wire format: `python -m tests.protocols.make_vectors`.

Run it only when the format changes on purpose, with a new wire version. Keys and sealing are
random, so that every run writes other sessions and messages. All keys in the file are throwaway.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from protocols import Additive, Block, Layout, Pairwise, Plain, Protocol
from protocols.codec import WIRE_VERSION, encode
from protocols.layout import Integers, RingVector
from tests.kit.worlds import World, addends, make_world, messages_of, run

PATH = Path(__file__).parent.parent / "vectors" / "protocols.json"

PROTOCOLS: tuple[Protocol, ...] = (Plain(), Additive(), Pairwise())

RINGS = {
    32: (Block("full", 3, -(2**31), 2**31 - 1), Block("small", 2, 0, 1000, 0.5)),
    40: (Block("full", 3, -(2**39), 2**39 - 1), Block("small", 2, 0, 1000, 0.5)),
    48: (Block("full", 3, 5 - 2**48, 4), Block("small", 2, -1000, 0)),
    64: (Block("full", 3, -(2**63), 2**63 - 1), Block("small", 2, -7, 7)),
}


def ring_case(blocks: tuple[Block, ...]) -> dict[str, Any]:
    """Three addends with sums at the bounds, packed, and their packed and decoded sum."""
    layout = Layout(blocks)
    vectors = addends(random.Random(layout.ring_bits), layout, 3, edges=True)
    total: RingVector = layout.unpack(bytes(layout.packed_bytes))
    for vector in vectors:
        total = total + layout.embed(vector)
    return {
        "layout": encode(layout).hex(),
        "ring_bits": layout.ring_bits,
        "vectors": [vector.tolist() for vector in vectors],
        "packed": [layout.pack(layout.embed(vector)).hex() for vector in vectors],
        "packed_total": layout.pack(total).hex(),
        "total": layout.decode(total).tolist(),
    }


def session_case(protocol: Protocol) -> dict[str, Any]:
    """A session whose parties have begun, and every message that follows from there."""
    layout = Layout((Block("signed", 2, -(2**35), 2**35, 2**-8), Block("count", 1, 0, 100)))
    vectors = addends(random.Random(0), layout, 3, edges=False)
    world = make_world(protocol, vectors, layout, min_cohort=2)
    parties = world.parties()
    for party in parties:
        party.start()
    saved = {party.name: party.save() for party in parties}
    outcome = run(world, None, [world.load(name, state) for name, state in saved.items()])
    assert outcome.total is not None
    return {
        "protocol": protocol.name,
        "parameters": encode(protocol).hex(),
        "session": encode(world.session).hex(),
        "id": world.session.id.hex(),
        "order": world.names,
        "enrolments": {name: e.save().hex() for name, e in world.enrolments.items()},
        "vectors": {name: vector.tolist() for name, vector in world.vectors.items()},
        "begun": {name: state.hex() for name, state in saved.items()},
        "ended": {name: r.held[-1].hex() for name, r in outcome.transcript.items()},
        "messages": [
            message_case(world, *item) for item in messages_of(outcome.transcript).items()
        ],
        "included": outcome.total.included,
        "total": plain_list(outcome.total.total),
    }


def message_case(world: World, route: Any, data: bytes) -> dict[str, str]:
    """A message as sent, and what its recipient finds in it."""
    return {**route._asdict(), "message": data.hex(), "content": world.content(data).hex()}


def plain_list(vector: Integers) -> list[int]:
    return [int(entry) for entry in np.asarray(vector)]


def main() -> None:
    """Write the file."""
    vectors = {
        "wire_version": WIRE_VERSION,
        "rings": [ring_case(blocks) for blocks in RINGS.values()],
        "sessions": [session_case(protocol) for protocol in PROTOCOLS],
    }
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
