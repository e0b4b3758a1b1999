"""`ckks` and `bfv`: clients encrypt, a server adds ciphertexts, a key holder opens one sum.

The key holder makes a key pair for the session and sends the public key to the clients. A client
encrypts its vector once, sends the ciphertexts to the server, and vouches for them to the key
holder: by their digest and, in a verified session, by the seed that they were encrypted with. The
key holder closes its list, the server adds up the ciphertexts of that list which it has, and the
key holder opens their sum (Cheon, Kim, Kim and Song 2017; BFV: Fan and Vercauteren 2012).

A key holder that decrypts what it is given is a decryption oracle, and one wisely chosen
ciphertext takes the key out of it. In a verified session it therefore encrypts zero under every
client's seed, adds up, and opens nothing whose second component differs from that sum in a single
bit, in any chunk. It then subtracts the first components, modulo q and before anything is rounded.
That takes the clients' noise away, and what is left is read without the key, so that what is
released depends on the vectors alone (Li and Micciancio 2021 on what noise in released sums gives
away).
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from protocols.party import Party
from protocols.protocol import PROTOCOLS, Coalition, Protocol
from protocols.roster import CLIENT
from protocols.schemes.encrypted.messages import KEY_HOLDER, SERVER, UPLOAD
from protocols.schemes.encrypted.parameters import BFV, CKKS


class EncryptedSum(Protocol, frozen=True):
    """Common base of `ckks` and `bfv`.

    Attributes:
        verify: the key holder opens only what the clients' own seeds account for.
    """

    summary = (
        "a server adds ciphertexts, a key holder opens one sum; neither sees a client's vector, "
        "unless they work together"
    )
    receiver_role = KEY_HOLDER
    receiver_title = "the key holder"
    upload_step = UPLOAD
    verify: Annotated[
        bool,
        Meta(
            description="the key holder checks that the sum is that of the clients' own "
            "encryptions; without it, server and clients must be trusted to follow the protocol."
        ),
    ] = True

    @classmethod
    def parties(cls) -> Mapping[str, type[Party]]:
        """Import the client, the server and the key holder."""
        from protocols.schemes.encrypted.client import EncryptingClient
        from protocols.schemes.encrypted.key_holder import KeyHolder
        from protocols.schemes.encrypted.server import Server

        return {CLIENT: EncryptingClient, SERVER: Server, KEY_HOLDER: KeyHolder}

    @property
    def protects(self) -> str:  # type: ignore[override]
        """Sentence for reports; it says where sums are not verified."""
        hidden = (
            "each client's vector from the server and from the key holder, unless they work "
            "together; the key holder receives the sum"
        )
        if self.verify:
            return hidden
        return f"{hidden}; NOT VERIFIED: only while server and clients follow the protocol"

    def coordinators(self) -> Mapping[str, str]:
        """Return the server and the key holder."""
        # The server closes first, so that a client that reached one of the two only is left out.
        return {SERVER: SERVER, KEY_HOLDER: KEY_HOLDER}

    def coalitions(self) -> tuple[Coalition, ...]:
        """List the coalitions: server, key holder, server with a client, server with key holder."""
        server = Coalition(
            "server",
            "server",
            "The server by itself, which receives ciphertexts only.",
            (SERVER,),
            "nothing",
            swept=True,
        )
        key_holder = Coalition(
            "key-holder",
            "key holder",
            "The key holder by itself, which opens one sum.",
            (KEY_HOLDER,),
            "sum",
            swept=True,
        )
        with_client = Coalition(
            "server-and-client",
            "server with one client",
            "The server, which shows the last client what it receives.",
            (SERVER,),
            "nothing",
            clients=1,
        )
        both = Coalition(
            "server-and-key-holder",
            "server with key holder",
            "The two together: the coalition that encrypted sums do not withstand.",
            (SERVER, KEY_HOLDER),
            "vectors",
        )
        return server, key_holder, with_client, both


@PROTOCOLS.register
class Ckks(EncryptedSum, frozen=True, tag="ckks"):
    """Sums under CKKS, rounded to the integers that they are."""

    name: ClassVar[Literal["ckks"]] = CKKS  # type: ignore[assignment]


@PROTOCOLS.register
class Bfv(EncryptedSum, frozen=True, tag="bfv"):
    """Sums under BFV, whose plaintexts are integers: to compare with."""

    name: ClassVar[Literal["bfv"]] = BFV  # type: ignore[assignment]
