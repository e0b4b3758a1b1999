"""The contract between a head and whoever has a sum of statistics."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

from protocols.codec import Wire
from protocols.registry import Registry
from secure_afl.analytic.moments import Moments, TooFewRows
from secure_afl.analytic.private_lda import SumNoise
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError, NoModel

AUTO: Final = "auto"

# Below this reciprocal condition number a solution has no right digits left, per dimension.
EPSILON = 2.220446049250313e-16


class Chosen(NamedTuple):
    """One value of a head's setting, and what the sum says about it: lower is better."""

    value: float
    estimate: float


class Fitted(Wire, frozen=True, eq=False):
    """A linear classifier of rows f of norm ≤ 1: scores fᵀW − offset, plus log π for a prior π.

    Attributes:
        weights: W, (d, C) float64.
        offset: (C,) float64, +∞ for a class without rows; None for none.
        observed: shares of the classes in the sum, (C,); None for a head without a prior.
        prior: the prior π in use, (C,); None for a head without one.
        temperature: scores divided by it are log-odds; None for a head without probabilities.
        head: name of the head.
        setting: name of the setting that was found or given, as `ridge`; empty for none.
        value: its value.
        conditioning: reciprocal condition number of the system that was solved, 0 to 1; in
            float64 the weights have about −log₁₀(2e-16 / conditioning) right digits.
    """

    weights: Floats
    offset: Floats | None = None
    observed: Floats | None = None
    prior: Floats | None = None
    temperature: float | None = None
    head: str = ""
    setting: str = ""
    value: float = 0.0
    conditioning: float = 1.0

    def __repr__(self) -> str:
        return f"<Fitted {self.head}, {len(self.weights)} features>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted head, and the curve that its setting was chosen on.

    Attributes:
        fitted: all that clients are given.
        curve: every value that was tried; empty where the value was given. It is a function of the
            Gram matrix's spectrum, and stays with whoever received the sum.
    """

    fitted: Fitted
    curve: tuple[Chosen, ...] = ()

    def __repr__(self) -> str:
        return repr(self.fitted)


class Head(Wire, frozen=True):
    """A way from a sum of statistics to a linear classifier.

    The fields are its settings; a method's settings of the same names become them. The arithmetic
    is in float64 and draws nothing at random, so that equal sums give equal classifiers.

    Attributes:
        name: as on the command line.
        summary: a clause for help texts.
        rank: `auto` takes the head of the least rank that has all the settings given and all the
            blocks that it needs; None keeps it out of `auto`.
        needs_gram, needs_counts: blocks of the sum without which there is no such head.
        has_prior: scores hold the logarithm of a prior that may be exchanged.
        under_noise: there is a form of it for noisy sums.
        exact_only: settings that have no effect on that form.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    rank: ClassVar[int | None]
    needs_gram: ClassVar[bool] = True
    needs_counts: ClassVar[bool] = True
    has_prior: ClassVar[bool] = False
    under_noise: ClassVar[bool] = False
    exact_only: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def fit(self, moments: Moments, classes: tuple[str, ...]) -> Fit:
        """Fit the classifier to exact statistics.

        Args:
            classes: names of the C classes.

        Raises:
            TooFewRows: of these the setting cannot be found.
            ConfigError: statistics that this head cannot be fitted to, or too ill-conditioned a
                system at a given setting.
        """

    def fallback(self) -> "Head | None":
        """Return what `auto` takes where rows are too few for this head; None for nothing."""
        return None

    def fit_noisy(
        self, moments: Moments, floor: float, noise: SumNoise, classes: tuple[str, ...]
    ) -> Fitted:
        """Fit the classifier to statistics with noise; `under_noise` says whether it can.

        Args:
            floor: τ ≥ 0, below which the Gram matrix's eigenvalues are noise; it follows from
                public numbers, and so must all that this head chooses.
            noise: that is in the sum; counts are 0 where it holds none.
            classes: names of the C classes.
        """
        raise ConfigError(f"head '{self.name}' has no form for noisy sums; pass --head ridge")


HEADS: Registry[Head] = Registry("head", Head, ("secure_afl.analytic.heads",), "secure_afl.heads")


def settings_of_head(head: type[Head]) -> tuple[str, ...]:
    """List the names of a head's settings."""
    return head.__struct_fields__


def choose_heads(
    name: str, settings: Mapping[str, Any], *, gram: bool = True, counts: bool = True, noise: bool
) -> tuple[Head, ...]:
    """Make the head of this name with the settings given; `auto` goes by settings and blocks.

    For `auto` there follow those to take where a sum has too few rows for the ones before.

    Args:
        name: of a head, or `auto`.
        settings: those that were given, by name; None is for what was not.
        gram, counts: blocks that the sum holds.
        noise: the sum has noise.

    Raises:
        ConfigError: no such head, a setting that has no effect with it, or a sum without what it
            needs.
    """
    given = {key: value for key, value in settings.items() if value is not None}

    def lacks(head: type[Head]) -> str:
        if unknown := sorted(given.keys() - set(settings_of_head(head))):
            return f"--{unknown[0].replace('_', '-')} has no effect with head '{head.name}'"
        if noise and not head.under_noise:
            return f"head '{head.name}' has no form for sums with noise"
        if noise and (idle := sorted(given.keys() & set(head.exact_only))):
            return f"--{idle[0]} has no form for sums with noise, by head '{head.name}'"
        if head.needs_gram and not gram:
            return f"head '{head.name}' needs a Gram matrix, which this sum does not hold"
        if head.needs_counts and not counts:
            return f"head '{head.name}' needs class counts, which this sum does not hold"
        return ""

    if name == AUTO:
        ranked = [head for head in HEADS.values() if head.rank is not None]
        ranked.sort(key=lambda head: head.rank or 0)
        found: list[Head | None] = []
        for fitting in [head(**given) for head in ranked if not lacks(head)]:
            found += [fitting, fitting.fallback()]
        if found:
            return tuple(head for head in found if head is not None)
        raise ConfigError(f"{lacks(ranked[0])}; no head takes all of {', '.join(sorted(given))}")
    if name not in HEADS:
        raise ConfigError(f"head is {name!r}, allowed: {AUTO}, {', '.join(sorted(HEADS))}")
    if why := lacks(HEADS[name]):
        raise ConfigError(f"{why}; leave it out, or choose another --head")
    return (HEADS[name](**given),)


def fit_first(heads: Sequence[Head], moments: Moments, classes: tuple[str, ...]) -> Fit:
    """Fit the first of the heads for which there are enough rows.

    Raises:
        ConfigError: as `Head.fit`; of the last head where rows are too few for all.
    """
    for head in heads[:-1]:
        try:
            return head.fit(moments, classes)
        except TooFewRows:
            continue
    return heads[-1].fit(moments, classes)


def check_conditioning(reciprocal: float, dim: int, what: str) -> float:
    """Return a reciprocal condition number that leaves right digits.

    Raises:
        NoModel: it leaves none; `what` says what to change.
    """
    if not reciprocal > dim * EPSILON:
        raise NoModel(
            f"the system to solve is singular to working precision (reciprocal condition "
            f"{reciprocal:.1e}, allowed: > {dim * EPSILON:.1e}); {what}"
        )
    return reciprocal
