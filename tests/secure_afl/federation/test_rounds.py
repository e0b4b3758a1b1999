"""Rounds in a chain: nobody gives one round twice, nor two parties different histories."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import (
    Additive,
    Enrolment,
    Fault,
    FaultPlan,
    Identity,
    Network,
    Pairwise,
    Party,
    Plain,
    Protocol,
    Session,
)
from protocols.codec import decode, encode
from protocols.errors import AnotherSet, InvalidSession, SessionAborted
from protocols.layout import Integers
from protocols.release import commit
from protocols.void import Evidence, Voids, sign_void
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError, OutOfBoundsTotal
from secure_afl.federation import simulation
from secure_afl.federation.client import FederationClient
from secure_afl.federation.oracle import RecordingClient
from secure_afl.federation.rounds.half import Half
from secure_afl.federation.rounds.history import MAX_ATTEMPTS, History, Link, Opening, state_digest
from secure_afl.federation.server import FederationCoordinator
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import Terms
from secure_afl.methods import AFL, AnyMethod, FedAvg, FedHiP, FedSGD
from secure_afl.methods.averaging import AveragingPublic
from secure_afl.methods.summed import SummedPublic
from tests.kit.halves import Halves
from tests.kit.liars import nudged, stalled
from tests.kit.samples import make_clients, make_task

CLIENTS = make_clients((20, 20, 20, 20, 20), classes=2)
NAMES = [client.name for client in CLIENTS]
WEIGHTED = FedSGD(rounds=4)
UNWEIGHTED = FedSGD(rounds=4, weighted=False)


def halves(method: AnyMethod = WEIGHTED, protocol: Protocol | None = None, **server: Any) -> Halves:
    task = make_task(CLIENTS, classes=2, bits=12, max_rows=32)
    terms = Terms(method, protocol or Additive())
    return Halves(terms, task, CLIENTS, min_cohort=3, **server)


def members(world: Halves, **wishes: Any) -> dict[str, FederationClient]:
    return {name: world.client(name, pinned=world.roster, **wishes) for name in NAMES}


def one_round(world: Halves, everybody: dict[str, FederationClient]) -> Integers:
    """An honest round of all clients; returns its sum."""
    session, enrolments = world.form()
    released, release, salt = world.carry(session, enrolments, everybody)
    world.server.absorb(session, released, release, salt)
    return released.total


# One round, once


@pytest.mark.parametrize("bend", ["state", "round", "nothing"])
def test_a_round_that_comes_again_is_refused_whatever_is_bent(bend: str) -> None:
    """The same parameters once more, in the last bit others, without the victim: a difference."""
    world = halves()
    everybody = members(world)
    one_round_of = world.server.public
    session, enrolments = world.form()
    world.carry(session, enrolments, everybody)

    public = one_round_of if bend != "state" else nudged(one_round_of)
    world.server.public = public
    world.server.history = History(state_digest(public))
    again, enrolments = world.form(NAMES[:-1])
    if bend == "round":
        header = msgspec.structs.replace(again.header, round=2)
        again = type(again)(header, again.roster, again.members)
    opening = Opening(public, world.server.history)
    for name in NAMES[:-1]:
        with pytest.raises(InvalidSession, match=f"{name}: "):
            everybody[name].join(again, enrolments[name], opening)
    for name, carrier in world.carriers.items():
        with pytest.raises(InvalidSession, match=f"{name}: "):
            carrier.join(again, enrolments[name], opening)


def test_a_next_round_needs_what_the_collector_signed() -> None:
    """Whoever forms sessions, and is not the collector, cannot end a round by its own word."""
    world = halves()
    everybody = members(world)
    session, enrolments = world.form()
    world.carry(session, enrolments, everybody)
    forger = Identity.generate("collector")
    world.coordinators["collector"], honest = forger, world.coordinators["collector"]
    world.pretend(stalled(world.server.public), session)
    world.coordinators["collector"] = honest
    session, enrolments = world.form()
    for party in (everybody["c0"], world.carriers["aggregator_1"]):
        name = "c0" if party is everybody["c0"] else "aggregator_1"
        with pytest.raises(InvalidSession, match="round 2: a round of the history is not signed"):
            party.join(session, enrolments[name], world.opening)


def test_a_lying_collector_still_gets_a_difference_where_sets_may_differ() -> None:
    """Documented in SECURITY.md: without noise, and with --no-same-set, only trust prevents it."""
    world = halves()
    everybody = members(world)
    public = world.server.public
    session, enrolments = world.form()
    first, *_ = world.carry(session, enrolments, everybody)
    world.pretend(stalled(public), session, first.total)
    # All are enrolled, and the victim's upload is lost on its way.
    second = lose(world, everybody, "c4")
    difference = first.total - second
    assert isinstance(public, AveragingPublic)
    truth = WEIGHTED.contribute(public, CLIENTS[-1], {}, bytes(32))
    assert difference[-1] == truth[-1] == 20
    error = np.linalg.norm((difference - truth)[:-1]) / np.linalg.norm(truth[:-1])
    assert error < 1e-2


def lose(world: Halves, everybody: dict[str, FederationClient], victim: str) -> Integers:
    """A round of all clients in which the victim's messages are lost."""
    session, enrolments = world.form()
    opening = world.opening
    parties = [c.join(session, enrolments[n], opening) for n, c in world.carriers.items()]
    parties += [m.join(session, enrolments[n], opening) for n, m in everybody.items()]
    return Network(parties, FaultPlan((Fault("lose", sender=victim),))).run().total


