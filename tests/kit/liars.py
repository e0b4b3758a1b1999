"""A collector that lies about who was in a sum, over a state that is almost that of before."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import Session, Sum
from protocols.release import sign_release
from secure_afl.federation.server import FederationServer
from secure_afl.methods import PublicState
from secure_afl.methods.averaging import AveragingPublic
from tests.kit.sites import Sites


def nudged(public: PublicState) -> AveragingPublic:
    """A state that differs in the last bit of every parameter."""
    assert isinstance(public, AveragingPublic)
    return msgspec.structs.replace(public, parameters=np.nextafter(public.parameters, 1))


def stalled(public: PublicState) -> AveragingPublic:
    """The state of the next round, with the parameters of this one but for the last bit."""
    after = nudged(public)
    return msgspec.structs.replace(after, round=after.round + 1)


def leave_out(
    sites: Sites,
    victim: str,
    patch: pytest.MonkeyPatch,
    then: Callable[[], None] = lambda: None,
) -> list[Sum]:
    """Let the collector sign that a client was not in the first sum; return the sums to come.

    A second one over all but that client would show its update.

    Args:
        then: is called once the lie is told.
    """
    out: list[Sum] = []
    honest = FederationServer.absorb

    def absorb(server: FederationServer, session: Session, released: Sum, *rest: Any) -> None:
        out.append(released)
        if len(out) > 1:
            honest(server, session, released, *rest)
            return
        party = sites.parties[sites.convener]
        others = [name for name in released.included if name != victim]
        lie = sign_release(session, party.identity, released.total, others)
        server.public = stalled(server.public)
        server.history = server.history.then(lie, server.public)
        # The liar's own half knows better.
        assert party.half._position is not None
        party.half._position = replace(party.half._position, party=None)
        then()

    patch.setattr(FederationServer, "absorb", absorb)
    return out
