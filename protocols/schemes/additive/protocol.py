"""`additive`: secret sharing among two or more aggregators; the client speaks once.

A client splits its vector into one share for each aggregator, which add up to it in the ring: the
collector gets the vector minus masks, every other aggregator gets the 32-byte seed of its mask. All
shares but one are independent of the vector, so that any m − 1 aggregators together know nothing.
The aggregators agree on whose uploads every one of them holds, sign that set once, add up their
shares over it, and the collector puts the partial sums together (Prio, Corrigan-Gibbs and Boneh
2017, section 3, without its proofs of range).
"""

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from protocols.errors import InvalidSession
from protocols.party import Party
from protocols.protocol import PROTOCOLS, Coalition, Protocol
from protocols.roster import CLIENT
from protocols.schemes.additive.messages import AGGREGATOR, COLLECTOR, MAX_AGGREGATORS, UPLOAD


@PROTOCOLS.register
class Additive(Protocol, frozen=True, tag="additive"):
    """Additive secret sharing.

    Attributes:
        aggregators: m, 2 to 16, the collector among them; the vectors stay hidden while one of
            them keeps its shares.
    """

    name = "additive"
    summary = "no aggregator sees a client's vector, unless all of them work together"
    protects = (
        "each client's vector from fewer than all aggregators together; the one that is the "
        "collector receives the sum"
    )
    receiver_role = COLLECTOR
    receiver_title = "the collector"
    upload_step = UPLOAD
    aggregators: Annotated[
        int,
        Meta(
            ge=2,
            le=MAX_AGGREGATORS,
            description="number of aggregators, the collector among them.",
            extra={"metavar": "M"},
        ),
    ] = 2

    def __post_init__(self) -> None:
        if not 2 <= self.aggregators <= MAX_AGGREGATORS:
            raise InvalidSession(
                f"{self.aggregators} aggregators, allowed: 2..{MAX_AGGREGATORS}",
                fix="with one server, use a protocol of masks or encryption",
            )

    @classmethod
    def parties(cls) -> Mapping[str, type[Party]]:
        """Import the client, the collector and the other aggregators' class."""
        from protocols.schemes.additive.aggregator import Aggregator, Collector
        from protocols.schemes.additive.client import AdditiveClient

        return {CLIENT: AdditiveClient, COLLECTOR: Collector, AGGREGATOR: Aggregator}

    def coordinators(self) -> Mapping[str, str]:
        """Name the collector, and m − 1 further aggregators."""
        others = {f"aggregator_{i}": AGGREGATOR for i in range(1, self.aggregators)}
        return {COLLECTOR: COLLECTOR} | others

    def coalitions(self) -> tuple[Coalition, ...]:
        """List the collector, all aggregators but the last, and all of them."""
        names = tuple(self.coordinators())
        return (
            Coalition(
                "collector",
                "collector",
                "The collector by itself, which receives the sum.",
                names[:1],
                "sum",
                swept=True,
            ),
            Coalition(
                "all-but-one-aggregator",
                "all aggregators but one",
                "The collector and all but one of the others; of two this is the collector alone.",
                names[:-1],
                "sum",
            ),
            Coalition(
                "all-aggregators",
                "all aggregators",
                "All aggregators together: the coalition that secret sharing does not withstand.",
                names,
                "vectors",
            ),
        )
