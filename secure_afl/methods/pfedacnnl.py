"""pFedACnnL: heads of clients' own behind common layers, and groups of clients nobody sees."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

import numpy as np
from msgspec import Meta
from msgspec.structs import force_setattr, replace

from protocols.layout import Integers, Layout
from secure_afl.analytic.heads.head import Fitted
from secure_afl.analytic.heads.ridge import DEFAULT_RIDGE, Ridge
from secure_afl.analytic.priors import check_prior
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics, one_hot
from secure_afl.checks import settle_int
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.fedacnnl import FedACnnL, LayeredPublic
from secure_afl.methods.groups import (
    MAX_GROUPS,
    Profiles,
    counts_layout,
    drawn_group,
    fitting_group,
    joined,
    nearest_profile,
    placed,
    read_profiles,
    repeated,
    settle_profiles,
)
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import METHODS, Own, Task
from secure_afl.methods.personal.auto import Auto
from secure_afl.methods.personal.personal import halves
from secure_afl.methods.summed import PersonalName, SummedPublic
from secure_afl.methods.task_sums import fit_task, task_layout
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity

MAX_REGROUPINGS = 20
_REGROUPINGS, _LEAST_CLIENTS = 5, 3

Groups: TypeAlias = Annotated[
    Annotated[int, Meta(ge=2, le=MAX_GROUPS)] | None,
    Meta(
        description="hidden groups of clients, each with a head of its own; a client picks the "
        "group whose head fits half of its rows best. Default: none.",
        extra={"metavar": "N"},
    ),
]
ProfilesSetting: TypeAlias = Annotated[
    str | Profiles | None,
    Meta(
        description="hidden groups by public class shares, a JSON file [{class: share}, …]; a "
        "client picks the nearest to its own shares. Instead of --groups.",
        extra={"metavar": "FILE"},
    ),
]
Regroupings: TypeAlias = Annotated[
    Annotated[int, Meta(ge=1, le=MAX_REGROUPINGS)] | None,
    Meta(
        description="with --groups: how often clients pick again, two sums each. Default: 5.",
        extra={"metavar": "N"},
    ),
]
LeastClients: TypeAlias = Annotated[
    Annotated[int, Meta(ge=2, le=2**20)] | None,
    Meta(
        description="with groups: smaller ones are joined before their heads are summed. "
        "Default: 3.",
        extra={"metavar": "N"},
    ),
]


class GroupedPublic(LayeredPublic, frozen=True, eq=False):
    """The state of layers, and of groups.

    Attributes:
        done: sums of heads that are over.
        left: how many groups there are to pick from.
        joins: for each of these, which group of the next sum of heads it belongs to; empty before
            their clients are counted.
        fitted: the groups' ridge classifiers that clients pick by; empty before there are any.
        heads: each group's head, after the last sum.
    """

    done: int = 0
    left: int = 1
    joins: tuple[int, ...] = ()
    fitted: tuple[Fitted, ...] = ()
    heads: tuple[SummedPublic, ...] = ()


@METHODS.register
class PFedACnnL(FedACnnL, frozen=True, tag="pfedacnnl"):
    """FedACnnL with heads of clients' own and, where asked for, hidden groups of clients.

    A client's head is drawn to its group's, or to everybody's without groups. The vector of a sum
    of heads has a block for each group, of which a client fills one; before it goes a sum of the
    groups' numbers of clients, by which small groups are joined. Which group a client is in stays
    with the client: nobody is told, and all vectors are as long.

    Groups by profiles take one such pair of sums. Groups by fit begin at random; a client's first
    half of rows goes into the sum, and it picks the group that fits its other half best (Ghosh et
    al., NeurIPS 2020, with ridge for their gradient steps). The last sum is of all rows.

    Attributes:
        groups, profiles, regroupings, least_clients: as their flags say.
    """

    name = "pfedacnnl"
    summary = "fedacnnl with heads of clients' own, and hidden groups of clients"
    public = GroupedPublic
    row_additive = False
    sums_of = "fedacnnl"
    personal: PersonalName = Auto.name
    groups: Groups = None
    profiles: ProfilesSetting = None
    regroupings: Regroupings = None
    least_clients: LeastClients = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups is not None:
            settle_int(self, "groups", 2, MAX_GROUPS)
        if self.profiles is not None:
            if isinstance(self.profiles, str):
                raise ConfigError("profiles is a path; allowed: class shares, see read_profiles")
            force_setattr(self, "profiles", settle_profiles(self.profiles))
        if self.groups is not None and self.profiles is not None:
            raise ConfigError(
                "groups and profiles; allowed: one of the two, for profiles say how many groups "
                "there are. Leave --groups out"
            )
        for field, most, goes_with in (
            ("regroupings", MAX_REGROUPINGS, self.groups is not None),
            ("least_clients", 2**20, self.grouped),
        ):
            if getattr(self, field) is not None:
                settle_int(self, field, 1 if field == "regroupings" else 2, most)
                if not goes_with:
                    raise ConfigError(
                        f"--{field.replace('_', '-')} has no effect without --groups; leave it "
                        "out, or add groups"
                    )

    @classmethod
    def configured(cls, settings: Mapping[str, Any], *, private: bool, seed: int) -> Self:
        """Make the method of a run; profiles are a file."""
        profiles = settings.get("profiles")
        read = {"profiles": read_profiles(Path(profiles))} if isinstance(profiles, str) else {}
        return super().configured({**settings, **read}, private=private, seed=seed)

    @property
    def grouped(self) -> bool:
        """Whether there are groups."""
        return self.groups is not None or self.profiles is not None

    @property
    def personalises(self) -> bool:
        """Whether clients end with models of their own: they do in groups anyway."""
        return self.grouped or super().personalises

    @property
    def liar_reads(self) -> str:
        """Sums of groups that it did not join, of one client perhaps."""
        return "the sums of single clients" if self.grouped else ""

    @property
    def sums(self) -> int:
        """Blind sums of FedACnnL, and with groups two for each time that clients pick."""
        return super().sums + (2 * self._picks - 1 if self.grouped else 0)

    @property
    def _picks(self) -> int:
        by_fit = (_REGROUPINGS if self.regroupings is None else self.regroupings) + 1
        return by_fit if self.groups is not None else 1

    @property
    def _most_groups(self) -> int:
        return self.groups if self.groups is not None else len(self.profiles or ("",))

    def begin(self, task: Task) -> GroupedPublic:
        """Return the task, with no layers and no heads yet.

        Raises:
            ConfigError: rows are no images that fit, or profiles of other classes.
        """
        for profile in self.profiles or ():
            check_prior(profile, task.classes)
        begun = super().begin(task)
        return GroupedPublic(task, begun.banks, left=self._most_groups)

    def check(self, public: LayeredPublic, round: int) -> None:
        """Check that layers and groups are those of this round.

        Raises:
            DataError: they are not.
        """
        if not self.grouped:
            super().check(public, round)
            return
        state = _grouped(public)
        super().check(public, min(round, self._summed + 1))
        done, counted = divmod(max(round - 1 - self._summed, 0), 2)
        wanted = done, bool(counted), done > 0
        if (state.done, bool(state.joins), bool(state.fitted)) != wanted or state.heads:
            raise DataError(f"a state after {state.done} sums of heads in round {round}")
        width, classes = self.network(state.task).width, len(state.task.classes)
        if (
            not 1 <= state.left <= self._most_groups
            or len(state.fitted) not in (0, state.left)
            or any(group.weights.shape != (width, classes) for group in state.fitted)
            or (state.joins and not self._joins_are_whole(state))
        ):
            raise DataError(f"groups of round {round} that contradict each other")

    @staticmethod
    def _joins_are_whole(state: GroupedPublic) -> bool:
        named = set(state.joins)
        return len(state.joins) == state.left and named == set(range(len(named)))

    def foreseen(self, task: Task) -> tuple[LayeredPublic, ...]:
        """List a state for every kind of sum."""
        states = super().foreseen(task)
        if not self.grouped:
            return tuple(GroupedPublic(task, state.banks) for state in states)
        left = self._most_groups
        layers = tuple(GroupedPublic(task, state.banks, left=left) for state in states)
        return (*layers, replace(layers[-1], joins=tuple(range(left))))

    def layout(self, public: LayeredPublic) -> Layout | None:
        """Return the layout of the next sum: of a layer, of clients by group, or of heads."""
        state = _grouped(public)
        if not self.grouped or len(state.banks) < self.layers or state.head is not None:
            return super().layout(public)
        if not state.joins:
            return counts_layout(state.left, state.task.clients)
        one = super().layout(public)
        assert one is not None, "the last sum is to come"
        return repeated(one, len(set(state.joins)))

    def sensitivity(self, public: LayeredPublic, privacy: Privacy) -> Sensitivity:
        """Bound a unit's influence as FedACnnL does.

        Raises:
            ConfigError: groups, which follow from clients' rows.
        """
        if self.grouped:
            raise ConfigError(
                "groups with --epsilon; allowed: none, for which group a client picks follows from "
                "its rows, and one row could move all of them. Leave --groups and --profiles out"
            )
        return super().sensitivity(public, privacy)

    def contribute(
        self, public: LayeredPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Pack a layer's sums, a 1 at the client's group, or its head statistics there.

        Raises:
            DataError: as FedACnnL's.
        """
        state = _grouped(public)
        if not self.grouped or len(state.banks) < self.layers:
            return super().contribute(public, data, memory, entropy)
        group = self._group(state, data)
        if not state.joins:
            return placed(np.ones(1, dtype=np.int64), group, state.left)
        last = state.done + 1 == self._picks
        used = data if last or len(data) < 2 else halves(data)[0]
        vector = super().contribute(public, used, memory, entropy)
        return placed(vector, state.joins[group], len(set(state.joins)))

    def absorb(
        self, public: LayeredPublic, total: Integers, included: tuple[str, ...]
    ) -> LayeredPublic:
        """Make filters, join groups, or fit every group's head to its block and one to all."""
        state = _grouped(public)
        if not self.grouped or len(state.banks) < self.layers:
            return super().absorb(public, total, included)
        if not state.joins:
            least = _LEAST_CLIENTS if self.least_clients is None else self.least_clients
            return replace(state, joins=joined(total, least))
        task, groups = self.head_task(state.task), len(set(state.joins))
        parts = total.reshape(groups, -1)
        if state.done + 1 < self._picks:
            fitted = tuple(self._by_ridge(task, part) for part in parts)
            return replace(state, done=state.done + 1, left=groups, joins=(), fitted=fitted)
        method = self.head_method
        begun = method.begin(task)
        heads = tuple(method.absorb(begun, part, included) for part in parts)
        head = method.absorb(begun, parts.sum(axis=0), included)
        return replace(state, done=state.done + 1, heads=heads, head=head)

    def personalise(
        self,
        public: LayeredPublic,
        data: ClientData,
        memory: Memory,
        kept: ClientData | None = None,
    ) -> Own:
        """Make the client's own head, drawn to its group's where there are groups."""
        state = _grouped(public)
        if not self.grouped:
            return super().personalise(public, data, memory, kept)
        own = state.heads[state.joins[self._group(state, data)]]
        return self._own(replace(state, head=own), data, memory, kept)

    def _group(self, state: GroupedPublic, data: ClientData) -> int:
        """Return the group that a client picks, which follows from the state and its rows."""
        if self.profiles is not None:
            assert not isinstance(self.profiles, str), "settled when it was made"
            return nearest_profile(self.profiles, state.task.classes, data.labels)
        if not state.fitted:
            return drawn_group(self.seed, data, state.left)
        rows = halves(data)[1] if len(data) > 1 else data
        seen = state.task.quantiser.scaled(self.seen(state, rows).features)
        targets = one_hot(rows.labels, len(state.task.classes))
        return fitting_group(state.fitted, seen, targets)

    def _by_ridge(self, task: Task, vector: Integers) -> Fitted:
        """Fit the classifier that clients pick a group by."""
        heads = (Ridge(), Ridge(ridge=DEFAULT_RIDGE))
        return fit_task(task, heads, Statistics.unpack(vector, task_layout(task)))


def _grouped(public: LayeredPublic) -> GroupedPublic:
    assert isinstance(public, GroupedPublic), "a state of this method"
    return public