@pytest.mark.parametrize("protocol", [Plain(), Additive(), Additive(3), Pairwise()], ids=repr)
def test_where_the_set_is_held_that_difference_is_refused(protocol: Protocol) -> None:
    if isinstance(protocol, Pairwise):
        protocol = Pairwise(dropout_fraction=0.2)
    world = halves(protocol=protocol, same_set=True)
    everybody = members(world, same_set=True)
    public = world.server.public
    session, enrolments = world.form()
    world.carry(session, enrolments, everybody)
    world.pretend(stalled(public), session)
    with pytest.raises(SessionAborted) as ended:
        lose(world, everybody, "c4")
    assert isinstance(ended.value, AnotherSet)
    assert "--no-same-set" in str(ended.value)


@pytest.mark.parametrize("protocol", [Additive(), Pairwise(dropout_fraction=0.2)], ids=repr)
@pytest.mark.parametrize("claimed", [(), NAMES[:-1]])
@pytest.mark.parametrize("restarts", [0, 1, 2])
def test_a_collector_that_lies_about_the_set_is_caught_by_whoever_agreed_to_it(
    protocol: Protocol, claimed: Sequence[str], restarts: int
) -> None:
    """With another set in the history, the next sum could be held to that one."""
    world = halves(protocol=protocol, same_set=True)
    everybody = members(world, same_set=True)
    public = world.server.public
    session, enrolments = world.form()
    world.carry(session, enrolments, everybody)
    world.pretend(stalled(public), session, included=claimed or NAMES[:3])
    session, enrolments = world.form()
    for party in (everybody["c0"], world.carriers.get("aggregator_1")):
        knows = isinstance(party, FederationClient) == isinstance(protocol, Pairwise)
        if party is None or not knows:
            continue
        name = "c0" if party is everybody["c0"] else "aggregator_1"
        for _ in range(restarts):
            party = restarted(world, party)
        with pytest.raises(InvalidSession, match="other clients in the sum than those that this"):
            party.join(session, enrolments[name], world.opening)
        with pytest.raises(InvalidSession, match="other clients in the sum than those that this"):
            concluded(world, party)


def restarted(world: Halves, half: Any) -> Any:
    """A party's half as another process has it, from what it saved."""
    if isinstance(half, FederationClient):
        made = world.client(half.name, pinned=world.roster, same_set=True)
    else:
        made = FederationCoordinator(half.name, world.terms, world.roster, same_set=True)
    return made.restore(half.save())


def test_to_join_a_session_again_is_to_get_the_same_party() -> None:
    """Another one would know nothing of the set that the first one signed."""
    world = halves()
    session, enrolments = world.form()
    client, carrier = world.client("c0", pinned=world.roster), world.carriers["collector"]
    for half, name in ((client, "c0"), (carrier, "collector")):
        party = half.join(session, enrolments[name], world.opening)
        assert half.join(session, enrolments[name], world.opening) is party


