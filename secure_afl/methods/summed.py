"""Methods whose one sum is the statistics of the rows: what they have in common."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias

from msgspec import Meta, structs
from msgspec.structs import force_setattr

from protocols.layout import Integers, Layout
from secure_afl.analytic.heads.head import (
    AUTO,
    Chosen,
    Fitted,
    Head,
    choose_heads,
    fit_first,
)
from secure_afl.analytic.heads.lda import LDA, MAX_SHRINKAGE
from secure_afl.analytic.heads.ridge import DEFAULT_RIDGE, MAX_RIDGE, Ridge
from secure_afl.analytic.moments import Moments
from secure_afl.analytic.priors import UNIFORM, Prior, check_prior, read_prior, settle_prior
from secure_afl.analytic.private_lda import LEAST_DIMENSION
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics
from secure_afl.analytic.withheld import LEAST_COUNT
from secure_afl.checks import settle_float
from secure_afl.errors import ConfigError
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import Method, Own, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.methods.personal.personal import MAX_ALPHA, PERSONAL, Global, Personal
from secure_afl.methods.task_sums import (
    Promised,
    Weights,
    fit_task,
    lda_weights,
    task_layout,
    task_sensitivity,
    task_vector,
    task_weights,
)
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity

HeadName: TypeAlias = Annotated[
    str,
    Meta(
        description="how the sum becomes a classifier: lda (linear discriminant analysis, with "
        "probabilities), ridge, or means (nearest class mean). auto: lda, or ridge where --ridge "
        "is given, where --personal is proximal or joint (as fedhip's is), or where the noise is "
        "too large for lda, by public numbers.",
        extra={"metavar": "auto|lda|ridge|means"},
    ),
]
PriorSetting: TypeAlias = Annotated[
    Prior | None,
    Meta(
        description="how often lda expects each class where the model is used: observed (as in "
        "the sum), uniform, or a JSON file {class: share}. predict and evaluate can change it "
        "later. Default: observed; uniform with --epsilon.",
        extra={"metavar": "observed|uniform|FILE"},
    ),
]
Shrinkage: TypeAlias = Annotated[
    Annotated[float, Meta(gt=0, le=MAX_SHRINKAGE)] | Literal["auto"] | None,
    Meta(
        description="lda: ρ, how far the covariance is drawn to a multiple of one, in units of its "
        "mean variance. Default: auto, estimated from the sum.",
        extra={"metavar": "auto|ρ"},
    ),
]
RidgeSetting: TypeAlias = Annotated[
    Annotated[float, Meta(ge=0, le=MAX_RIDGE)] | Literal["auto"] | None,
    Meta(
        description="ridge: λ (β of a personal model), in squared norms of the rows, which are 1; "
        "in units of tr(G)/d with --standardise. Default: auto, generalised cross-validation from "
        "the sum, or by the noise alone with --epsilon; regression: 0, which is least squares.",
        extra={"metavar": "auto|λ"},
    ),
]
Intercept: TypeAlias = Annotated[
    bool | None,
    Meta(description="ridge: take rows and labels less their means, which the sum tells."),
]
Standardise: TypeAlias = Annotated[
    bool | None,
    Meta(
        description="lda, ridge: divide features by their standard deviations, which the sum "
        "tells; for features of different scales."
    ),
]
LeastCount: TypeAlias = Annotated[
    Annotated[int, Meta(ge=1, le=1000)] | None,
    Meta(
        description="tables: counts of fewer rows are not printed in Table 1, nor what they would "
        f"follow from. Default: {LEAST_COUNT}.",
        extra={"metavar": "N"},
    ),
]
PersonalName: TypeAlias = Annotated[
    str,
    Meta(
        description="a model of its own for each client, made at the client: prior (its own class "
        "shares), proximal or joint (FedHiP's two readings: joint gives every client the summed "
        "statistics), or auto (the best of none, prior and proximal on one half of the rows that "
        "--holdout keeps out, reported on the other).",
        extra={"metavar": "auto|prior|proximal|joint|none"},
    ),
]
Alpha: TypeAlias = Annotated[
    Annotated[float, Meta(ge=0, le=MAX_ALPHA)] | None,
    Meta(
        description="proximal, joint: weight of a client's own rows in its model. Default: 1.",
        extra={"metavar": "α"},
    ),
]


class SummedPublic(PublicState, frozen=True, eq=False):
    """The task, and after the sum the classifier; nothing else of the sum unless it says so.

    Attributes:
        fitted: the classifier, its class shares among them where the head has a prior.
        companion: the ridge classifier that a client's proximal model is drawn to, where
            `fitted` is of another head.
        statistics: the summed statistics, for personal models that need them. A client can
            subtract its own from them; with two clients that leaves the other's.
    """

    fitted: Fitted | None = None
    companion: Fitted | None = None
    statistics: Statistics | None = None

    @property
    def broadcast(self) -> Statistics | None:
        """The summed statistics, after the sum and where clients are given them."""
        return self.statistics


class Summed(Method[SummedPublic], frozen=True):
    """Base of the methods that learn from one sum of (G, Q, n).

    Attributes:
        head: `auto`, or a head's name.
        prior, shrinkage, ridge, intercept, standardise: settings of heads; None is what was not
            given. One that the head does not have is refused.
        personal: how clients make models of their own; a name of `PERSONAL`.
        alpha: α of personal models that have one; None is 1.
        least_count: counts below are not printed in Table 1; None is 5.
        rows_as_given: rows are those of `features`, on which `lda` was measured under noise; where
            they are not, `auto` leaves noisy sums to ridge.
    """

    public = SummedPublic
    row_additive = True
    prefers_fewer_dimensions = True
    hides_patients = True
    releases_statistics = True
    ignores = ("same_set",)
    head: HeadName = AUTO
    prior: PriorSetting = None
    shrinkage: Shrinkage = None
    ridge: RidgeSetting = None
    intercept: Intercept = None
    standardise: Standardise = None
    personal: PersonalName = Global.name
    alpha: Alpha = None
    least_count: LeastCount = None
    rows_as_given: bool = True

    def __post_init__(self) -> None:
        if self.ridge is not None and self.ridge != AUTO:
            settle_float(self, "ridge", 0, MAX_RIDGE)
        if self.shrinkage is not None and self.shrinkage != AUTO:
            settle_float(self, "shrinkage", 1e-12, MAX_SHRINKAGE)
        if self.prior is not None:
            force_setattr(self, "prior", settle_prior(self.prior))
        if self.alpha is not None:
            settle_float(self, "alpha", 0, MAX_ALPHA)
        if self.personal not in PERSONAL:
            raise ConfigError(
                f"personal is {self.personal!r}, allowed: {', '.join(sorted(PERSONAL))}"
            )
        if self.alpha is not None and not self.way.has_alpha:
            raise ConfigError(
                f"--alpha has no effect with --personal {self.personal}; leave it out, or choose "
                "proximal or joint"
            )
        # What no sum could give shows before anything is done.
        self._heads(noise=False)

    @classmethod
    def configured(cls, settings: Mapping[str, Any], *, private: bool, seed: int) -> Self:
        """Make the method of a run; a prior that is no word is a file.

        Raises:
            ConfigError: settings that contradict each other or the noise.
        """
        prior = settings.get("prior")
        read = {"prior": read_prior(prior)} if isinstance(prior, str) else {}
        method = cls(**{**settings, **read})
        method._heads(noise=private)
        return method

    @property
    def way(self) -> type[Personal]:
        """How clients make models of their own."""
        return PERSONAL[self.personal]

    @property
    def personalises(self) -> bool:
        """Whether clients end with models of their own."""
        return self.way is not Global

    @property
    def broadcasts_statistics(self) -> bool:
        """Whether personal models need the summed statistics."""
        return self.way.needs_statistics

    @property
    def chooses_on_kept(self) -> bool:
        """Whether half of a client's kept-out rows go into the choice of its model."""
        return self.way.chooses

    @property
    def sums_squares(self) -> bool:
        """Whether squares by class are summed beside, for deviations by class."""
        return False

    def advice(self, clients: int, *, few_rows: bool) -> tuple[str, ...]:
        """Warn of what a broadcast of the summed statistics gives away."""
        if not self.broadcasts_statistics:
            return ()
        found = []
        if clients == 2:
            found.append(
                "Joint personal models give both clients the summed statistics, from which each "
                "can take its own: what is left is the other's. Use --personal proximal, or more "
                "clients."
            )
        if few_rows:
            found.append(
                "Joint personal models give every client (G, Q), which show whose rows are in "
                "the sum where the model W hardly does. --personal proximal gives them W alone."
            )
        return tuple(found)

    def doubts(self, task: Task) -> tuple[str, ...]:
        """Warn of ridge on a table's columns as their declared ranges scale them."""
        if task.columns is None:
            return ()
        first = self.heads(task)[0]
        if not isinstance(first, Ridge) or _scales(first):
            return ()
        if self.way.head is not None:
            why, instead = f" with --personal {self.personal}", "take --personal auto or prior"
        elif task.mechanism is None:
            why, instead = " with --no-standardise", "leave that out, or take --intercept"
        elif self.head != AUTO:
            why, instead = " under noise", f"take --head {LDA.name}"
        else:
            why = f" under noise too large for {LDA.name}"
            instead = "declare more rows, narrower ranges or fewer columns, or raise --epsilon"
        return (
            f"Head 'ridge' has no intercept{why}, and columns weigh as their declared ranges "
            "scale them: the model turns on how wide these are, and may be right less often than "
            f"always naming the most frequent class. Better: {instead}.",
        )

    def heads(self, task: Task) -> tuple[Head, ...]:
        """List the heads of this task, by its settings and by public numbers alone.

        Raises:
            ConfigError: a setting without effect on it, or a sum without what it needs.
        """
        mechanism = task.mechanism
        if mechanism is None:
            heads = self._heads(noise=False)
            # Columns of a table differ in their spread, and proximal models know no scales.
            scaled = task.columns is not None and self.standardise is None and not self.way.head
            return tuple(_standardised(head) for head in heads) if scaled else heads
        return self._noisy_heads(
            Promised(mechanism.privacy, mechanism.rounds, task.total_rows, task.client_rows),
            task.feature_dim,
            len(task.classes),
        )

    def least_dimension(
        self,
        privacy: Privacy,
        sums: int,
        bounds: Sequence[int],
        wanted: int,
        dim: int,
        classes: int,
    ) -> int:
        """Return 128 dimensions at least where `lda` is to be the head, else as many as wanted."""
        promised = Promised(privacy, sums, sum(bounds), max(bounds))
        enough = min(dim, max(wanted, LEAST_DIMENSION))
        head = self._noisy_heads(promised, enough, classes)[0]
        return enough if isinstance(head, LDA) else wanted

    def weights(self, task: Task) -> Weights | None:
        """Return what cross term and counts of a task get of the budget; None without noise."""
        mechanism = task.mechanism
        if mechanism is None:
            return None
        return self.promised_weights(
            Promised(mechanism.privacy, mechanism.rounds, task.total_rows, task.client_rows),
            task.feature_dim,
            len(task.classes),
        )

    def promised_weights(self, promised: Promised, dim: int, classes: int) -> Weights:
        """Return `weights` for the head that these public numbers choose."""
        needs_counts = self._noisy_heads(promised, dim, classes)[0].needs_counts
        return (lda_weights if needs_counts else task_weights)(promised.privacy)

    def _noisy_heads(self, promised: Promised, dim: int, classes: int) -> tuple[Head, ...]:
        """List the heads of a noisy sum: `auto` takes `lda` where noise leaves enough for it."""
        quiet = self.rows_as_given and promised.suits_lda(dim, classes)
        try:
            return self._heads(noise=True, counts=quiet or self.head != AUTO)
        except ConfigError as error:
            if quiet or self.head != AUTO:
                raise
            raise ConfigError(
                f"{error}. By public numbers the noise of this sum is too large for lda: raise "
                "--epsilon or --max-rows, leave the setting out, or take --head lda all the same"
            ) from None

    def _heads(self, *, noise: bool, counts: bool = True) -> tuple[Head, ...]:
        settings = {
            "prior": self.prior,
            "shrinkage": self.shrinkage,
            "ridge": self.ridge,
            "intercept": self.intercept,
            "standardise": self.standardise,
        }
        heads = choose_heads(self.head, settings, counts=counts, noise=noise)
        if noise and self.prior is None:
            # Noise shrinks scores, and the logarithm of observed shares would outweigh them.
            heads = tuple(
                structs.replace(head, prior=UNIFORM) if isinstance(head, LDA) else head
                for head in heads
            )
        if self.head == AUTO and self.way.head is not None:
            heads = tuple(head for head in heads if isinstance(head, self.way.head))
        if self.way.head is not None and (self.intercept or self.standardise):
            raise ConfigError(
                f"--intercept and --standardise have no form with --personal {self.personal}; "
                "leave them out, or choose --personal auto or prior"
            )
        wanted = self.way.head
        if wanted is not None and not (heads and isinstance(heads[0], wanted)):
            raise ConfigError(
                f"--personal {self.personal} is of head '{wanted.name}' alone; choose that head "
                "and leave settings of others out, or take --personal auto or prior"
            )
        return heads

    def begin(self, task: Task) -> SummedPublic:
        """Return the task with no classifier yet.

        Raises:
            ConfigError: a head that this task's sum cannot give, a prior of other classes, or a
                setting without effect.
        """
        self.heads(task)
        if self.prior is not None:
            check_prior(self.prior, task.classes)
        if self.least_count is not None and task.columns is None:
            raise ConfigError(
                "--least-count has no effect without columns, for Table 1 is of these; leave it "
                "out, or give --dictionary"
            )
        return SummedPublic(task)

    def layout(self, public: SummedPublic) -> Layout | None:
        """Return the layout of (G, Q) and n over all rows; None once the classifier is there.

        Raises:
            WouldOverflow: no ring holds that many rows at the quantiser's bits.
        """
        return None if public.fitted is not None else self.sum_layout(public.task)

    def sum_layout(self, task: Task) -> Layout:
        """Return the layout of the sum, of a task with noise or without."""
        return task_layout(task, self.weights(task), squares=self.sums_squares)

    def sensitivity(self, public: SummedPublic, privacy: Privacy) -> Sensitivity:
        """Bound how far one example, patient or client moves (G, Q) and any counts.

        Raises:
            ConfigError: λ = 0, or a weight out of range for the promise.
        """
        if self.ridge == 0:
            # Eigenvalues below zero would stay there.
            raise ConfigError(
                "ridge is 0 with privacy, allowed: > 0; leave it out to go by the noise"
            )
        weights = self.weights(public.task)
        return task_sensitivity(public.task, privacy, weights, squares=self.sums_squares)

    def contribute(
        self, public: SummedPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Pack the client's integer (G, Q, n) as int64; memory and entropy go unused.

        Raises:
            DataError: no rows or more than 2^29, a label out of range, features not finite, or rows
                that do not say whose they are where patients are the unit.
        """
        return self.vector(public.task, data)

    def vector(self, task: Task, data: ClientData, rows_each: Integers | None = None) -> Integers:
        """Return the vector of one client's rows, as `contribute` does.

        Args:
            rows_each: as `Task.rows_each`, for a part of a client's rows.
        """
        return task_vector(task, data, self.weights(task), rows_each, squares=self.sums_squares)

    def absorb(
        self, public: SummedPublic, total: Integers, included: tuple[str, ...]
    ) -> SummedPublic:
        """Fit the head to the sum; with noise, by public numbers.

        Raises:
            ConfigError: the sum is none that the head can be fitted to.
        """
        task = public.task
        statistics = Statistics.unpack(total, self.sum_layout(task))
        noise = self.weights(task), len(included)
        squares = self.sums_squares
        fitted = fit_task(task, self.heads(task), statistics, *noise, squares=squares)
        companion = None
        plain = fitted.head == Ridge.name and not any(map(_scales, self.heads(task)))
        if self.way.wants_ridge and not plain:
            ridges = Ridge(), Ridge(ridge=DEFAULT_RIDGE)
            companion = fit_task(task, ridges, statistics, *noise, squares=squares)
        shown = statistics if self.broadcasts_statistics else None
        return SummedPublic(task, fitted, companion, shown)

    def fitted(self, public: SummedPublic) -> Fitted | None:
        """Return the classifier and what was chosen for it, once it is there."""
        return public.fitted

    def curve(self, task: Task, statistics: Statistics) -> tuple[Chosen, ...]:
        """Return the curve that the head's setting was chosen on, for whoever has the sum.

        It is empty for a setting that was given, and for sums with noise.
        """
        if task.mechanism is not None:
            return ()
        moments = Moments.of(statistics, task.quantiser)
        return fit_first(self.heads(task), moments, task.classes).curve

    def least_printed(self, task: Task) -> int | None:
        """Return the least count of Table 1; None for rows without columns."""
        if task.columns is None or self.numeric:
            return None
        return LEAST_COUNT if self.least_count is None else self.least_count

    def model(self, public: SummedPublic) -> LinearModel:
        """Return the linear model; call it after the sum."""
        assert public.fitted is not None, "the model exists after the sum"
        return LinearModel.fitted(public.fitted, public.task.classes, public.task.quantiser)

    def personalise(
        self,
        public: SummedPublic,
        data: ClientData,
        memory: Memory,
        kept: ClientData | None = None,
    ) -> Own:
        """Make the client's own model, in the way that is set.

        Raises:
            ConfigError: the client's system is singular, as it is at β = 0 with few rows.
        """
        ridge = public.companion or public.fitted
        assert ridge is not None, "personal models come after the sum"
        way = self.way(
            task=public.task,
            model=self.model(public),
            ridge=ridge,
            summed=public.statistics,
            alpha=1.0 if self.alpha is None else self.alpha,
        )
        return way.make(data, kept)


def _scales(head: Head) -> bool:
    """Say whether a head's ridge is one of centred or standardised features."""
    return isinstance(head, Ridge) and (head.intercept or head.standardise)


def _standardised(head: Head) -> Head:
    """Return a head over standardised features, where it knows of them."""
    return structs.replace(head, standardise=True) if isinstance(head, LDA | Ridge) else head
