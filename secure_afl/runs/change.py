"""Joining and leaving: a released total changed by one blind sum over those who come and go.

The total less a client's statistics equals the statistics of the rest, and the model is equal byte
for byte: that is exact unlearning. It is a differencing attack too, which `presence` refuses. One
party's withdrawal cannot be hidden from whoever kept the old total or model.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from protocols.layout import Block, Integers, Layout
from protocols.network import Network
from protocols.protocol import Protocol
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import ConfigError, DataError, OutOfBoundsTotal
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.federation.warnings import ROWS_PER_DIMENSION
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import Method, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.methods.summed import Summed
from secure_afl.methods.task_sums import fit_task, task_layout, task_statistics
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.presence import check_presence
from secure_afl.privacy.sensitivity import Sensitivity


@dataclass(frozen=True, eq=False)
class Standing:
    """What the receiver of a total keeps, to change it later.

    Attributes:
        method, task: of the run that made the total.
        statistics: the total.
        present: the parties in it.
        released: the parties in every total ever released, this one last.
        warnings: what a reader of the last change should know.
    """

    method: Summed
    task: Task
    statistics: Statistics
    present: frozenset[str]
    released: tuple[frozenset[str], ...]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Standing of {len(self.present)} parties after {len(self.released)} totals>"

    @classmethod
    def of(cls, result: Result) -> "Standing":
        """Keep the total of an exact run.

        Raises:
            ConfigError: a run with noise, of a method that sums no statistics, or evaluated.
            OutOfBoundsTotal: the total breaks its bounds, and takes part in no change.
        """
        method, task = result.method, result.public.task
        if not isinstance(method, Summed) or task.mechanism is not None:
            raise ConfigError("a change goes on from an exact sum of statistics, by afl or fedhip")
        if len(result.rounds) > 1:
            raise ConfigError(
                "this run had more sums than one, of rows kept out or of ranges, from which no "
                "change goes on; run without --evaluate and --scale"
            )
        released = result.rounds[-1].released
        if released.outside:
            raise OutOfBoundsTotal(released.outside)
        present = frozenset(released.included)
        return cls(method, task, result.statistics, present, (present,))

    def model(self) -> LinearModel:
        """Fit the method's head to the total, as retraining on the present parties would."""
        fitted = fit_task(self.task, self.method.heads(self.task), self.statistics)
        return LinearModel.fitted(fitted, self.task.classes, self.task.quantiser)


class ChangePublic(PublicState, frozen=True, eq=False):
    """The task of a change, and who leaves."""

    leaving: tuple[str, ...] = ()


