"""Blind sums of integer vectors: parties, messages, sessions, and a network to move them.

Knows vectors, parties and messages, and nothing of what the vectors mean. Read in this order:
`layout` (what is summed), `identity` and `session` (who agrees on what), `message` (how it moves),
`party` (who does what), `protocol` (what a scheme offers), `plain` (the shortest scheme),
`additive` (with `masks` and `spool`), `pairwise`, `ckks` (and `bfv`), `network` (the in-process
driver).
"""

from protocols.additive import Additive
from protocols.ckks import Bfv, Ckks
from protocols.identity import Enrolment, Identity, Member
from protocols.layout import Block, Layout
from protocols.network import Fault, FaultPlan, Network, Transcript
from protocols.pairwise import Pairwise
from protocols.party import Party, Sum
from protocols.plain import Plain
from protocols.protocol import Protocol, enrol, form_session, new_nonce
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
    "Member",
    "Network",
    "Pairwise",
    "Party",
    "Plain",
    "Protocol",
    "Session",
    "Sum",
    "Transcript",
    "enrol",
    "form_session",
    "new_nonce",
]