def test_a_client_that_wants_one_set_refuses_a_session_that_names_none_or_another() -> None:
    world = halves()
    everybody = members(world, same_set=True)
    one_round(world, everybody)
    session, enrolments = world.form()
    with pytest.raises(InvalidSession, match="does not hold its sum to the last round's"):
        everybody["c0"].join(session, enrolments["c0"], world.opening)
    held = halves(same_set=True)
    everybody = members(held, same_set=True)
    one_round(held, everybody)
    session, enrolments = held.form()
    header = msgspec.structs.replace(session.header, same_set=held.roster.bits(NAMES[:-1]))
    session = type(session)(header, session.roster)
    with pytest.raises(InvalidSession, match="another set of clients than the first round's"):
        everybody["c0"].join(session, enrolments["c0"], held.opening)


def test_exact_runs_of_many_rounds_hold_the_set_by_default_below_fifty_clients() -> None:
    assert Terms(WEIGHTED, Additive()).keeps_same_set(49)
    assert not Terms(WEIGHTED, Additive()).keeps_same_set(50)
    assert not Terms(AFL(), Additive()).keeps_same_set(5)
    run = Federation(WEIGHTED, Additive()).run(CLIENTS, max_rows=32)
    sets = [round_.session.header.same_set for round_ in run.rounds]
    assert sets[0] == b""
    assert set(sets[1:]) == {run.rounds[0].session.bits(NAMES)}
    free = Federation(WEIGHTED, Additive(), same_set=False).run(CLIENTS, max_rows=32)
    assert {round_.session.header.same_set for round_ in free.rounds} == {b""}


# The history


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": np.full(12, 1e6)}, "the first public state is not the method's"),
        ({"round": 3}, "a state of round 4, wanted 1"),
        ({"round": -5}, "a state of round -4, wanted 1"),
        ({"parameters": np.zeros(())}, r"parameters \[\], wanted \[12\]"),
        ({"parameters": np.zeros((1, 12))}, r"parameters \[1, 12\], wanted \[12\]"),
        ({"parameters": np.zeros(1)}, r"parameters \[1\], wanted \[12\]"),
        ({"parameters": np.full(12, np.nan)}, "finite numbers"),
    ],
)
def test_a_first_state_that_is_not_the_methods_is_refused(
    change: dict[str, Any], message: str
) -> None:
    """Chosen parameters make a gradient show the rows behind it."""
    world = halves()
    world.server.public = msgspec.structs.replace(world.server.public, **change)
    world.server.history = History(state_digest(world.server.public))
    honest = halves()
    session, enrolments = honest.form()
    with pytest.raises(InvalidSession, match=message):
        world.client("c0").join(session, enrolments["c0"], world.opening)


def test_the_first_session_is_over_all_clients_of_its_task_and_later_ones_over_no_others() -> None:
    world = halves()
    everybody = members(world)
    fewer = {name: everybody[name] for name in NAMES[:-1]}
    session, enrolments = world.form(NAMES[:-1])
    with pytest.raises(InvalidSession, match=r"4 clients declare 128 rows.*; the task says 5"):
        world.carriers["collector"].join(session, enrolments["collector"], world.opening)
    with pytest.raises(InvalidSession, match="the task is for 5 clients, the session has 4"):
        everybody["c0"].join(session, enrolments["c0"], world.opening)
    session, enrolments = world.form()
    world.server.absorb(session, *world.carry(session, enrolments, everybody))
    session, enrolments = world.form(NAMES[:-1])
    world.carry(session, enrolments, fewer)


def test_an_attempt_after_the_first_needs_what_gave_the_first_back() -> None:
    world = halves()
    session, enrolments = world.form()
    header = msgspec.structs.replace(session.header, attempt=7, void=bytes(32))
    session = type(session)(header, session.roster)
    with pytest.raises(InvalidSession, match="attempt 7 with 0 earlier ones given back"):
        world.client("c0").join(session, enrolments["c0"], world.opening)


def test_rounds_are_numbered_and_chained_and_clients_may_miss_some() -> None:
    world = halves()
    everybody = members(world)
    late = world.client("c0", pinned=world.roster)
    for number in range(1, 5):
        session, enrolments = world.form()
        assert session.header.round == number
        if number in (2, 4):
            late.join(session, enrolments["c0"], world.opening)
        world.server.absorb(session, *world.carry(session, enrolments, everybody))
    assert len({link.state for link in world.server.history.links}) == 4


