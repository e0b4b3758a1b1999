"""A method with one round before its own: which ranges columns have that nobody declared.

Every site says in one blind sum, for each column without a public range, which power of two holds
its values. The range is the widest power that two sites reach, so that none sets it alone. The
receiver learns how many sites have each exponent, and everybody the exponents that are taken. A
receiver that lies about that sum can choose the ranges, and so where values are cut: the sums after
it are as many, of the same clients, and of rows that are no longer.
"""

from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np

from protocols.codec import encode
from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.rows import ClientData, check_rows
from secure_afl.analytic.scales import (
    check_seen,
    completed,
    exponents,
    open_columns,
    rescaled,
)
from secure_afl.analytic.tally import Tally
from secure_afl.data.columns import GREATEST, LEAST
from secure_afl.errors import ConfigError, DataError, NoModel
from secure_afl.methods.further import Further, FurtherPublic, further_kind
from secure_afl.methods.memory import Memory, a_round_later
from secure_afl.methods.method import AnyMethod, Own, PublicState, Task
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity

CLIENTS = 3
"""Fewest clients of such a sum: of two, each would read the other's exponents off the ranges."""
REACHED_BY = 2

_BLOCK = "exponents"
# One place for each exponent, and a last one for a column of zeros.
_PLACES = GREATEST - LEAST + 2


class ScaledPublic(FurtherPublic, frozen=True, eq=False):
    """The state of what is learned, and the ranges that it goes by.

    Attributes:
        exponents: e of each column without a public range, which is [−2^e, 2^e]; features in
            order, then the target. Empty before the first sum.
    """

    exponents: tuple[int, ...] = ()


