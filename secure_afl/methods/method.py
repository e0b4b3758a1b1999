"""The contract between a learning method and whatever carries its sums."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from protocols.codec import Wire
from protocols.layout import Integers, Layout
from protocols.registry import Registry
from secure_afl.analytic.coefficients import Fit
from secure_afl.analytic.heads.head import Chosen, Fitted, Head
from secure_afl.analytic.patients import PatientGroups, known_patients
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics
from secure_afl.analytic.tally import Tally
from secure_afl.data.columns import Columns
from secure_afl.errors import ConfigError
from secure_afl.methods.memory import Memory
from secure_afl.methods.model import LinearModel, Model
from secure_afl.privacy.mechanism import Mechanism, Privacy
from secure_afl.privacy.sensitivity import Sensitivity


class Task(Wire, frozen=True):
    """The learning task, as all parties know it.

    Attributes:
        feature_dim: d.
        classes: names of the C classes.
        quantiser: how rows become integers.
        total_rows: bound on the rows of all clients together, or on their patients where these are
            the unit; each declares its own as it enrols.
        client_rows: the greatest bound of one client.
        clients: how many are enrolled.
        backbone: digest of the backbone that makes the features.
        run: 16 random bytes that tell this run from all others; a client's ledger goes by them.
        mechanism: the noise in every sum, if any.
        columns: what the features are, where rows are those of a table.
    """

    feature_dim: int
    classes: tuple[str, ...]
    quantiser: Quantiser
    total_rows: int
    client_rows: int
    clients: int
    backbone: bytes
    run: bytes = b""
    mechanism: Mechanism | None = None
    columns: Columns | None = None

    def __post_init__(self) -> None:
        most = self.clients * self.client_rows
        if not (self.clients >= 1 and 1 <= self.client_rows <= self.total_rows <= most):
            raise ConfigError(
                f"{self.clients} clients of ≤ {self.client_rows} rows, {self.total_rows} in all: "
                "the numbers contradict themselves"
            )
        if self.columns is not None and len(self.columns.columns) != self.feature_dim:
            raise ConfigError(
                f"{len(self.columns.columns)} columns of {self.feature_dim} features; give one each"
            )

    @property
    def by_patient(self) -> bool:
        """Whether noise hides patients, so that a patient's rows weigh as one."""
        return self.mechanism is not None and self.mechanism.privacy.unit == "patient"

    @property
    def label_scale(self) -> int:
        """A: what a label of weight 1 becomes; 1 where rows have no weights."""
        return self.quantiser.label_scale if self.by_patient else 1

    def rows_each(self, data: ClientData) -> Integers | None:
        """Return rows of the patient that each row is of, m, (n,) int64; None without weights.

        Raises:
            DataError: rows have weights, and do not say whose they are.
        """
        if not self.by_patient:
            return None
        return PatientGroups.of(known_patients(data.name, data.patients)).rows_each


class PublicState(Wire, frozen=True, eq=False):
    """Base of the states that everybody may see; they hold matrices, which no log should."""

    task: Task

    @property
    def broadcast(self) -> Statistics | None:
        """The summed statistics, where this state gives them to everybody."""
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


Public = TypeVar("Public", bound=PublicState)


class Own(NamedTuple):
    """A client's own model, and the name of the way in which it was made."""

    model: Model
    way: str