def bent(world: Halves, number: int, **changes: Any) -> Opening:
    """The opening with a link of the history changed, and the state's digest as it was."""
    links = list(world.server.history.links)
    release = msgspec.structs.replace(links[number].release, **changes)
    links[number] = Link(release, links[number].state)
    return Opening(world.server.public, History(world.server.history.first, tuple(links)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"session": bytes(32)}, "of another session than this party's"),
        ({"total": bytes(32)}, "not signed by 'collector'"),
        ({"included": b"\x0f"}, "not signed by 'collector'"),
        ({"signature": bytes(64)}, "not signed by 'collector'"),
    ],
)
def test_a_history_that_is_bent_is_refused(change: dict[str, bytes], message: str) -> None:
    world = halves()
    everybody = members(world)
    one_round(world, everybody)
    opening = bent(world, 0, **change)
    session, enrolments = world.form()
    with pytest.raises(InvalidSession, match="c0: round 2: "):
        everybody["c0"].join(session, enrolments["c0"], opening)
    # And where the session is formed over it.
    world.server.history = opening.history
    session, enrolments = world.form()
    with pytest.raises(InvalidSession, match=f"c0: round 2: .*{message}"):
        everybody["c0"].join(session, enrolments["c0"], world.opening)


def test_another_state_than_the_historys_and_another_history_are_refused() -> None:
    world = halves()
    everybody = members(world)
    one_round(world, everybody)
    session, enrolments = world.form()
    opening = world.opening
    other = Opening(nudged(opening.public), opening.history)
    with pytest.raises(InvalidSession, match="not the one that the history ends with"):
        everybody["c0"].join(session, enrolments["c0"], other)
    links = (Link(opening.history.links[0].release, state_digest(other.public)),)
    other = Opening(other.public, History(opening.history.first, links))
    with pytest.raises(InvalidSession, match="another method, task, state or history"):
        everybody["c0"].join(session, enrolments["c0"], other)
    none = Opening(opening.public, History(state_digest(opening.public)))
    with pytest.raises(InvalidSession, match="the history has 0 rounds"):
        everybody["c0"].join(session, enrolments["c0"], none)


def test_a_round_before_the_last_is_refused() -> None:
    world = halves()
    everybody = members(world)
    first, opening = world.form(), world.opening
    world.server.absorb(first[0], *world.carry(*first, everybody))
    one_round(world, everybody)
    with pytest.raises(InvalidSession, match="round 1: this party has been in round 2"):
        everybody["c0"].join(first[0], first[1]["c0"], opening)


def test_to_join_a_session_again_with_another_state_is_refused() -> None:
    """The state is not in the session; a rejoined round must not bring another."""
    world = halves()
    session, enrolments = world.form()
    client = world.client("c0", pinned=world.roster)
    client.join(session, enrolments["c0"], world.opening)
    other = nudged(world.server.public)
    opening = Opening(other, History(state_digest(other)))
    with pytest.raises(InvalidSession, match="the first public state is not the method's"):
        client.join(session, enrolments["c0"], opening)
    client.join(session, enrolments["c0"], world.opening)


def test_another_task_or_roster_in_a_later_round_is_refused() -> None:
    world = halves()
    everybody = members(world)
    one_round(world, everybody)
    public = world.server.public
    task = msgspec.structs.replace(public.task, run=b"another")
    other = msgspec.structs.replace(public, task=task)
    links = (Link(world.server.history.links[0].release, state_digest(other)),)
    world.server.public = other
    world.server.history = History(world.server.history.first, links)
    session, enrolments = world.form()
    with pytest.raises(InvalidSession, match="another task than in the rounds before"):
        everybody["c0"].join(session, enrolments["c0"], world.opening)


# States that clients compute themselves


def test_a_state_that_gives_the_total_away_is_recomputed_by_the_clients() -> None:
    world = halves(UNWEIGHTED)
    everybody = members(world)
    total = one_round(world, everybody)
    session, enrolments = world.form()
    opening = world.opening
    ended = opening.ended
    assert ended is not None
    assert np.array_equal(ended.total, total)
    everybody["c0"].join(session, enrolments["c0"], opening)
    for lie in (None, replace(ended, total=total + 1), replace(ended, salt=bytes(32))):
        with pytest.raises(InvalidSession, match=r"no total .* that the collector signed"):
            everybody["c1"].join(session, enrolments["c1"], replace(opening, ended=lie))
    other = replace(opening, ended=replace(ended, public=nudged(ended.public)))
    with pytest.raises(InvalidSession, match="state before is not the one that the history has"):
        everybody["c1"].join(session, enrolments["c1"], other)


