"""FedHiP: a model of one's own for every client, from the same single sum (Tang et al., 2025)."""

from typing import Annotated, Literal

from msgspec import Meta

from secure_afl.errors import ConfigError
from secure_afl.methods.method import METHODS
from secure_afl.methods.personal.joint import Joint
from secure_afl.methods.summed import PersonalName, Summed


@METHODS.register
class FedHiP(Summed, frozen=True, tag="fedhip"):
    """AFL whose clients make models of their own: `joint` by default, see `Joint` and `Proximal`.

    Attributes:
        reading: its name of earlier versions; refused, with the advice to set `personal`.
    """

    name = "fedhip"
    summary = "also a personal model for each client: afl with --personal joint"
    sums_of = "afl"
    personal: PersonalName = Joint.name
    reading: Annotated[
        Literal["joint", "proximal"] | None, Meta(description="is --personal now.")
    ] = None

    def __post_init__(self) -> None:
        if self.reading is not None:
            raise ConfigError(
                f"--reading is --personal now; pass --personal {self.reading} and leave --reading "
                "out"
            )
        super().__post_init__()
