"""Clients and coordinators that are restarted before everything that they do."""

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import Additive, Pairwise, Party, Protocol, Session, new_nonce
from protocols.carrier import Carrier, Patience
from protocols.errors import BadSavedState, InvalidSession
from protocols.roster import CLIENT
from protocols.seats.seat import Seat
from protocols.seats.seats import Seats
from secure_afl.errors import LedgerRefusal
from secure_afl.federation.client import FederationClient
from secure_afl.federation.rounds.history import History, state_digest
from secure_afl.federation.server import FederationCoordinator
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import Terms
from secure_afl.methods import AFL, AnyMethod, FedAvg, FedSGD
from secure_afl.privacy.ledger import Ledger
from tests.kit.halves import Halves
from tests.kit.posts import FoulPost, Weather
from tests.kit.samples import make_clients, make_task

CLIENTS = make_clients((20, 20, 20, 20), classes=2)


class Seated:
    """A run whose every party sits in a folder, and begins anew for each round.

    Attributes:
        kept: what each party's half saved, by name.
    """

    def __init__(self, method: AnyMethod, protocol: Protocol, folder: Path) -> None:
        task = make_task(CLIENTS, classes=2, bits=10, max_rows=32)
        task = msgspec.structs.replace(task, run=b"one run")
        self.halves = Halves(Terms(method, protocol), task, CLIENTS, min_cohort=3)
        people = self.halves.identities | self.halves.coordinators
        self.seats = {name: Seats(folder / name, who) for name, who in people.items()}
        self.kept: dict[str, bytes] = {}
        self.folder = folder

    def hello(self) -> tuple[Session, dict[str, Seat]]:
        """Everybody enrols, and the server forms the session."""
        nonce, roles = new_nonce(), self.halves.terms.protocol.coordinators()
        seats = {
            name: own.hello(roles.get(name, CLIENT), nonce, 0 if name in roles else 32)
            for name, own in self.seats.items()
        }
        members = [seat.member for seat in seats.values()]
        session = self.halves.server.form(members, nonce, 3, 0)
        assert session is not None
        return session, seats

    def half(self, name: str, **wishes: Any) -> Any:
        """A party's half as a new process makes it."""
        terms, roster = self.halves.terms, self.halves.roster
        made: Any
        if name in self.halves.coordinators:
            made = FederationCoordinator(name, terms, roster)
        else:
            made = FederationClient(terms, self.halves.clients[name], 32, roster, **wishes)
        return made.restore(self.kept[name]) if name in self.kept else made

    def join(self, name: str, session: Session, seat: Seat, **wishes: Any) -> Party:
        """Let a party join, and keep what its half saves."""
        half = self.half(name, **wishes)
        party: Party = half.join(session, seat.enrolment, self.halves.opening, seat=seat)
        self.kept[name] = half.save()
        return party

    def round(self) -> bool:
        """One round over a bad post; says whether there was one."""
        if self.halves.terms.method.layout(self.halves.server.public) is None:
            return False
        session, seats = self.hello()
        for name, seat in seats.items():
            self.join(name, session, seat)
        weather = Weather(lose=0.1, repeat=0.1, delay=0.1, slow=3)
        post = FoulPost(weather, random.Random(0))
        carrier = Carrier(seats, post, lambda: post.turn, Patience(40, 2, 8))
        carrier.begin()
        while not carrier.results:
            post.pass_time()
            carrier.turn()
        ((receiver, released),) = carrier.results.items()
        party = seats[receiver].party
        assert party.release is not None
        self.halves.server.absorb(session, released, party.release, party.release_salt)
        for seat in seats.values():
            seat.close()
        return True


@pytest.mark.parametrize("protocol", [Additive(), Pairwise(dropout_fraction=0.0)], ids=str)
@pytest.mark.parametrize(
    "method", [AFL(), FedSGD(rounds=3, rounding="nearest"), FedAvg(rounds=2, rounding="nearest")]
)
def test_a_run_of_seated_parties_gives_the_model_of_a_simulation(
    method: AnyMethod, protocol: Protocol, tmp_path: Path
) -> None:
    seated = Seated(method, protocol, tmp_path)
    while seated.round():
        pass
    model = method.model(seated.halves.server.public)
    simulated = Federation(method, protocol, feature_bits=10, min_cohort=3).run(
        CLIENTS, classes=("0", "1"), max_rows=32
    )
    features = np.concatenate([client.features for client in CLIENTS])
    assert np.array_equal(model.predict(features), simulated.model.predict(features))


def test_a_client_that_is_started_anew_joins_no_second_session_of_a_round(tmp_path: Path) -> None:
    """Forty of them averaged the noise away, and two gave the victim's vector."""
    seated = Seated(AFL(), Additive(), tmp_path)
    session, seats = seated.hello()
    seated.join("c0", session, seats["c0"])
    other, more = seated.hello()
    with pytest.raises(InvalidSession, match="joined another session of this round"):
        seated.join("c0", other, more["c0"])
    # Even one that has lost its memory: the seat is bound.
    seated.kept.clear()
    header = type(other)(other.header, other.roster)
    with pytest.raises(InvalidSession):
        seated.join("c0", header, seats["c0"])