def test_whoever_missed_a_round_recomputes_the_last_one_all_the_same() -> None:
    """Else whoever invites decides which client may check."""
    world = halves(UNWEIGHTED)
    everybody = members(world)
    late = world.client("c0", pinned=world.roster)
    one_round(world, everybody)
    one_round(world, everybody)
    session, enrolments = world.form()
    late.join(session, enrolments["c0"], world.opening)
    lie = nudged(world.server.public)
    links = (
        *world.server.history.links[:-1],
        Link(world.server.history.links[-1].release, state_digest(lie)),
    )
    world.server.public = lie
    world.server.history = History(world.server.history.first, links)
    session, enrolments = world.form()
    newcomer = world.client("c1", pinned=world.roster)
    with pytest.raises(InvalidSession, match="not what the total of the round before gives"):
        newcomer.join(session, enrolments["c1"], world.opening)


@pytest.mark.parametrize("total", [[], [1], [[0] * 15], 0, [0] * 14])
def test_a_signed_total_of_no_layout_is_refused(total: object) -> None:
    world = halves(UNWEIGHTED)
    everybody = members(world)
    session, enrolments = world.form()
    world.carry(session, enrolments, everybody)
    world.pretend(
        msgspec.structs.replace(world.server.public, round=1),
        session,
        np.array(total, dtype=np.int64),
    )
    session, enrolments = world.form()
    with pytest.raises(InvalidSession, match="is none of its layout"):
        everybody["c0"].join(session, enrolments["c0"], world.opening)


def test_a_server_that_computes_another_state_is_caught_where_totals_are_shown() -> None:
    world = halves(UNWEIGHTED)
    everybody = members(world)
    session, enrolments = world.form()
    released, release, salt = world.carry(session, enrolments, everybody)
    world.server.absorb(session, released, release, salt)
    lie = nudged(world.server.public)
    world.server.public = lie
    world.server.history = History(world.server.history.first, (Link(release, state_digest(lie)),))
    session, enrolments = world.form()
    with pytest.raises(InvalidSession, match="not what the total of the round before gives"):
        everybody["c0"].join(session, enrolments["c0"], world.opening)


def test_a_weighted_mean_shows_clients_no_total() -> None:
    world = halves(WEIGHTED)
    one_round(world, members(world))
    assert world.opening.ended is None


def test_the_server_takes_a_sum_with_its_collectors_signature_only() -> None:
    world = halves()
    session, enrolments = world.form()
    released, release, salt = world.carry(session, enrolments, members(world))
    before = world.server.public
    for other in (
        msgspec.structs.replace(released, total=released.total + 1),
        msgspec.structs.replace(released, included=released.included[1:]),
    ):
        with pytest.raises(InvalidSession, match="release is of another sum"):
            world.server.absorb(session, other, release, salt)
    with pytest.raises(InvalidSession, match="release is of another sum"):
        world.server.absorb(session, released, release, bytes(32))
    assert world.server.public is before
    assert release.total == commit(released.total, salt)


# Totals out of their bounds


def lying(party: Party) -> Party:
    """Let a client take one off its last entry, past its own check."""
    honest = party._vector
    assert honest is not None

    def bent(secret: bytes) -> Integers:
        vector = honest(secret).copy()
        vector[-1] = -1
        return vector

    party._take_vector = bent  # type: ignore[method-assign]
    return party


class Liar(FederationClient):
    """A client whose party lies."""

    def join(self, *args: Any, **seat: Any) -> Party:
        return lying(super().join(*args, **seat))


class RecordedLiar(RecordingClient):
    """The same in a simulation, which gives all clients one class: c0 lies."""

    def join(self, *args: Any, **seat: Any) -> Party:
        party = super().join(*args, **seat)
        return lying(party) if self.data.name == "c0" else party


