"""Blind sums of integer vectors: parties, messages, sessions, and a network to move them.

It must not know what the vectors mean. Read in this order: `layout` (what is summed), `roster`,
`identity` and `session` (who agrees on what), `message` (how it moves), `release` (what is said
about a sum), `party` (who does what), `protocol` (what a scheme declares), `registry` (who finds
it), `schemes.plain` (the shortest scheme), `schemes.additive` (with `primitives.masks`, `uploads`
and `spool`), `schemes.pairwise`, `schemes.encrypted`, `network` (the in-process driver).
"""

from typing import TYPE_CHECKING

from protocols.lazy import lazily

if TYPE_CHECKING:
    from protocols.identity import Enrolment, Identity, Member
    from protocols.layout import Block, Layout
    from protocols.network import Fault, FaultPlan, Network, Transcript
    from protocols.party import Party, Sum
    from protocols.protocol import Protocol, enrol, form_session, new_nonce
    from protocols.release import Release
    from protocols.roster import Line, Roster
    from protocols.schemes.additive.protocol import Additive
    from protocols.schemes.encrypted.protocol import Bfv, Ckks
    from protocols.schemes.pairwise.protocol import Pairwise
    from protocols.schemes.plain import Plain
    from protocols.session import Session

__all__ = [
    "Additive",
    "Bfv",
    "Block",
    "Ckks",
    "Enrolment",
    "Fault",
    "FaultPlan",
    "Identity",
    "Layout",
    "Line",
    "Member",
    "Network",
    "Pairwise",
    "Party",
    "Plain",
    "Protocol",
    "Release",
    "Roster",
    "Session",
    "Sum",
    "Transcript",
    "enrol",
    "form_session",
    "new_nonce",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "protocols.identity": (
            "Enrolment",
            "Identity",
            "Member",
        ),
        "protocols.layout": (
            "Block",
            "Layout",
        ),
        "protocols.network": (
            "Fault",
            "FaultPlan",
            "Network",
            "Transcript",
        ),
        "protocols.party": (
            "Party",
            "Sum",
        ),
        "protocols.protocol": (
            "Protocol",
            "enrol",
            "form_session",
            "new_nonce",
        ),
        "protocols.release": ("Release",),
        "protocols.roster": (
            "Line",
            "Roster",
        ),
        "protocols.schemes.additive.protocol": ("Additive",),
        "protocols.schemes.encrypted.protocol": (
            "Bfv",
            "Ckks",
        ),
        "protocols.schemes.pairwise.protocol": ("Pairwise",),
        "protocols.schemes.plain": ("Plain",),
        "protocols.session": ("Session",),
    },
)
