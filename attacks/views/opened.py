"""What can be opened of one session's uploads, whatever the protocol."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from attacks.views.view import View
from protocols.layout import Integers, Layout, RingVector
from protocols.roster import CLIENT


@dataclass(repr=False)
class Openings:
    """A coalition's openings of one session's uploads.

    Attributes:
        own: the vectors of the clients that belong to it, int64 of the layout's length.
        left: what is left of every upload that it saw, as bytes that are uniform while a mask is
            on them: packed ring vectors, seeds, or the low four bytes of ciphertexts' words.
        sums: exact sums over sets of clients.
        told: who is in the session's sum, as far as the coalition was told; None if it was not.
    """

    own: dict[str, Integers] = field(default_factory=dict)
    left: dict[str, bytes] = field(default_factory=dict)
    sums: dict[frozenset[str], Integers] = field(default_factory=dict)
    told: frozenset[str] | None = None

    def __repr__(self) -> str:
        return f"<Openings: {len(self.own)} own, {len(self.left)} uploads, {len(self.sums)} sums>"


Opener: TypeAlias = Callable[[View], Openings]

OPENERS: dict[str, Opener] = {}
"""What opens a view, by the protocol's name; nothing opens under a protocol without one."""


def opens(*protocols: str) -> Callable[[Opener], Opener]:
    """Register what opens views of sessions under these protocols."""

    def decorate(opener: Opener) -> Opener:
        OPENERS.update(dict.fromkeys(protocols, opener))
        return opener

    return decorate


def centred(layout: Layout, vector: RingVector) -> Integers:
    """Return the integers that a sum over some of the clients stands for.

    A part of a sum lies within the sum's own bounds widened to hold 0.
    """
    blocks = (
        msgspec.structs.replace(block, low=min(block.low, 0), high=max(block.high, 0))
        for block in layout.blocks
    )
    widened = Layout(tuple(blocks))
    # Wider bounds may ask for a wider ring, in which residues of the narrow one are no sums.
    if widened.ring_bits != layout.ring_bits:
        return layout.decode(vector).total
    return widened.decode(vector).total


def colluders(view: View) -> list[str]:
    """List the clients of the coalition."""
    return [name for name in view.records if view.session.line(name).role == CLIENT]


def coordinators(view: View, role: str) -> list[str]:
    """List the coordinators of the coalition that have a role."""
    return [name for name in view.session.of_role(role) if name in view.records]