def lied_to(method: AnyMethod, labels: Sequence[int], **server: Any) -> Halves:
    """A run whose client c0 takes one off the last class, of which there are rows or not."""
    clients = [ClientData(c.name, c.features, np.zeros(20, dtype=np.int64)) for c in CLIENTS[:-1]]
    last = np.array([*labels, *([0] * (20 - len(labels)))])
    clients.append(ClientData("c4", CLIENTS[-1].features, last))
    task = make_task(clients, classes=2, max_rows=32)
    return Halves(Terms(method, Additive()), task, clients, min_cohort=3, **server)


@pytest.mark.parametrize("rows_of_the_class", [0, 1])
def test_a_liar_learns_nothing_from_how_the_session_ends(rows_of_the_class: int) -> None:
    world = lied_to(AFL(), [1] * rows_of_the_class)
    session, enrolments = world.form()
    everybody: dict[str, FederationClient] = {name: world.client(name) for name in NAMES}
    everybody["c0"] = world.client("c0", Liar)
    released, release, salt = world.carry(session, enrolments, everybody)
    assert released.total[-1] == rows_of_the_class - 1
    if rows_of_the_class:
        assert released.outside == ()
        world.server.absorb(session, released, release, salt)
    else:
        assert released.outside == (("counts", 1),)
        with pytest.raises(OutOfBoundsTotal, match=r"1 of block 'counts'.*--accept-outside"):
            world.server.absorb(session, released, release, salt)


def test_a_model_of_such_a_sum_is_made_on_demand() -> None:
    world = lied_to(AFL(), [], accept_outside=True)
    session, enrolments = world.form()
    everybody: dict[str, FederationClient] = {name: world.client(name) for name in NAMES}
    everybody["c0"] = world.client("c0", Liar)
    world.server.absorb(session, *world.carry(session, enrolments, everybody))
    assert isinstance(world.server.public, SummedPublic)
    assert AFL().model(world.server.public).weights.shape == (6, 2)


def test_a_run_says_that_its_sum_is_wrong_and_passes_it_on_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulation, "RecordingClient", RecordedLiar)
    clients = [ClientData(c.name, c.features, np.zeros(20, dtype=np.int64)) for c in CLIENTS]
    with pytest.raises(OutOfBoundsTotal):
        Federation(FedHiP(), Additive()).run(clients, classes=("a", "b"), max_rows=32)
    accepted = Federation(FedHiP(), Additive(), accept_outside=True).run(
        clients, classes=("a", "b"), max_rows=32
    )
    assert accepted.report.outside == {"counts": 1}
    assert not accepted.report.exact
    assert accepted.personal == {}


def test_many_rounds_have_no_use_for_a_wrong_sum() -> None:
    with pytest.raises(ConfigError, match="accept_outside with 4 sums"):
        Federation(FedAvg(rounds=4), Additive(), accept_outside=True)


# Attempts: a round may have another session once the last one was given back


def given_back(world: Halves, session: Session, signers: Sequence[str] | None = None) -> Evidence:
    """Evidence of parties that have opened nothing, by their own keys."""
    names = signers or list(world.coordinators)
    voids = Voids.of(sign_void(session, world.coordinators[name]) for name in names)
    return Evidence(encode(session.header), session.thin, voids)


def test_a_client_joins_another_attempt_once_the_last_was_given_back() -> None:
    world = halves()
    everybody = members(world)
    session, enrolments = world.form()
    everybody["c0"].join(session, enrolments["c0"], world.opening)
    # Without evidence it is a second sum of one round, whatever the convener says.
    again, enrolments = world.form()
    with pytest.raises(InvalidSession, match="has joined another session of this round"):
        everybody["c0"].join(again, enrolments["c0"], world.opening)
    world.server.attempt_again(given_back(world, session))
    again, enrolments = world.form(NAMES[:-1])
    assert (again.header.round, again.header.attempt) == (1, 1)
    rest = {name: everybody[name] for name in NAMES[:-1]}
    world.server.absorb(again, *world.carry(again, enrolments, rest))
    # And the round after that, over a history of the second attempt.
    session, enrolments = world.form(NAMES[:-1])
    world.carry(session, enrolments, rest)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_client_that_was_in_a_session_given_back_and_not_in_the_next_goes_on(
    restarted: bool,
) -> None:
    """Whoever was too slow for the second attempt was once locked out of the run for good."""
    world = halves()
    everybody = members(world)
    session, enrolments = world.form()
    everybody["c4"].join(session, enrolments["c4"], world.opening)
    evidence = given_back(world, session)
    world.server.attempt_again(evidence)
    rest = {name: everybody[name] for name in NAMES[:-1]}
    again, enrolments = world.form(NAMES[:-1])
    world.server.absorb(again, *world.carry(again, enrolments, rest))
    late, enrolments = world.form()
    without = everybody["c4"].save()
    everybody["c4"].given_back(session.id, "no sum came out", encode(evidence))
    for saved, known in ((without, False), (everybody["c4"].save(), True)):
        member = everybody["c4"] if known and not restarted else world.client("c4")
        member.pinned = world.roster
        if restarted or not known:
            member.restore(saved)
        if known:
            member.join(late, enrolments["c4"], world.opening)
            continue
        with pytest.raises(InvalidSession, match="of another session than this party's"):
            member.join(late, enrolments["c4"], world.opening)


