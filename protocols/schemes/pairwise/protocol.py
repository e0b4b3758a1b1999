"""`pairwise`: one server, which sees the sum and no addend (SecAgg+).

Every pair of neighbouring clients agrees on a mask that one adds and the other subtracts; every
client adds a mask of its own besides. The masks' seeds are shared among the neighbours, who open,
for each client, either the mask of its own (it is in the sum) or those with its neighbours (it has
vanished). Bonawitz et al. 2017 ("Practical Secure Aggregation for Privacy-Preserving Machine
Learning", CCS 2017) and, for the graph, Bell et al. 2020 (CCS 2020). `docs/pairwise.md` says whom
one has to trust with what.

Read on in `parameters` (how many neighbours), `messages`, `keys`, `client`, `server`.

Masks agreed by X25519 can be recorded by the server now and opened by a later quantum computer.
Everybody else sees the links only, which are sealed by a hybrid with ML-KEM.
"""

from collections.abc import Collection, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from protocols.errors import InvalidSession
from protocols.party import Party
from protocols.protocol import PROTOCOLS, Coalition, Protocol
from protocols.roster import CLIENT
from protocols.schemes.pairwise.messages import NAME, SERVER, UPLOAD, parameters_of
from protocols.schemes.pairwise.parameters import ServerTrust, conceded
from protocols.session import Session


@PROTOCOLS.register
class Pairwise(Protocol, frozen=True, tag=NAME):
    """Pairwise masking; the graph and the threshold follow from what is declared here.

    Attributes:
        corrupt_fraction: of the clients that may work with the server, 0 ≤ γ < 1.
        dropout_fraction: of the clients that may vanish, 0 ≤ δ < 1.
        server_trust: `curious`: the server keeps to the protocol. `lying_in_unmasking`: it may lie
            about who vanished. `lying`: it may lie in every step; clients then draw their own
            neighbours.
    """

    corrupt_fraction: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="share of clients that the server may have.",
            extra={"metavar": "SHARE"},
        ),
    ] = 0.1
    dropout_fraction: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="share of clients that may vanish.",
            extra={"metavar": "SHARE"},
        ),
    ] = 0.1
    server_trust: Annotated[
        ServerTrust,
        Meta(
            description="how far the server may lie: nowhere (curious), about who has vanished "
            "(lying_in_unmasking), in every step (lying).",
            extra={"metavar": "TRUST"},
        ),
    ] = "lying"

    name = NAME
    summary = "one server, which sees no client's vector"
    protects = (
        "each client's vector from the server and the other clients, as long as no more clients "
        "than declared work with the server; no second organisation is needed"
    )
    receiver_role = SERVER
    upload_step = UPLOAD

    def __post_init__(self) -> None:
        for field in ("corrupt_fraction", "dropout_fraction"):
            if type(getattr(self, field)) is int:  # equal values, equal bytes
                msgspec.structs.force_setattr(self, field, float(getattr(self, field)))

    @classmethod
    def parties(cls) -> Mapping[str, type[Party]]:
        """Import the client and the server."""
        from protocols.schemes.pairwise.client import PairwiseClient
        from protocols.schemes.pairwise.server import PairwiseServer

        return {CLIENT: PairwiseClient, SERVER: PairwiseServer}

    def coordinators(self) -> Mapping[str, str]:
        """Return the one server."""
        return {SERVER: SERVER}

    def coalitions(self) -> tuple[Coalition, ...]:
        """List the server, which adds up masked vectors."""
        meaning = "The server by itself, which receives masked vectors and their sum."
        return (Coalition("server", "server", meaning, (SERVER,), "sum", swept=True),)

    def colluders(self, clients: int) -> int:
        """Return ⌈γn⌉, and one at least of three clients or more, who may work with the server."""
        return conceded(self.corrupt_fraction, clients)

    def advice(self, clients: int) -> tuple[str, ...]:
        """Warn that of two clients neither may work with the server."""
        if self.colluders(clients) > 0:
            return ()
        return (
            f"With {clients} clients not one may work with the server, which could subtract its "
            "vector from the sum.",
        )

    def void_lacks(self, session: Session, signed: Collection[str]) -> str:
        """Say whose voids are missing, that no quorum can sign any survivors.

        Of n clients so many must have signed none that with all corrupt ones the others are fewer
        than a quorum. Where the server is trusted not to lie, its own word is what counts.
        """
        parameters = parameters_of(session)
        servers = session.of_role(SERVER)
        if self.server_trust == "curious":
            return ", ".join(name for name in servers if name not in signed)
        wanted = parameters.clients + parameters.corrupt - parameters.quorum + 1
        have = len(set(signed) & set(session.clients))
        return "" if have >= wanted else f"{wanted - have} more of {wanted} clients"

    def check(self, session: Session) -> None:
        """Check the session, and that its terms are ones that the parameters bear.

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
