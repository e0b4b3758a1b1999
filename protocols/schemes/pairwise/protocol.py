"""`pairwise`: one server, which sees the sum and no addend (SecAgg+).

Every pair of neighbouring clients agrees on a mask that one adds and the other subtracts; every
client adds a mask of its own besides. The masks' seeds are shared among the neighbours, who open,
for each client, either the mask of its own (it is in the sum) or those with its neighbours (it has
vanished). Bonawitz et al. 2017 ("Practical Secure Aggregation for Privacy-Preserving Machine
Learning", CCS 2017) and, for the graph, Bell et al. 2020 (CCS 2020). `docs/pairwise.md` says whom
one has to trust with what.

Read on in `secagg_parameters` (how many neighbours), `pairwise_wire` (messages and keys),
`pairwise_client`, `pairwise_server`.

Masks agreed by X25519 can be recorded by the server now and opened by a later quantum computer.
Everybody else sees the links only, which are sealed by a hybrid with ML-KEM.
"""

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from protocols.errors import InvalidSession
from protocols.party import Party
from protocols.protocol import Protocol
from protocols.schemes.pairwise.client import PairwiseClient
from protocols.schemes.pairwise.messages import NAME, SERVER, UPLOAD, parameters_of
from protocols.schemes.pairwise.parameters import Server
from protocols.schemes.pairwise.server import PairwiseServer
from protocols.session import CLIENT, Session


class Pairwise(Protocol, frozen=True, tag=NAME):
    """Pairwise masking; the graph and the threshold follow from what is declared here.

    Attributes:
        corrupt_fraction: of the clients that may work with the server, 0 ≤ γ < 1.
        dropout_fraction: of the clients that may vanish, 0 ≤ δ < 1.
        server: `curious`: it keeps to the protocol. `lying_in_unmasking`: it may lie about who
            vanished. `lying`: it may lie in every step; clients then draw their own neighbours.
    """

    corrupt_fraction: float = 0.1
    dropout_fraction: float = 0.1
    server: Server = "lying"

    name = NAME
    protects = (
        "each client's vector from the server and the other clients, as long as no more clients "
        "than declared work with the server; no second organisation is needed"
    )
    parties: ClassVar[Mapping[str, type[Party]]] = {CLIENT: PairwiseClient, SERVER: PairwiseServer}
    upload_step = UPLOAD

    def __post_init__(self) -> None:
        for field in ("corrupt_fraction", "dropout_fraction"):
            if type(getattr(self, field)) is int:  # equal values, equal bytes
                msgspec.structs.force_setattr(self, field, float(getattr(self, field)))

    def coordinators(self) -> Mapping[str, str]:
        return {SERVER: SERVER}

    def colluders(self, clients: int) -> int:
        return int(self.corrupt_fraction * clients)

    def check(self, session: Session) -> None:
        """As everywhere, and the session's terms are ones that the parameters bear.

        Raises:
            InvalidSession: also for more declared corrupt clients than `corrupt_fraction`, a
                minimum cohort that so many could see through, or too few clients for the promise.
        """
        super().check(session)
        parameters = parameters_of(session)
        if session.corrupt > parameters.corrupt:
            raise InvalidSession(
                f"{session.corrupt} corrupt clients declared, and a corrupt fraction of "
                f"{self.corrupt_fraction} allows {parameters.corrupt} of {parameters.clients}",
                fix="raise the corrupt fraction",
            )
        if session.min_cohort < parameters.corrupt + 2:
            raise InvalidSession(
                f"minimum cohort {session.min_cohort}, allowed with {parameters.corrupt} corrupt "
                f"clients: ≥ {parameters.corrupt + 2}",
                fix="raise the minimum cohort, or lower the corrupt fraction",
            )