def forged(world: Halves, **changes: Any) -> tuple[Session, dict[str, Enrolment]]:
    """A session with another header than the server would form."""
    session, enrolments = world.form()
    header = msgspec.structs.replace(session.header, **changes)
    return type(session)(header, session.roster), enrolments


def join_with(world: Halves, voids: Sequence[Evidence], **changes: Any) -> None:
    """Let a client join an attempt that names these as what came before."""
    digest = voids[-1].voids.digest if voids else b""
    session, enrolments = forged(world, **({"attempt": len(voids), "void": digest} | changes))
    opening = replace(world.opening, voids=tuple(encode(one) for one in voids))
    world.client("c0", pinned=world.roster).join(session, enrolments["c0"], opening)


def test_evidence_that_gives_nothing_back_opens_no_attempt() -> None:
    world = halves()
    session, _ = world.form()
    good = given_back(world, session)
    join_with(world, [good])
    with pytest.raises(InvalidSession, match=r"attempt 0 is not given back: .* missing"):
        join_with(world, [given_back(world, session, ["collector"])])
    with pytest.raises(InvalidSession, match="attempt 1 with 0 earlier ones given back"):
        join_with(world, [], attempt=1, void=bytes(32))
    with pytest.raises(InvalidSession, match="does not name what gave the attempt before back"):
        join_with(world, [good], void=bytes(32))
    # Of parties that this client has not pinned.
    strangers = halves()
    other, _ = strangers.form()
    with pytest.raises(InvalidSession, match="attempt 0 is not given back"):
        join_with(world, [given_back(strangers, other)])
    bent = msgspec.structs.replace(good, header=good.header[:-1])
    with pytest.raises(InvalidSession, match="attempt 0 is not given back"):
        join_with(world, [bent])
    # Signed, but by another key than its name's.
    void = good.voids.voids[0]
    signature = good.voids.voids[1].signature
    swapped = msgspec.structs.replace(void, signature=signature)
    voids = msgspec.structs.replace(good.voids, voids=(swapped, good.voids.voids[1]))
    with pytest.raises(InvalidSession, match="attempt 0 is not given back: a void is not signed"):
        join_with(world, [msgspec.structs.replace(good, voids=voids)])


def test_evidence_of_another_round_or_attempt_opens_none() -> None:
    world = halves()
    everybody = members(world)
    first, _ = world.form()
    of_first = given_back(world, first)
    with pytest.raises(InvalidSession, match="not attempt 1 of this round"):
        join_with(world, [of_first, of_first])
    second, _ = forged(world, attempt=1, void=of_first.voids.digest)
    of_second = given_back(world, second)
    join_with(world, [of_first, of_second])
    with pytest.raises(InvalidSession, match="not attempt 0 of this round"):
        join_with(world, [of_second, of_first])
    one_round(world, everybody)
    with pytest.raises(InvalidSession, match="not attempt 0 of this round"):
        join_with(world, [of_first])


