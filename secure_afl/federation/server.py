"""The server's half of a federation: the public state, and the sessions of its rounds."""

import secrets
from collections.abc import Mapping

from protocols.identity import Enrolment
from protocols.party import Sum
from protocols.protocol import Protocol, form_session
from protocols.session import Session
from secure_afl.federation.sums import context, noise, sum_layout
from secure_afl.methods import AnyMethod, Task


class FederationServer:
    """The coordinators' half: the public state, and the sessions of its rounds."""

    def __init__(self, method: AnyMethod, protocol: Protocol, task: Task) -> None:
        self.method = method
        self.protocol = protocol
        self.public = method.begin(task)

    def form(
        self, enrolments: Mapping[str, Enrolment], nonce: bytes, min_cohort: int, corrupt: int
    ) -> Session | None:
        """The session of the next round; None when there is no next."""
        layout = sum_layout(self.method, self.public)
        if layout is None:
            return None
        return form_session(
            self.protocol,
            enrolments,
            nonce,
            layout,
            min_cohort=min_cohort,
            corrupt=corrupt,
            context=context(self.method, self.public),
        )

    def absorb(self, released: Sum) -> None:
        """Move the public state on by a round's sum; centrally placed noise comes in here."""
        total = released.total
        mechanism = self.public.task.mechanism
        if mechanism is not None and mechanism.privacy.placement == "central":
            total = total + noise(self.method, self.public, secrets.token_bytes(32))
        self.public = self.method.absorb(self.public, total, released.included)
