"""The server's half of a federation: the public state, and the sessions of its rounds."""

import secrets
from collections.abc import Mapping

from protocols.identity import Enrolment
from protocols.party import Sum
from protocols.protocol import form_session
from protocols.session import Session
from secure_afl.federation.sums import context, sum_layout, this_noisy_sum
from secure_afl.federation.task import Terms
from secure_afl.methods.method import Task


class FederationServer:
    """The coordinators' half: the public state, and the sessions of its rounds."""

    def __init__(self, terms: Terms, task: Task) -> None:
        self.method = terms.method
        self.protocol = terms.protocol
        self.public = terms.method.begin(task)

    def form(
        self, enrolments: Mapping[str, Enrolment], nonce: bytes, min_cohort: int, corrupt: int
    ) -> Session | None:
        """Form the session of the next round; None when there is no next."""
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
            total = total + this_noisy_sum(self.method, self.public).share(secrets.token_bytes(32))
        self.public = self.method.absorb(self.public, total, released.included)