class Scaled(Further[ScaledPublic], frozen=True, tag="scaled"):
    """A method, and before it one sum of exponents; `scaled` makes one."""

    def model_sums(self, public: ScaledPublic, sums: int) -> int:
        """Return one more than the method's: the model goes by the ranges."""
        return self.method.model_sums(public.learned, sums - 1) + 1

    @property
    def least_cohort(self) -> int:
        """Three at least, of whom no one can tell the others' exponents apart."""
        return max(CLIENTS, self.method.least_cohort)

    def adds_up(self, public: ScaledPublic) -> bool:
        """Say whether the next sum is of rows: quantiles of clients are none of pooled rows."""
        return bool(public.exponents) and self.method.adds_up(public.learned)

    def reveals(self, round: int, task: Task) -> bool:
        """Say so of the method's own rounds: ranges tell the total of exponents in part only."""
        return round > 1 and self.method.reveals(round - 1, task)

    def advice(self, clients: int, *, few_rows: bool) -> tuple[str, ...]:
        """Say what the first sum gives away."""
        return (
            "Ranges were found from the data (--scale): whoever receives the sums learned how many "
            "sites have each exponent, by column, and everybody the ranges that were taken. A "
            "dictionary with these ranges needs no such sum again.",
            *self.method.advice(clients, few_rows=few_rows),
        )

    # Rounds

    def begin(self, task: Task) -> ScaledPublic:
        """Return the method's first state, and no exponents.

        Raises:
            ConfigError: no column lacks a range, or there is noise, or clients are too few.
        """
        if not open_columns(task.columns):
            raise ConfigError(
                "--scale federated has no effect: no column of the model lacks a range; leave it "
                "out"
            )
        if task.mechanism is not None:
            raise _no_noise()
        return self._state(task, self.method.begin(task))

    def check(self, public: ScaledPublic, round: int) -> None:
        """Check that a state is one of this round, and its exponents such as can be.

        Raises:
            DataError: it is not.
        """
        task, found = public.task, public.exponents
        wanted = len(open_columns(task.columns))
        if not wanted or len(found) != (0 if round == 1 else wanted):
            raise DataError(
                f"{len(found)} exponents of {wanted} columns without a range, in round {round}"
            )
        if wrong := [e for e in found if not LEAST <= e <= GREATEST]:
            raise DataError(f"exponent {wrong[0]}; allowed: {LEAST}..{GREATEST}")
        if encode(public.learned.task) != encode(_with_ranges(task, found)):
            raise DataError("the method's task has other ranges than the exponents give")
        if round > 1:
            self.method.check(public.learned, round - 1)

    def check_step(self, before: ScaledPublic, after: ScaledPublic) -> None:
        """Check that ranges stay once they are found, and that the method begins with them.

        Raises:
            DataError: they do not, or it does not.
        """
        if not before.exponents:
            begun = self.method.begin(_with_ranges(before.task, after.exponents))
            if not after.exponents or encode(after.learned) != encode(begun):
                raise DataError("the method does not begin with the ranges that were found")
            return
        if after.exponents != before.exponents:
            raise DataError("other ranges than in the rounds before")
        self.method.check_step(before.learned, after.learned)

    def check_end(self, public: ScaledPublic, sums: int) -> None:
        """Check the method's last state, which comes after one sum less."""
        self.method.check_end(public.learned, sums - 1)

    def layout(self, public: ScaledPublic) -> Layout | None:
        """Return the layout of exponents, then the method's."""
        if public.exponents:
            return self.method.layout(public.learned)
        places = _PLACES * len(open_columns(public.task.columns))
        return Layout((Block(_BLOCK, places, 0, public.task.clients, 1.0, 0, 1),))

    def foreseen(self, task: Task) -> tuple[ScaledPublic, ...]:
        """List the sum of exponents, and the method's kinds of sums."""
        begun = self.begin(task)
        some = (GREATEST,) * len(open_columns(task.columns))  # no layout turns on which they are
        states = self.method.foreseen(_with_ranges(task, some))
        return (begun, *(self._state(task, state, some) for state in states))

    def sensitivity(self, public: ScaledPublic, privacy: Privacy) -> Sensitivity:
        """Refuse: one row can move a quantile as far as it likes.

        Raises:
            ConfigError: always.
        """
        raise _no_noise()

    def contribute(
        self, public: ScaledPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Pack a 1 at the exponent of each column, then what the method does of scaled rows.

        Rows that an evaluation keeps out count for exponents too: which rows they are goes by
        rows in their ranges.

        Raises:
            DataError: rows that the task does not take, or ranges that show few of them alone.
        """
        if public.exponents:
            with a_round_later(memory) as own:
                rows = self._scaled(public, data)
                check_seen(public.task.columns, data, rows, public.task.quantiser)
                return self.method.contribute(public.learned, rows, own, entropy)
        task = public.task
        check_rows(data.features, data.labels, len(task.classes))
        assert task.columns is not None, "checked with the state"
        found = exponents(task.columns, data)
        vector = np.zeros((len(found), _PLACES), dtype=np.int64)
        for row, exponent in zip(vector, found, strict=True):
            row[-1 if exponent is None else exponent - LEAST] = 1
        return vector.ravel()

    def absorb(
        self, public: ScaledPublic, total: Integers, included: tuple[str, ...]
    ) -> ScaledPublic:
        """Take the widest range that two sites reach, or the method's step.

        Raises:
            ConfigError: fewer than two sites have values in a column.
        """
        if not public.exponents:
            return self._found(public, total)
        learned = self.method.absorb(public.learned, total, included)
        return self._state(public.task, learned, public.exponents)

    def advance(
        self, public: ScaledPublic, totals: Sequence[Integers], included: tuple[str, ...]
    ) -> ScaledPublic:
        """Take the widest range that two sites reach, or the method's step.

        Raises:
            ConfigError: as `absorb`.
        """
        if not public.exponents:
            return self._found(public, totals[-1])
        own = totals[1:] if self.method.needs_totals else totals
        learned = self.method.advance(public.learned, own, included)
        return self._state(public.task, learned, public.exponents)

    def complete(self, public: ScaledPublic) -> bool:
        """Say whether the model is there, whatever sums may follow."""
        return bool(public.exponents) and self.method.complete(public.learned)

    def counted(self, public: ScaledPublic) -> Tally | None:
        """Return the method's counts, if it has some."""
        return self.method.counted(public.learned)

    def personalise(
        self,
        public: ScaledPublic,
        data: ClientData,
        memory: Memory,
        kept: ClientData | None = None,
    ) -> Own:
        """Make the client's own model, of rows in the ranges that were found."""
        own = None if kept is None else self._scaled(public, kept)
        return self.method.personalise(public.learned, self._scaled(public, data), memory, own)

    # Rows, here in the ranges that were found

    def trained(self, task: Task, data: ClientData) -> ClientData | None:
        """Return the method's rows to train on."""
        return self.method.trained(task, data)

    def kept(self, task: Task, data: ClientData) -> ClientData | None:
        """Return the method's rows that are kept out."""
        return self.method.kept(task, data)

    def _scaled(self, public: ScaledPublic, data: ClientData) -> ClientData:
        return rescaled(public.task.columns, public.learned.task.columns, data)

    def _found(self, public: ScaledPublic, total: Integers) -> ScaledPublic:
        columns = open_columns(public.task.columns)
        sites = total.reshape(len(columns), _PLACES)[:, :-1]
        reach = sites[:, ::-1].cumsum(axis=1)[:, ::-1] >= REACHED_BY
        if not (there := reach.any(axis=1)).all():
            raise NoModel(
                f"fewer than {REACHED_BY} sites have a value other than 0 in column "
                f"{columns[int(there.argmin())].name!r}, and no range follows; declare one in the "
                "dictionary, or take the column out of the model"
            )
        found = tuple(LEAST + int(np.flatnonzero(row).max()) for row in reach)
        begun = self.method.begin(_with_ranges(public.task, found))
        return self._state(public.task, begun, found)

    def _state(self, task: Task, learned: PublicState, found: tuple[int, ...] = ()) -> ScaledPublic:
        made: ScaledPublic = self.public(task, learned, found)  # type: ignore[call-arg,assignment]
        return made


def scaled(method: AnyMethod) -> Scaled:
    """Give a method one round before its own, of exponents of columns without a range."""
    return _kind(type(method))(method)


@cache
def _kind(method: type[AnyMethod]) -> type[Scaled]:
    made = further_kind(method, Scaled, ScaledPublic, "Scaled", "scaled")
    assert issubclass(made, Scaled), "its base"
    return made


def _with_ranges(task: Task, found: tuple[int, ...]) -> Task:
    """Return the task of the method's own rounds; its own before ranges are found."""
    if task.columns is None or not found:
        return task
    return msgspec.structs.replace(task, columns=completed(task.columns, found))


def _no_noise() -> ConfigError:
    return ConfigError(
        "--scale federated with --epsilon: one row can move a quantile as far as it likes, and no "
        "noise would hide it. Declare ranges in the dictionary, or leave one of the two out"
    )