def test_a_round_has_so_many_attempts_and_no_more() -> None:
    world = halves()
    for attempt in range(MAX_ATTEMPTS):
        session, enrolments = world.form()
        assert session.header.attempt == attempt
        if attempt + 1 < MAX_ATTEMPTS:
            world.server.attempt_again(given_back(world, session))
    world.client("c0", pinned=world.roster).join(session, enrolments["c0"], world.opening)
    with pytest.raises(InvalidSession, match=f"was attempted {MAX_ATTEMPTS} times"):
        world.server.attempt_again(given_back(world, session))
    # A convener that goes on all the same is refused by everybody.
    voids = [decode(data, Evidence) for data in world.opening.voids]
    with pytest.raises(InvalidSession, match=f"attempt {MAX_ATTEMPTS} with {MAX_ATTEMPTS}"):
        join_with(world, [*voids, given_back(world, session)])


# The end of a run


def concluded(world: Halves, member: Half, opening: Opening | None = None) -> None:
    receiver = world.terms.protocol.receiver
    member.conclude(opening or world.opening, world.roster.by_name[receiver])


@pytest.fixture
def ended() -> tuple[Halves, dict[str, FederationClient]]:
    """A run that every client went through, whose state gives its totals away."""
    world = halves(FedSGD(rounds=2, weighted=False))
    everybody = members(world)
    for _ in range(2):
        one_round(world, everybody)
    return world, everybody


def test_the_end_of_a_run_is_believed_by_whoever_was_there_restarted_or_was_not(
    ended: tuple[Halves, dict[str, FederationClient]],
) -> None:
    world, everybody = ended
    concluded(world, everybody["c0"])
    concluded(world, world.client("c0", pinned=world.roster).restore(everybody["c0"].save()))
    concluded(world, world.client("c0", pinned=world.roster))


@pytest.mark.parametrize("kind", ["was there", "restarted", "was not"])
def test_an_end_that_its_total_does_not_give_is_refused(
    kind: str, ended: tuple[Halves, dict[str, FederationClient]]
) -> None:
    """A convener that shows no total, or another state than follows, once made its own model."""
    world, everybody = ended
    member = everybody["c0"]
    if kind != "was there":
        member = world.client("c0", pinned=world.roster)
    if kind == "restarted":
        member.restore(everybody["c0"].save())
    opening = world.opening
    with pytest.raises(InvalidSession, match="c0: the end of the run: no total"):
        concluded(world, member, replace(opening, ended=None))
    links = opening.history.links
    other = nudged(opening.public)
    history = History(
        opening.history.first, (*links[:-1], Link(links[-1].release, state_digest(other)))
    )
    with pytest.raises(InvalidSession, match="not what the total of the round before gives"):
        concluded(world, member, replace(opening, public=other, history=history))
    with pytest.raises(InvalidSession, match="not the one that the history ends with"):
        concluded(world, member, replace(opening, public=other))
    with pytest.raises(InvalidSession, match="not signed by 'collector'"):
        concluded(world, member, bent(world, 1, total=bytes(32)))


def test_an_end_with_too_few_rounds_too_many_or_others_is_refused(
    ended: tuple[Halves, dict[str, FederationClient]],
) -> None:
    world, everybody = ended
    opening, member = world.opening, everybody["c0"]
    links = opening.history.links
    empty = History(state_digest(opening.public))
    with pytest.raises(InvalidSession, match="not the one that the history ends with"):
        concluded(world, member, replace(opening, history=empty))
    short = History(opening.history.first, links[1:])
    with pytest.raises(InvalidSession, match="the history has 1 rounds"):
        concluded(world, member, replace(opening, history=short))
    long = History(opening.history.first, (*links, links[1]))
    with pytest.raises(InvalidSession, match="the history has 3 rounds, the method at most 2"):
        concluded(world, member, replace(opening, history=long))
    with pytest.raises(InvalidSession, match="of another session than this party's"):
        concluded(world, member, bent(world, 1, session=bytes(32)))
    aggregator: Half = world.carriers["aggregator_1"]
    concluded(world, aggregator)
    with pytest.raises(InvalidSession, match="other clients in the sum"):
        concluded(world, aggregator, bent(world, 1, included=b"\x0f"))
    task = msgspec.structs.replace(opening.public.task, run=b"another run.....")
    public = msgspec.structs.replace(opening.public, task=task)
    history = History(
        opening.history.first, (links[0], Link(links[1].release, state_digest(public)))
    )
    with pytest.raises(InvalidSession, match="another task than in the rounds before"):
        concluded(world, member, replace(opening, public=public, history=history))
