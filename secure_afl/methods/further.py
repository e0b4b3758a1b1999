"""A method that adds rounds to another's: what it says of itself is what the other says."""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

import msgspec

from secure_afl.analytic.coefficients import Fit
from secure_afl.analytic.heads.head import Chosen, Fitted, Head
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import ConfigError
from secure_afl.methods.method import AnyMethod, Method, PublicState, Task
from secure_afl.methods.model import LinearModel, Model
from secure_afl.privacy.mechanism import Privacy

SAID = (
    "name",
    "summary",
    "row_additive",
    "prefers_fewer_dimensions",
    "hides_patients",
    "wants_noise",
    "releases_statistics",
    "releases_updates",
    "numeric",
    "ends_early",
    "fine_rows",
    "ignores",
    "sums_of",
)
"""Class variables that are the other method's own."""


class FurtherPublic(PublicState, frozen=True, eq=False):
    """A state that holds another method's."""

    learned: PublicState

    @property
    def broadcast(self) -> Statistics | None:
        """The summed statistics, where the method gives them to everybody."""
        return self.learned.broadcast


State = TypeVar("State", bound=FurtherPublic)


class Further(Method[State], Generic[State], frozen=True):
    """Base of the methods that add a round to another's, and learn nothing of their own.

    Attributes:
        method: the other, which learns.
    """

    method: AnyMethod

    @classmethod
    def configured(cls, settings: Mapping[str, Any], *, private: bool, seed: int) -> Self:
        """Refuse: a method is configured, and then has a round added."""
        raise ConfigError("configure the method itself, and add the round to it afterwards")

    @property
    def sums(self) -> int:
        """One more than the method's."""
        return self.method.sums + 1

    def planned_sums(self, privacy: Privacy | None, total_rows: int, client_rows: int) -> int:
        """Return one more than the method's."""
        return self.method.planned_sums(privacy, total_rows, client_rows) + 1

    @property
    def learner(self) -> AnyMethod:
        """The method that learns."""
        return self.method.learner

    def learned(self, public: State) -> PublicState:
        """Return the state of the method that learns."""
        return self.method.learned(public.learned)

    @property
    def images(self) -> bool:
        """Whether rows have to be pixels of images."""
        return self.method.images

    @property
    def broadcasts_statistics(self) -> bool:
        """Whether every client is given the summed statistics afterwards."""
        return self.method.broadcasts_statistics

    @property
    def state_reveals_total(self) -> bool:
        """Whether states after the method's own sums give these away."""
        return self.method.state_reveals_total

    @property
    def needs_totals(self) -> bool:
        """Whether the state after a sum turns on earlier sums."""
        return self.method.needs_totals

    @property
    def liar_reads(self) -> str:
        """What a receiver of the method's sums reads that lies about the state between them."""
        return self.method.liar_reads

    @property
    def clipping(self) -> str:
        """Clause on what bounds a unit's part in a sum."""
        return self.method.clipping

    @property
    def least_cohort(self) -> int:
        """Clients below which the method's sums show too much of one."""
        return self.method.least_cohort

    def check_end(self, public: State, sums: int) -> None:
        """Check the method's last state."""
        self.method.check_end(public.learned, sums)

    def least_rows(self, features: int) -> int:
        """Return the rows that an exact sum of the method needs."""
        return self.method.least_rows(features)

    def adds_up(self, public: State) -> bool:
        """Say whether the method's next sum is that of the rows, whoever's they are."""
        return self.method.adds_up(public.learned)

    @property
    def personalises(self) -> bool:
        """Whether clients end with models of their own."""
        return self.method.personalises

    @property
    def chooses_on_kept(self) -> bool:
        """Whether half of a client's rows held out for it go into the choice of its model."""
        return self.method.chooses_on_kept

    def least_dimension(
        self,
        privacy: Privacy,
        sums: int,
        bounds: Sequence[int],
        wanted: int,
        dim: int,
        classes: int,
    ) -> int:
        """Return how many dimensions the method's rows should keep."""
        return self.method.least_dimension(privacy, sums, bounds, wanted, dim, classes)

    def heads(self, task: Task) -> tuple[Head, ...]:
        """List the method's heads."""
        return self.method.heads(task)

    def fitted(self, public: State) -> Fitted | None:
        """Return the method's fitted head."""
        return self.method.fitted(public.learned)

    def fits(self, public: State) -> tuple[Fit, ...]:
        """List what a statistician reads of the method's model."""
        return self.method.fits(public.learned)

    def unrounded(self, task: Task, clients: Sequence[ClientData]) -> Model | None:
        """Return the method's model of these rows in one place, not rounded."""
        return self.method.unrounded(task, clients)

    def remarks(self, public: State) -> tuple[str, ...]:
        """List what is doubtful of the method's model."""
        return self.method.remarks(public.learned)

    def doubts(self, task: Task) -> tuple[str, ...]:
        """List what public numbers say against the method's model."""
        return self.method.doubts(task)

    def curve(self, task: Task, statistics: Statistics) -> tuple[Chosen, ...]:
        """Return the curve that the method's head was chosen on."""
        return self.method.curve(task, statistics)

    def least_printed(self, task: Task) -> int | None:
        """Return the least count of the method's Table 1."""
        return self.method.least_printed(task)

    def widest(self, task: Task) -> int:
        """Return the greatest number of features whose Gram matrix the method sums."""
        return self.method.widest(task)

    def seen(self, public: State, data: ClientData) -> ClientData:
        """Return rows as the method's head sees them."""
        return self.method.seen(public.learned, data)

    def behind(self, public: State, head: LinearModel) -> Model:
        """Return the model of rows as they come that a head of seen rows makes."""
        return self.method.behind(public.learned, head)

    def model(self, public: State) -> Model:
        """Return the method's model."""
        return self.method.model(public.learned)


def further_kind(
    method: type[AnyMethod],
    base: type[AnyMethod],
    state: type[FurtherPublic],
    prefix: str,
    tag: str,
) -> type[Any]:
    """Make the class of a method with further rounds: what its class says holds for it too.

    Args:
        method: class of the other, which learns.
        base, state: of the method to make, and of its states.
        prefix: of the names of both classes.
        tag: of the method on the wire.
    """
    public = msgspec.defstruct(
        f"{prefix}{method.public.__name__}",
        [("learned", method.public)],
        bases=(state,),
        frozen=True,
        eq=False,
    )
    said = {name: getattr(method, name) for name in SAID}
    # There is more than one sum to be held to one set.
    said["ignores"] = tuple(name for name in method.ignores if name != "same_set")
    return msgspec.defstruct(
        f"{prefix}{method.__name__}",
        [],
        bases=(base,),
        namespace=said | {"public": public},
        frozen=True,
        tag=tag,
    )
