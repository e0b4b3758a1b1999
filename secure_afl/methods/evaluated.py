"""A method with one further round: what its model makes of rows that every client kept out.

A client keeps rows out by a hash of each, whatever its other rows are, and never trains on them.
After the method's sums there is one of counts: confusion, and scores in bins fixed beforehand. It
is a release like the others: declared in the run's first context, one a run, of the model that the
run ends with. A receiver that lies about its own sums can choose that model, and so which linear
question the counts answer; they tell less of kept-out rows than the first sum does of the others.
"""

import math
from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.codec import encode
from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.patients import divided
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData, check_rows
from secure_afl.analytic.split import keep_out
from secure_afl.analytic.tally import Tally, bins_for, confusion, hide_small, tally
from secure_afl.checks import settle_float
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.further import Further, FurtherPublic, further_kind
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import AnyMethod, Own, PublicState, Task
from secure_afl.methods.model import Model
from secure_afl.privacy.mechanism import NoisySum, Privacy
from secure_afl.privacy.sensitivity import Sensitivity

MAX_SHARE = 0.9

# Units in which margins are binned: of log-odds, or of a head's scores, which lie about 0 and 1.
LOG_ODDS, SCORES = 1.0, 0.05

# With noise a row is so many steps, that the noise is fine enough for the integers.
_STEPS = 1 << 12

_CONFUSION, _OWN, _OTHERS = "confusion", "own_scores", "other_scores"


class EvaluatedPublic(FurtherPublic, frozen=True, eq=False):
    """The state of what is learned, and of its evaluation.

    Attributes:
        evaluating: whether that is the last, so that the next sum is of counts, or was.
        counts: the sum of counts, those of small classes hidden; None before.
        sites: clients in it.
    """

    evaluating: bool = False
    counts: Integers | None = None
    sites: int = 0