def test_to_join_again_after_a_restart_is_one_release_and_the_same_bytes(tmp_path: Path) -> None:
    seated = Seated(AFL(), Additive(), tmp_path)
    ledger = Ledger.open(tmp_path / "ledger.json", None, new=True)
    session, seats = seated.hello()
    first = seated.join("c0", session, seats["c0"], ledger=ledger).pending()
    seats["c0"].close()
    with seated.seats["c0"].open(session.nonce) as seat:
        again = seated.join("c0", session, seat, ledger=ledger).pending()
        assert again == first
        assert ledger.spent("c0").releases == 1
    # Another start, from another entropy, is another release.
    twin = Seats(tmp_path / "twin", seated.halves.identities["c0"])
    with twin.hello(CLIENT, session.nonce, 32) as seat:
        half = FederationClient(
            seated.halves.terms,
            seated.halves.clients["c0"],
            32,
            seated.halves.roster,
            ledger=ledger,
        )
        view = Session(session.header, session.roster)
        with pytest.raises(LedgerRefusal):
            half.join(view, seat.enrolment, seated.halves.opening, seat=seat)


def test_without_a_seat_a_restarted_half_does_not_go_on(tmp_path: Path) -> None:
    seated = Seated(AFL(), Additive(), tmp_path)
    session, seats = seated.hello()
    for name in ("c0", "collector"):
        seated.join(name, session, seats[name])
        with pytest.raises(InvalidSession, match="has no seat to go on from"):
            seated.half(name).join(session, seats[name].enrolment, seated.halves.opening)


def test_what_a_half_remembers_is_its_methods_and_whole(tmp_path: Path) -> None:
    seated = Seated(FedSGD(rounds=3), Additive(), tmp_path)
    session, seats = seated.hello()
    for name in ("c0", "collector"):
        seated.join(name, session, seats[name])
        saved = seated.kept[name]
        for damage in (b"", saved[:-1], saved + b"\0"):
            seated.kept[name] = damage
            with pytest.raises(BadSavedState, match=name):
                seated.half(name)
        seated.kept[name] = saved
    afl = Seated(AFL(), Additive(), tmp_path / "afl")
    afl.kept["c0"] = seated.kept["c0"]
    with pytest.raises(BadSavedState, match="c0"):
        afl.half("c0")


def test_a_client_that_its_ledger_refuses_says_nothing(tmp_path: Path) -> None:
    seated = Seated(AFL(), Additive(), tmp_path)
    ledger = Ledger.open(tmp_path / "ledger.json", None, new=True)
    first, seats = seated.hello()
    seated.join("c0", first, seats["c0"], ledger=ledger)
    seated.kept.clear()
    other = Seated(AFL(), Additive(), tmp_path / "other")
    other.halves.server.public = other.halves.terms.method.begin(
        msgspec.structs.replace(other.halves.task, run=b"another run")
    )
    other.halves.server.history = History(state_digest(other.halves.server.public))
    session, more = other.hello()
    with pytest.raises(LedgerRefusal):
        other.join("c0", session, more["c0"], ledger=ledger)
    with pytest.raises(InvalidSession, match="has joined no session"):
        more["c0"].pending()


def test_two_clients_with_one_ledger_are_both_known_by_their_rows(tmp_path: Path) -> None:
    seated = Seated(AFL(), Additive(), tmp_path)
    ledger = Ledger.open(tmp_path / "ledger.json", None, new=True)
    session, seats = seated.hello()
    for name in ("c0", "c1"):
        seated.join(name, session, seats[name], ledger=ledger)
    assert ledger.lineages == ("c0", "c1")
    exact = seated.half("c0").charge(seated.halves.opening.public) | {"run": b"another run"}
    for name in ("c0", "c1"):
        copied = ledger.row_digests(seated.halves.clients[name].features)
        with pytest.raises(LedgerRefusal, match=f"20 of 20 rows were in lineage '{name}'"):
            ledger.check("copy", rows=copied, **exact)


def test_two_clients_with_one_ledger_may_have_a_row_in_common(tmp_path: Path) -> None:
    seated = Seated(FedSGD(rounds=3), Additive(), tmp_path)
    first, second = (seated.halves.clients[name] for name in ("c0", "c1"))
    second.features[0] = first.features[0]
    ledger = Ledger.open(tmp_path / "ledger.json", None, new=True)
    session, seats = seated.hello()
    for name in ("c0", "c1"):
        seated.join(name, session, seats[name], ledger=ledger)
    assert ledger.shares("c0") == ("c1",)


def test_a_client_that_sent_nothing_gives_nobody_elses_release_back(tmp_path: Path) -> None:
    """Whoever convenes told one of two clients of one ledger that no sum came out."""
    seated = Seated(AFL(), Additive(), tmp_path)
    ledger = Ledger.open(tmp_path / "ledger.json", None, new=True)
    session, seats = seated.hello()
    halves = {name: seated.half(name, ledger=ledger) for name in ("c0", "c1")}
    for name, half in halves.items():
        half.join(session, seats[name].enrolment, seated.halves.opening, seat=seats[name])
    halves["c0"].given_back(session.id, "no vector of this client was sent")
    counting = {name: [e.counts for e in ledger.entries(name)] for name in halves}
    assert counting == {"c0": [False], "c1": [True]}
    # What all have signed is about whoever was shown it.
    halves["c1"].given_back(session.id, "no sum came out", b"signed")
    assert [e.counts for e in ledger.entries("c1")] == [False]


def test_a_client_that_is_started_twice_without_a_seat_is_two_releases(tmp_path: Path) -> None:
    """Each start has noise of its own, which many of them average away."""
    seated = Seated(AFL(), Additive(), tmp_path)
    ledger = Ledger.open(tmp_path / "ledger.json", None, new=True)
    session, seats = seated.hello()

    def start() -> None:
        half = FederationClient(
            seated.halves.terms,
            seated.halves.clients["c0"],
            32,
            seated.halves.roster,
            ledger=ledger,
        )
        half.join(session, seats["c0"].enrolment, seated.halves.opening)

    start()
    with pytest.raises(LedgerRefusal):
        start()
