"""What an attack is: a claim made from a view, judged afterwards against the truth."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from attacks.views.lies import Lie
from attacks.views.run import RunView
from protocols.registry import Registry
from protocols.session import Session
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData

ClaimT = TypeVar("ClaimT")


class Measure(msgspec.Struct, frozen=True):
    """The success of an attack, by one metric.

    Attributes:
        metric: "AUC", "TPR at 1 % FPR", "exact rows", "attribution", …
        value: in the metric's own unit.
        low, high: interval of confidence `confidence`.
        chance: what guessing gives, in the same unit.
        best: what complete success is.
        trials: how many independent things were counted or scored.
        confidence: of the interval by itself; a matrix of cells asks more of each.
    """

    metric: str
    value: float
    low: float
    high: float
    chance: float
    best: float
    trials: int
    confidence: float = 0.95


@dataclass(frozen=True)
class Known:
    """The knowledge that an attacker is assumed to have beside its view.

    An attack says which of it it uses.

    Attributes:
        candidates: rows (m, d) float of which some are in the sum, for membership.
        candidate_labels: their labels (m,).
        public: features (p, d) of public examples, of no client.
        rows: for an informed adversary, all rows but one of the sum.
        extra: what a single attack needs besides (a backbone, public images, a decoder), by name.
    """

    candidates: Floats | None = None
    candidate_labels: NDArray[np.int64] | None = None
    public: Floats | None = None
    rows: ClientData | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "<Known>"


@dataclass(frozen=True)
class Truth:
    """The true data: for judging only, never for an attack.

    Attributes:
        clients: every client's rows as they went into the run.
        members: of `Known.candidates`, which are in the sum (m,) bool.
        owners: of `Known.candidates`, the client in whose sum each row is, "" for none.
        origins: of the same, the client whose data each row comes from, in a sum or not.
        images: of each client, where rows were images: (n_k, h, w, channels) in 0..1.
        vectors: what each client sent, noise included, in a session in which the coalition lied.
    """

    clients: Mapping[str, ClientData]
    members: NDArray[np.bool_] | None = None
    owners: Sequence[str] = ()
    origins: Sequence[str] = ()
    images: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    vectors: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "<Truth>"


class Picture(NamedTuple):
    """A true image and what an attack made of it, (h, w, channels) in 0..1."""

    caption: str
    true: NDArray[np.floating]
    rebuilt: NDArray[np.floating]


class Attack(ABC, Generic[ClaimT]):
    """One attack, whose docstring says its action, its formula, and what it must know.

    Attributes:
        name: as on the command line and in reports.
        wants: what its view has to give, in words: "a sum of statistics", "the model", …
        assumes: what else it is given, in words, as in `Known`.
        costly: takes minutes a view, and is left out of a suite that does not name it.
        two_sessions: it works on the views of two, the second as `Known.extra["other"]`.
        lies: the coalition lies, in a session of the attack's own; see `ploy`.
    """

    name: ClassVar[str]
    wants: ClassVar[str]
    assumes: ClassVar[tuple[str, ...]] = ()
    costly: ClassVar[bool] = False
    two_sessions: ClassVar[bool] = False
    lies: ClassVar[bool] = False

    def ploy(self, session: Session, coalition: Sequence[str]) -> Sequence[Lie] | None:
        """Say what parties of the coalition say instead of what they should.

        An attack with `lies` is given the view of a session in which these lies are told, and into
        which the released sum was published; None where the coalition has no use for the session.
        """
        return None

    @abstractmethod
    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> ClaimT | None:
        """Make a claim from a view; None where there is nothing to begin with.

        Raises:
            ConfigError: it is not given what it assumes, or something is not installed.
        """

    @abstractmethod
    def judge(self, claim: ClaimT | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        """Measure how much of a claim is true; for None, what guessing gives."""

    def pictures(self, claim: ClaimT | None, truth: Truth) -> list[Picture]:
        """Return rebuilt images beside the true ones, for attacks that rebuild images."""
        return []

    def roc(self, claim: ClaimT | None, truth: Truth) -> tuple[Floats, Floats] | None:
        """Return false and true positive rates at every threshold.

        They are for attacks that score candidates.
        """
        return None


ATTACKS: Registry[Attack[Any]] = Registry(
    "attack",
    Attack,
    ("attacks.statistics", "attacks.features", "attacks.gradients", "attacks.encryption"),
    "secure_afl.attacks",
)