class Change(Method[ChangePublic], frozen=True, tag="change"):
    """One blind sum over the parties that come and go: a joiner adds v, a leaver −v.

    Attributes:
        leaving: names of the leavers, sorted.
    """

    name = "change"
    summary = "the change of a total"
    public = ChangePublic
    leaving: tuple[str, ...] = ()

    def begin(self, task: Task) -> ChangePublic:
        """Return the task, with who leaves."""
        return ChangePublic(task, self.leaving)

    def layout(self, public: ChangePublic) -> Layout | None:
        """Return the layout of signed statistics: both ends of every range are reached."""
        return Layout(tuple(_signed(block) for block in task_layout(public.task).blocks))

    def sensitivity(self, public: ChangePublic, privacy: Privacy) -> Sensitivity:
        """Refuse: a change is of exact totals.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a change has no noise; release a new noisy sum instead")

    def contribute(
        self, public: ChangePublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Pack the client's statistics, negative if it leaves."""
        vector = task_statistics(public.task, data).pack()
        return -vector if data.name in public.leaving else vector

    def absorb(
        self, public: ChangePublic, total: Integers, included: tuple[str, ...]
    ) -> ChangePublic:
        """Leave the state as it is: the total is added to another one elsewhere."""
        return public

    def model(self, public: ChangePublic) -> LinearModel:
        """Refuse: a change is no model.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a change is no model; see Standing.model")


def change(
    standing: Standing,
    protocol: Protocol,
    *,
    joining: Sequence[ClientData] = (),
    leaving: Sequence[ClientData] = (),
    cohort: int = 3,
) -> Standing:
    """Change a total by one blind sum over those who join and leave, whole parties each.

    Args:
        standing: the total as it is.
        protocol: what carries the sum.
        joining, leaving: the parties, with all their rows; a leaver's are those that it brought.
        cohort: the least number of parties of equal history that any combination may tell of.

    Raises:
        LedgerRefusal: with the totals that are out, this one would single parties out.
        DataError: a joiner that is there, a leaver that is not, or nobody.
        OutOfBoundsTotal: the new total is none of the parties that it should be of.
    """
    present = _after(standing, [c.name for c in joining], [c.name for c in leaving])
    check_presence(standing.released, present, cohort)
    changing = [*joining, *leaving]
    task = standing.task
    method = Change(tuple(sorted(client.name for client in leaving)))
    federation = Federation(
        method,
        protocol,
        feature_bits=task.quantiser.bits,
        row_mode=task.quantiser.mode,
        clip=task.quantiser.clip,
        # One that vanishes half-way would leave another set than was checked.
        min_cohort=len(changing),
        backbone=task.backbone,
    )
    first = federation.first_session(changing, classes=task.classes)
    released = Network(first.parties).run()
    difference = Statistics.unpack(released.total, first.session.layout)
    total = standing.statistics + difference
    if released.outside or not _plausible(total, task.quantiser):
        raise OutOfBoundsTotal(tuple(released.outside) or (("total", 1),))
    rows = sum(len(client) for client in changing)
    warnings: tuple[str, ...] = ()
    if rows < ROWS_PER_DIMENSION * task.feature_dim:
        warnings = (
            f"{rows} rows came or went for {task.feature_dim} dimensions: whoever has both totals "
            "can tell whose rows they are. Safer: more rows at once, or noise.",
        )
    bounds = [1 << (len(client) - 1).bit_length() for client in joining]
    grown = replace_task(task, len(present), bounds)
    return replace(
        standing,
        task=grown,
        statistics=total,
        present=present,
        released=(*standing.released, present),
        warnings=warnings,
    )


def _signed(block: Block) -> Block:
    """Return a block whose entries may be any in size that they may be now, of either sign."""
    reach = max(abs(block.low), abs(block.high))
    own = max(abs(bound) for bound in block.addend)
    return Block(block.name, block.length, -reach, reach, block.scale, -own, own)


def replace_task(task: Task, clients: int, bounds: Sequence[int]) -> Task:
    """Return a task with room for joiners, which declare these bounds on their rows."""
    from msgspec.structs import replace as changed

    most = max([task.client_rows, *bounds])
    rows = min(max(task.total_rows + sum(bounds), most), clients * most)
    return changed(task, clients=clients, client_rows=most, total_rows=rows)


def _after(
    standing: Standing, joining: Collection[str], leaving: Collection[str]
) -> frozenset[str]:
    if not joining and not leaving:
        raise DataError("nobody joins or leaves; name at least one party")
    there = sorted(set(joining) & standing.present)
    if there or len(set(joining)) < len(joining):
        raise DataError(f"'{(there or sorted(joining))[0]}' joins, but is in the total already")
    missing = sorted(set(leaving) - standing.present)
    if missing or len(set(leaving)) < len(leaving):
        raise DataError(f"'{(missing or sorted(leaving))[0]}' leaves, but is not in the total")
    return (standing.present | set(joining)) - set(leaving)


def _plausible(total: Statistics, quantiser: Quantiser) -> bool:
    """Say whether a total can be one of rows: what a leaver takes off was once added."""
    rows = int(total.counts.sum())
    diagonal = total.gram.diagonal()
    return bool(
        (total.counts >= 0).all()
        and (diagonal >= 0).all()
        and (diagonal <= rows * quantiser.scale**2).all()
        and (np.abs(total.cross) <= total.counts * quantiser.scale).all()
    )