class Method(Wire, Generic[Public], frozen=True):
    """A federated learning method: a sequence of blind sums with a public state between them.

    Nothing in it knows which protocol carries a sum. One-shot methods have one round; others go on
    while `layout` gives them another. A field that has a description is a setting: it is a flag, a
    key of run.toml and a property of the JSON Schema.

    Attributes:
        name: as on the command line.
        summary: a clause for help texts: what is learned, and how.
        public: the type of its public states, by which their canonical bytes are decoded.
        row_additive: the vector of two clients' rows together is the sum of their vectors, so that
            pooled rows are an oracle for the sum.
        prefers_fewer_dimensions: with noise, fewer dimensions of the rows make a better model.
        auditable: a row of the sum can be a canary; the audit of the promise is of this method.
        hides_patients: `contribute` and `sensitivity` know unit patient, whose rows have weights.
        wants_noise: there is no form of it without a promise.
        releases_statistics: the sum holds Gram matrix and cross term of the rows.
        releases_updates: the sums hold the clients' steps of training.
        numeric: a number is learned, `ClientData.targets`, and no class.
        ends_early: there may be fewer sums than planned, as when a model has converged.
        fine_rows: rows keep all bits in exact sums, for errors of coefficients go by them.
        ignores: settings of a run that have no effect with this method.
        sums_of: the method whose sums and model these are, where only what follows differs.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    public: ClassVar[type[PublicState]]
    row_additive: ClassVar[bool] = False
    prefers_fewer_dimensions: ClassVar[bool] = False
    auditable: ClassVar[bool] = False
    hides_patients: ClassVar[bool] = False
    wants_noise: ClassVar[bool] = False
    releases_statistics: ClassVar[bool] = False
    releases_updates: ClassVar[bool] = False
    numeric: ClassVar[bool] = False
    ends_early: ClassVar[bool] = False
    fine_rows: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    sums_of: ClassVar[str] = ""

    @classmethod
    def configured(cls, settings: Mapping[str, Any], *, private: bool, seed: int) -> Self:
        """Make the method of a run.

        Args:
            settings: values of the fields that have a description.
            private: the run has noise.
            seed: of the run; public.
        """
        return cls(**settings)

    @property
    def sums(self) -> int:
        """Blind sums of a whole run; the most that there are, where `planned_sums` finds fewer."""
        return 1

    def planned_sums(self, privacy: Privacy | None, total_rows: int, client_rows: int) -> int:
        """Return the blind sums of a run of this promise and these declared bounds on rows."""
        return self.sums

    def run_sums(self, task: Task) -> int:
        """Return the blind sums of a run of this task."""
        privacy = None if task.mechanism is None else task.mechanism.privacy
        return self.planned_sums(privacy, task.total_rows, task.client_rows)

    def model_sums(self, public: Public, sums: int) -> int:
        """Return the sums that the model is made of; any others came after it.

        Args:
            public: the last state of a run.
            sums: that the run had, which may be fewer than planned.
        """
        return sums

    def least_dimension(
        self,
        privacy: Privacy,
        sums: int,
        bounds: Sequence[int],
        wanted: int,
        dim: int,
        classes: int,
    ) -> int:
        """Return how many dimensions noisy rows should keep, `wanted` of which noise suggests.

        Args:
            privacy, sums: the promise, and sums of the run.
            bounds: of the clients, on their rows.
            dim, classes: d and C.
        """
        return wanted

    @property
    def learner(self) -> "AnyMethod":
        """The method whose model this is; another one where this adds rounds to it."""
        return self

    def learned(self, public: Public) -> PublicState:
        """Return the state of `learner`."""
        return public

    @property
    def images(self) -> bool:
        """Whether rows have to be pixels of images, and no backbone's features."""
        return False

    @property
    def broadcasts_statistics(self) -> bool:
        """Whether every client is given the summed statistics afterwards."""
        return False

    @property
    def state_reveals_total(self) -> bool:
        """Whether the public state after a sum gives the total away anyway.

        So it does with unweighted averaging of updates, and with private gradients. Clients are
        then sent totals and recompute the state, so `absorb` must be elementwise IEEE arithmetic,
        equal on all machines.
        """
        return False

    def reveals(self, round: int, task: Task) -> bool:
        """Whether the state after this round, counted from 1, gives its total away anyway."""
        return self.state_reveals_total

    @property
    def needs_totals(self) -> bool:
        """Whether the state after a sum turns on earlier sums, which their receiver then keeps."""
        return False

    @property
    def liar_reads(self) -> str:
        """What a receiver of exact sums reads that lies about the state between them; or empty."""
        return ""

    @property
    def least_cohort(self) -> int:
        """Clients below which a sum of this method shows too much of one."""
        return 2

    def least_rows(self, features: int) -> int:
        """Return how many rows an exact sum needs, of so many features, for a model to follow.

        0 where any sum has a model, or no number of rows tells.
        """
        return 0

    def adds_up(self, public: Public) -> bool:
        """Say whether the next sum is that of the rows, whoever's they are."""
        return self.row_additive

    @property
    def clipping(self) -> str:
        """Clause on what bounds a unit's part in a sum, for reports."""
        return "every row has norm 1 before it is rounded, and 2^bits at most after"

    @property
    def personalises(self) -> bool:
        """Whether clients end with models of their own."""
        return False

    @property
    def chooses_on_kept(self) -> bool:
        """Whether half of a client's kept-out rows go into the choice of its model."""
        return False

    def heads(self, task: Task) -> tuple[Head, ...]:
        """List the heads that may make a classifier of summed statistics; none for other methods.

        The first is taken unless the sum has too few rows for it.
        """
        return ()

    def fitted(self, public: Public) -> Fitted | None:
        """Return the fitted head, with what was chosen for it; None for methods without one."""
        return None

    def fits(self, public: Public) -> tuple[Fit, ...]:
        """List what a statistician reads of the model; empty for models without inference."""
        return ()

    def remarks(self, public: Public) -> tuple[str, ...]:
        """List what is doubtful of a finished model, for the warnings of a report."""
        return ()

    def curve(self, task: Task, statistics: Statistics) -> tuple[Chosen, ...]:
        """Return the curve that the head's setting was chosen on; it is the receiver's alone."""
        return ()

    def least_printed(self, task: Task) -> int | None:
        """Return the least count of Table 1, which the sum tells its receiver.

        None where there is no such table: rows have no columns, or no statistics are summed.
        """
        return None

    def widest(self, task: Task) -> int:
        """Return the greatest number of features whose Gram matrix is summed, d for one round."""
        return task.feature_dim

    def seen(self, public: Public, data: ClientData) -> ClientData:
        """Return rows as the head sees them; they are as they come unless a method has layers."""
        return data

    def behind(self, public: Public, head: LinearModel) -> Model:
        """Return the model of rows as they come that a head of seen rows makes."""
        return head

    def advice(self, clients: int, *, few_rows: bool) -> tuple[str, ...]:
        """List what the reader of a report should know of this method.

        Args:
            clients: in the sum.
            few_rows: so few rows are in the exact sum that it shows whose they are.
        """
        return ()

    def doubts(self, task: Task) -> tuple[str, ...]:
        """List what public numbers alone say against the model of a task, with noise or without."""
        return ()

    @abstractmethod
    def begin(self, task: Task) -> Public:
        """Return the state that everybody may see, before the first round."""

    def check(self, public: Public, round: int) -> None:
        """Check that a state which somebody sent is one of a round, counted from 1.

        Raises:
            DataError: its arrays have other shapes than the task's, or it is of another round.
        """
        return None

    def check_step(self, before: Public, after: Public) -> None:
        """Check that a state can follow from the one of the round before, whatever its total.

        Raises:
            DataError: it cannot.
        """
        return None

    def check_end(self, public: Public, sums: int) -> None:
        """Check that a state, which has no next sum, can be that after so many.

        Raises:
            DataError: it cannot.
        """
        return None

    @abstractmethod
    def layout(self, public: Public) -> Layout | None:
        """Return the layout of the next blind sum, without noise.

        None when there is no next.
        """

    def foreseen(self, task: Task) -> tuple[Public, ...]:
        """List states whose next sums the noise of a run is calibrated for, one or more.

        By default the first stands for all. A method whose rounds differ lists a state for each
        kind of sum, the one of the least noise: a sum that costs more than these is refused.
        """
        return (self.begin(task),)

    @abstractmethod
    def sensitivity(self, public: Public, privacy: Privacy) -> Sensitivity:
        """Bound a unit's influence on the next sum, that of `layout`, and spread noise over it.

        Raises:
            ConfigError: the method, as it is set, cannot bound that.
        """

    @abstractmethod
    def contribute(
        self, public: Public, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Return a client's vector for the next sum; the same for the same arguments.

        What follows in `memory` from being in the sum is pending, see `methods.memory`.
        """

    @abstractmethod
    def absorb(self, public: Public, total: Integers, included: tuple[str, ...]) -> Public:
        """Return the state after a sum over the clients in `included`."""

    def advance(
        self, public: Public, totals: Sequence[Integers], included: tuple[str, ...]
    ) -> Public:
        """Return the state after the last of these sums; all of the run where `needs_totals`."""
        return self.absorb(public, totals[-1], included)

    def complete(self, public: Public) -> bool:
        """Say whether the model is there though another sum is wanted, so that a run may end."""
        return False

    @abstractmethod
    def model(self, public: Public) -> Model:
        """Return the global model, when all rounds are done."""

    def unrounded(self, task: Task, clients: Sequence[ClientData]) -> Model | None:
        """Return the model of these rows in one place, not rounded; None where there is none."""
        return None

    def trained(self, task: Task, data: ClientData) -> ClientData | None:
        """Return a client's rows that go into the model; None for none of them."""
        return data

    def kept(self, task: Task, data: ClientData) -> ClientData | None:
        """Return a client's rows that are kept out of the model, and counted; None for none."""
        return None

    def counted(self, public: Public) -> Tally | None:
        """Return counts of the rows that all clients kept out, where a sum was of these."""
        return None

    def personalise(
        self, public: Public, data: ClientData, memory: Memory, kept: ClientData | None = None
    ) -> Own:
        """Make a client's own model at the client.

        It is the global one unless a method differs.

        Args:
            kept: rows of the client that are in no sum, to choose by.
        """
        return Own(self.model(public), "none")


AnyMethod = Method[Any]

METHODS: Registry[AnyMethod] = Registry(
    "method", Method, ("secure_afl.methods",), "secure_afl.methods"
)