class Evaluated(Further[EvaluatedPublic], frozen=True, tag="evaluated"):
    """A method, and one further sum of counts; `evaluated` makes one.

    Attributes:
        share: of each client's rows that are kept out, above 0, at most 0.9.
    """

    share: float

    def __post_init__(self) -> None:
        settle_float(self, "share", 1e-6, MAX_SHARE)

    def model_sums(self, public: EvaluatedPublic, sums: int) -> int:
        """Return the sums that the model is made of: all but that of counts."""
        own = sums if public.counts is None else sums - 1
        return self.method.model_sums(public.learned, own)

    def reveals(self, round: int, task: Task) -> bool:
        """Say so of the method's own rounds alone: counts of small classes are hidden."""
        return round <= self.method.run_sums(task) and self.method.reveals(round, task)

    def advice(self, clients: int, *, few_rows: bool) -> tuple[str, ...]:
        """Add what the counts give away where clients are two."""
        found = self.method.advice(clients, few_rows=few_rows)
        if clients == 2:
            found += (
                "Two clients are given the counts of their kept-out rows together, from which each "
                "can take its own: what is left is the other's. Leave --evaluate out, or find more "
                "clients.",
            )
        return found

    # Rounds

    def begin(self, task: Task) -> EvaluatedPublic:
        """Return the method's first state, and no counts."""
        return self._state(task, self.method.begin(task))

    def check(self, public: EvaluatedPublic, round: int) -> None:
        """Check that a state is one of this round, and the last one of a model.

        Raises:
            DataError: it is not.
        """
        sums = self.run_sums(public.task)
        early = self.ends_early and 1 < round < sums and public.evaluating
        last = early or round == sums
        if public.evaluating != last or public.counts is not None:
            raise DataError(f"a state of another round than {round} of {sums}")
        if encode(public.task) != encode(public.learned.task):
            raise DataError("two tasks in one state")
        if not last:
            self.method.check(public.learned, round)
        if (self.method.layout(public.learned) is None) != last:
            raise DataError(f"a state of another round than {round} of {sums}")
        if last:
            self.method.check_end(public.learned, round - 1)
            self._check_model(public)

    def check_step(self, before: EvaluatedPublic, after: EvaluatedPublic) -> None:
        """Check that the model after the evaluation is the one that was evaluated.

        Raises:
            DataError: it is another, or there are no counts.
        """
        if not before.evaluating:
            self.method.check_step(before.learned, after.learned)
            return
        if encode(before.learned) != encode(after.learned):
            raise DataError("the model is not the one that this party evaluated")
        counts = after.counts
        if counts is None or len(counts) != self._layout(before.task).length:
            raise DataError("a state after the evaluation without its counts")

    def layout(self, public: EvaluatedPublic) -> Layout | None:
        """Return the method's layout, then that of counts; None after them."""
        if not public.evaluating:
            return self.method.layout(public.learned)
        return self._layout(public.task) if public.counts is None else None

    def foreseen(self, task: Task) -> tuple[EvaluatedPublic, ...]:
        """List the method's kinds of sums, and that of counts."""
        states = [self._state(task, state) for state in self.method.foreseen(task)]
        return (*states, self._state(task, self.method.begin(task), evaluating=True))

    def sensitivity(self, public: EvaluatedPublic, privacy: Privacy) -> Sensitivity:
        """Bound a unit's influence on the next sum.

        A row is one count: removed it moves one by 1, replaced two. A client's rows are all in one
        cell at worst. A patient of m rows moves no more than one row: each counts ⌊steps/m⌋.
        Whether a row is kept out is its own hash's doing, or its patient's, so that no other moves.
        """
        if not public.evaluating:
            return self.method.sensitivity(public.learned, privacy)
        unit = float(_STEPS) * (public.task.client_rows if privacy.unit == "client" else 1)
        moved = unit if privacy.neighbours == "add-remove" else math.sqrt(2) * unit
        return Sensitivity(moved, ((_CONFUSION, 1.0),))

    def contribute(
        self, public: EvaluatedPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Pack what the method does of the rows to train on, then counts of those kept out.

        Raises:
            DataError: rows that the task does not take; or without noise all are kept out, and the
                method does not add up over rows.
        """
        check_rows(data.features, data.labels, len(public.task.classes))
        if public.evaluating:
            return self._count(public, data)
        trained = self.trained(public.task, data)
        if trained is not None:
            return self.method.contribute(public.learned, trained, memory, entropy)
        layout = self.method.layout(public.learned)
        if not self.row_additive and public.task.mechanism is not None:
            # Whoever refuses tells that it has few rows; an update of whatever row is in the bound.
            zeros = np.zeros_like(data.features[:1])
            blank = ClientData(data.name, zeros, np.zeros(1, np.int64), ("",))
            return self.method.contribute(public.learned, blank, memory, entropy)
        if not self.row_additive or layout is None:
            raise DataError(
                f"client '{data.name}' keeps all of its rows out, for it has few; give more rows, "
                "or leave the client out"
            )
        return np.zeros(layout.length, dtype=np.int64)

    def absorb(
        self, public: EvaluatedPublic, total: Integers, included: tuple[str, ...]
    ) -> EvaluatedPublic:
        """Take the method's step, or keep the counts."""
        if public.evaluating:
            return self._counted(public, total, included)
        return self._moved(public, self.method.absorb(public.learned, total, included))

    def advance(
        self, public: EvaluatedPublic, totals: Sequence[Integers], included: tuple[str, ...]
    ) -> EvaluatedPublic:
        """Take the method's step, or keep the counts."""
        if public.evaluating:
            return self._counted(public, totals[-1], included)
        return self._moved(public, self.method.advance(public.learned, totals, included))

    def complete(self, public: EvaluatedPublic) -> bool:
        """Say whether the model is there, though it may not be evaluated yet."""
        return public.evaluating

    def personalise(
        self,
        public: EvaluatedPublic,
        data: ClientData,
        memory: Memory,
        kept: ClientData | None = None,
    ) -> Own:
        """Make the client's own model of the rows that it trains on."""
        trained = self.trained(public.task, data)
        if trained is None:
            return Own(self.model(public), "none")
        return self.method.personalise(public.learned, trained, memory, kept)

    # Rows

    def trained(self, task: Task, data: ClientData) -> ClientData | None:
        """Return the rows to train on; None where all are kept out."""
        return _chosen(data, ~self._kept_out(task, data))

    def kept(self, task: Task, data: ClientData) -> ClientData | None:
        """Return the rows that are kept out; None where there are none."""
        return _chosen(data, self._kept_out(task, data))

    def counted(self, public: EvaluatedPublic) -> Tally | None:
        """Return the counts, once they are there."""
        if public.counts is None:
            return None
        return self._tally(public, public.counts)._replace(sites=public.sites)

    def _kept_out(self, task: Task, data: ClientData) -> NDArray[np.bool_]:
        return keep_out(data, self.share, task.quantiser, task.run)

    def _count(self, public: EvaluatedPublic, data: ClientData) -> Integers:
        task = public.task
        layout = self._layout(task)
        total = np.zeros(layout.length, dtype=np.int64)
        kept = self.kept(task, data)
        if kept is None:
            return total
        model = self.model(public)
        # One by one, that a row's last bits do not turn on its neighbours.
        if task.mechanism is None:
            scores = np.concatenate([model.comparable(row[None]) for row in kept.features])
            return _packed(tally(scores, kept.labels, self._unit(model)))
        classes = len(task.classes)
        scores = np.concatenate([_settled(model, row, classes) for row in kept.features])
        # A patient's rows are kept out all or none, so that these are all of it that there are.
        rows_each = task.rows_each(kept)
        each = np.ones(len(kept), dtype=np.int64) if rows_each is None else rows_each
        return _packed(confusion(scores, kept.labels, divided(_STEPS, each)))

    def _counted(
        self, public: EvaluatedPublic, total: Integers, included: tuple[str, ...]
    ) -> EvaluatedPublic:
        counts = _packed(hide_small(self._tally(public, total)))
        return msgspec.structs.replace(public, counts=counts, sites=len(included))

    def _tally(self, public: EvaluatedPublic, counts: Integers) -> Tally:
        task, noise = public.task, 0.0
        if task.mechanism is not None:
            sensitivity = self.sensitivity(public, task.mechanism.privacy)
            noisy = NoisySum(task.mechanism, self._layout(task), sensitivity)
            noise = noisy.stds[_CONFUSION] / _STEPS
        classes = len(task.classes)
        parts = {
            name: part.reshape(classes, -1)
            for name, part in self._layout(task).split(counts).items()
        }
        own, others = parts.get(_OWN), parts.get(_OTHERS)
        return Tally(parts[_CONFUSION], own, others, _steps(task), noise)

    def _layout(self, task: Task) -> Layout:
        """Lay out the counts; with noise without scores, whose many bins it would drown."""
        steps, classes = _steps(task), len(task.classes)
        lengths = {_CONFUSION: classes**2}
        if task.mechanism is None:
            lengths |= dict.fromkeys((_OWN, _OTHERS), classes * bins_for(classes))
        most, own = steps * task.total_rows, steps * task.client_rows
        blocks = (Block(name, n, 0, most, 1 / steps, 0, own) for name, n in lengths.items())
        return Layout(tuple(blocks))

    def _unit(self, model: Model) -> float:
        log_odds = model.has_probabilities or self.releases_updates
        return LOG_ODDS if log_odds else SCORES

    def _check_model(self, public: EvaluatedPublic) -> None:
        """Raise DataError for a state whose model cannot score the task's rows."""
        task = public.task
        try:
            with np.errstate(invalid="ignore"):
                scores = self.model(public).scores(np.zeros((1, task.feature_dim)))
        except (ValueError, TypeError, LookupError, ArithmeticError, AssertionError) as error:
            raise DataError(f"no model of this task: {error}") from None
        if scores.shape != (1, len(task.classes)) or np.isnan(scores).any():
            raise DataError("a model of other classes, or one whose scores are no numbers")

    def _moved(self, public: EvaluatedPublic, learned: PublicState) -> EvaluatedPublic:
        last = self.method.layout(learned) is None
        return self._state(public.task, learned, evaluating=last)

    def _state(
        self, task: Task, learned: PublicState, *, evaluating: bool = False
    ) -> EvaluatedPublic:
        made: EvaluatedPublic = self.public(task, learned, evaluating)  # type: ignore[call-arg,assignment]
        return made


def evaluated(method: AnyMethod, share: float) -> Evaluated:
    """Give a method one further round, of counts of a share of each client's rows.

    Raises:
        ConfigError: a share out of range, or a method that predicts a number.
    """
    if method.numeric:
        raise ConfigError(
            f"--evaluate counts predicted classes, and {method.name} predicts a number; leave it "
            "out, and keep rows out for --test"
        )
    return _kind(type(method))(method, share)


@cache
def _kind(method: type[AnyMethod]) -> type[Evaluated]:
    made = further_kind(method, Evaluated, EvaluatedPublic, "Evaluated", "evaluated")
    assert issubclass(made, Evaluated), "its base"
    return made


def _chosen(data: ClientData, which: NDArray[np.bool_]) -> ClientData | None:
    return data.take(np.flatnonzero(which)) if which.any() else None


def _settled(model: Model, row: NDArray[np.floating], classes: int) -> Floats:
    """Return a row's scores, (1, C), none of them NaN; zeros where there are none.

    With noise no row may make its client refuse, which all would see, and no noise would hide:
    whoever lies about a sum can choose a model whose scores overflow for the rows that it asks for.
    """
    try:
        with np.errstate(all="ignore"):
            scores = model.comparable(row[None])
    except (DataError, ArithmeticError):
        return np.zeros((1, classes))
    return np.nan_to_num(scores, nan=0.0, posinf=np.inf, neginf=-np.inf)


def _packed(found: Tally) -> Integers:
    parts = (found.confusion, found.own, found.others)
    packed: Integers = np.concatenate([part.ravel() for part in parts if part is not None])
    return packed


def _steps(task: Task) -> int:
    return 1 if task.mechanism is None else _STEPS
