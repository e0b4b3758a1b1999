"""The contract between a learning method and whatever carries its sums."""

from abc import abstractmethod
from collections.abc import MutableMapping
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Wire
from protocols.layout import Integers, Layout
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.methods.model import Model
from secure_afl.privacy.mechanism import Mechanism, Privacy
from secure_afl.privacy.sensitivity import Sensitivity

# What a client keeps from round to round; a method keys it by round, for `contribute` may run
# again for the same round after a restart.
Memory = MutableMapping[str, NDArray[np.generic]]


class Task(Wire, frozen=True):
    """What is to be learned, as all parties know it.

    Attributes:
        feature_dim: d.
        classes: names of the C classes.
        quantiser: how rows become integers.
        max_rows: each client's name and the public bound on its rows that it declares.
        backbone: digest of the backbone that makes the features.
        run: 16 random bytes that tell this run from all others; a client's ledger goes by them.
        mechanism: the noise in every sum, if any.
    """

    feature_dim: int
    classes: tuple[str, ...]
    quantiser: Quantiser
    max_rows: tuple[tuple[str, int], ...]
    backbone: bytes
    run: bytes = b""
    mechanism: Mechanism | None = None

    @property
    def total_rows(self) -> int:
        """Bound on the rows of all clients together."""
        return sum(rows for _, rows in self.max_rows)


class PublicState(Wire, frozen=True, eq=False):
    """Base of the states that everybody may see; they hold matrices, which no log should."""

    task: Task

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


Public = TypeVar("Public", bound=PublicState)


class Method(Wire, Generic[Public], frozen=True):
    """A federated learning method: a sequence of blind sums with a public state between them.

    Nothing in it knows which protocol carries a sum. One-shot methods have one round; others go on
    while `layout` gives them another.

    Attributes:
        name: as on the command line.
        row_additive: the vector of two clients' rows together is the sum of their vectors, so that
            pooled rows are an oracle for the sum.
    """

    name: ClassVar[str]
    row_additive: ClassVar[bool] = False

    @property
    def sums(self) -> int:
        """Blind sums of a whole run."""
        return 1

    @abstractmethod
    def begin(self, task: Task) -> Public:
        """The state that everybody may see, before the first round."""

    @abstractmethod
    def layout(self, public: Public) -> Layout | None:
        """The layout of the next blind sum, without noise; None when there is no next."""

    @abstractmethod
    def sensitivity(self, task: Task, privacy: Privacy) -> Sensitivity:
        """How far a unit of privacy can move a sum of `layout`, and how noise is spread over it.

        Raises:
            ConfigError: the method, as it is set, cannot bound that.
        """

    @abstractmethod
    def contribute(
        self, public: Public, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """A client's vector for the next sum; the same for the same arguments."""

    @abstractmethod
    def absorb(self, public: Public, total: Integers, included: tuple[str, ...]) -> Public:
        """The state after a sum over the clients in `included`."""

    @abstractmethod
    def model(self, public: Public) -> Model:
        """The global model, when all rounds are done."""

    def personalise(self, public: Public, data: ClientData, memory: Memory) -> Model:
        """A client's own model, made at the client; the global one unless a method differs."""
        return self.model(public)


AnyMethod = Method[Any]
