"""Exchanges between an office and nodes without Flower between them, and with its records."""

import socket
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from protocols import Additive, Ckks, Pairwise, Protocol
from protocols.roster import CLIENT
from secure_afl.federation.keys import make_identity, public_path
from secure_afl.federation.rosters import merge
from secure_afl.flower.office import Office
from secure_afl.flower.wire import Parcel, Reply, Request
from secure_afl.privacy.ledger import Ledger
from tests.kit.commands import Command
from tests.kit.exchanges import Nodes, carry, forget, told
from tests.kit.liars import leave_out
from tests.kit.sites import PATIENT, Sites
from tests.secure_afl.sites.test_sites import CLIENTS, charges, oracle


@pytest.mark.parametrize(
    "protocol",
    [
        Additive(),
        Additive(3),
        Pairwise(dropout_fraction=0.0),
        pytest.param(Ckks(), marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_a_run_over_nodes_takes_few_exchanges_and_is_exact(
    protocol: Protocol, tmp_path: Path
) -> None:
    sites = Sites(tmp_path, protocol, CLIENTS, wait=PATIENT)
    names = [name for name in sites.roles if name != sites.convener]
    nodes = Nodes(sites, {place: [name] for place, name in enumerate(names)})
    carry(sites, nodes)
    bits = sites.conventions[sites.convener].convening.convener.server.public.task.quantiser.bits
    assert np.array_equal(sites.weights(), oracle(CLIENTS, bits))
    assert max(nodes.exchanges.values()) <= 9, nodes.exchanges


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [Additive(), Pairwise(dropout_fraction=0.25)], ids=repr)
def test_nodes_remember_the_set_that_they_agreed_to_and_refuse_another(
    protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each exchange is another process, which once knew nothing of the set before."""
    sites = Sites(tmp_path, protocol, CLIENTS, method="fedsgd", site="rounds = 2\n")
    names = [name for name in sites.roles if name != sites.convener]
    nodes = Nodes(sites, {place: [name] for place, name in enumerate(names)})
    victim = names.index("c3")
    sums = leave_out(sites, "c3", monkeypatch, lambda: nodes.away.add(victim))
    # Nobody takes what clients sent to an aggregator that has refused.
    carry(sites, nodes, linger=10)
    assert [released.included for released in sums] == [("c0", "c1", "c2", "c3")]
    for name in set(names) - set(CLIENTS) or ("c0", "c1", "c2"):
        assert "other clients in the sum than those that this" in told(sites, name)


def test_nodes_count_the_rows_that_all_sites_keep_out(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS, site="evaluate = 0.4\n", wait=PATIENT)
    names = [name for name in sites.roles if name != sites.convener]
    carry(sites, Nodes(sites, {place: [name] for place, name in enumerate(names)}))
    convention = sites.conventions[sites.convener]
    report = convention.report(convention.model())
    assert report.rounds == 2
    assert report.pooled is not None
    assert report.pooled.sites == len(CLIENTS)
    assert report.pooled.examples < sum(map(len, CLIENTS.values()))
    for name in CLIENTS:
        assert charges(sites, name) == [(True, True)] * 2


def federation(folder: Path, run: str = "") -> tuple[Sites, Nodes]:
    sites = Sites(folder, Additive(), CLIENTS, run=run)
    names = [name for name in sites.roles if name != sites.convener]
    return sites, Nodes(sites, {place: [name] for place, name in enumerate(names)})


def nothing_was_computed(sites: Sites) -> None:
    for name in CLIENTS:
        assert charges(sites, name) == []
        assert "joined" not in told(sites, name).replace("not joined", "")


def test_a_policy_that_the_operator_loosens_is_refused_at_every_site(tmp_path: Path) -> None:
    sites, nodes = federation(tmp_path, run="min_cohort = 2\n")
    carry(sites, nodes)
    assert sites.conventions[sites.convener].convening.problem
    for name in CLIENTS:
        assert "minimum cohort 2 with 0 declared corrupt" in told(sites, name)
    nothing_was_computed(sites)
    # The operator learns that there was an error, and not which.
    assert all("declared corrupt" not in what for what in sites.told[sites.convener])


def test_another_roster_at_the_operator_is_refused_at_every_site(tmp_path: Path) -> None:
    """With a client of the operator's own on it, a sum would be of one client less."""
    sites, nodes = federation(tmp_path)
    make_identity("sybil", CLIENT, tmp_path / "sybil")
    merge(tmp_path / sites.convener / "roster.json", [public_path(tmp_path / "sybil", "sybil")])
    carry(sites, nodes)
    assert sites.conventions[sites.convener].convening.problem
    for name in CLIENTS:
        assert "roster" in told(sites, name), told(sites, name)
    nothing_was_computed(sites)


def test_an_exchange_calls_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a party called somebody")

    sites, nodes = federation(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    carry(sites, nodes)
    assert not sites.conventions[sites.convener].convening.problem


def test_a_session_whose_aggregator_never_came_back_is_given_back_by_people(
    tmp_path: Path, command: Command
) -> None:
    sites, nodes = federation(tmp_path)
    (aggregator,) = [place for place, names in nodes.where.items() if names == ["aggregator_1"]]
    nodes.leaving = {aggregator}
    carry(sites, nodes)
    assert "no void of aggregator_1" in sites.conventions[sites.convener].convening.problem
    for name in CLIENTS:
        assert charges(sites, name) == [(True, False)]
    # Its machine is back, and knows nothing of the end; clients have had their exact release.
    nodes.away, nodes.leaving = set(), set()
    forget(sites)
    carry(sites, nodes)
    assert sites.conventions[sites.convener].convening.problem
    assert "is not heard: this party is in run" in told(sites, "aggregator_1")
    # Its people delete the keys without which nothing opens the session; only then is it true what
    # clients' people say with --force.
    command.well("party", "--leave", "--site", tmp_path / "aggregator_1" / "site.toml")
    for name in CLIENTS:
        ledger = tmp_path / name / "ledger.json"
        book = Ledger.look(ledger)
        (session,) = [entry.session for line in book.lineages for entry in book.entries(line)]
        said = ("ledger", "void", ledger, session, "--keys", tmp_path / name)
        assert "no evidence that the session failed" in command.badly(*said)
        command.well(*said, "--force", "--yes")
    forget(sites)
    carry(sites, nodes)
    bits = sites.conventions[sites.convener].convening.convener.server.public.task.quantiser.bits
    assert np.array_equal(sites.weights(), oracle(CLIENTS, bits))
    for name in CLIENTS:
        assert charges(sites, name) == [(False, False), (True, True)]


def test_an_error_leaves_a_site_as_its_name(tmp_path: Path) -> None:
    sites, nodes = federation(tmp_path)
    (tmp_path / "c1" / "data.npz").unlink()
    reply = nodes.exchange(1, Request((), ()))
    assert reply.problems == (("c1", "DataError"),)
    assert str(tmp_path) not in repr(reply)
    assert "data.npz" in told(sites, "c1")


def test_a_slow_node_is_asked_again_less_and_less_often() -> None:
    office = Office(["server"])
    asked = [now for now in range(0, 200) if office.request(1, float(now), repeat=10.0)]
    assert asked == [0, 10, 30, 70, 150]
    office.take(1, Reply(("c0",), (), (), None), 200.0)
    office.send(Parcel(b"", "c0", b"mail"))
    assert office.request(1, 200.0, repeat=10.0) is not None
    assert office.request(1, 209.0, repeat=10.0) is None
    assert office.request(1, 210.0, repeat=10.0) is not None


def test_a_reply_to_an_earlier_exchange_begins_no_other_beside_the_latest() -> None:
    """Else two were always under way, of which one found the site's folder taken."""
    office = Office(["server"])
    office.request(1, 0.0, repeat=10.0)
    office.take(1, Reply(("c0",), (), (), None), 1.0)
    office.send(Parcel(b"", "c0", b"mail"))
    assert office.request(1, 1.0, repeat=10.0) is not None
    first = office.nodes[1].number
    assert office.request(1, 11.0, repeat=10.0) is not None
    office.take(1, Reply(("c0",), (), (), None, (("c0", "Busy"),)), 12.0, first)
    assert office.request(1, 20.0, repeat=10.0) is None
    office.lost(1, 20.0, pause=0, number=first)
    assert office.request(1, 20.5, repeat=10.0) is None
    office.take(1, Reply(("c0",), (), (), None), 20.6)
    assert office.request(1, 20.7, repeat=10.0) is not None


def test_a_node_with_a_problem_is_not_asked_without_a_rest() -> None:
    office = Office(["server"])
    office.request(1, 0.0, repeat=10.0)
    trouble = Reply(("c0",), (), (), None, (("c0", "DataError"),))
    office.take(1, trouble, 0.0)
    office.send(Parcel(b"", "c0", b"mail"))
    asked = []
    for now in range(200):
        if office.request(1, float(now), repeat=1000.0):
            asked.append(now)
            office.take(1, trouble, float(now))
    assert asked == [4, 12, 28, 60, 120, 180]
    office.take(1, Reply(("c0",), (), (), None), 200.0)
    office.request(1, 240.0, repeat=10.0)
    office.lost(1, 240.0, pause=5.0)
    assert office.request(1, 244.0, repeat=10.0) is None
    assert office.request(1, 245.0, repeat=10.0) is not None


def test_one_exchange_has_no_more_mail_than_a_process_should_hold() -> None:
    office = Office(["server"])
    office.request(1, 0.0, repeat=10.0)
    office.take(1, Reply(("a",), (), (), None), 0.0)
    mail = [Parcel(b"", "a", bytes([i]) * (10 * 2**20)) for i in range(5)]
    mail.append(Parcel(b"", "a", bytes(30 * 2**20)))
    for parcel in mail:
        office.send(parcel)
    sizes: list[int] = []
    came: list[Parcel] = []
    for now in range(1, 10):
        request = office.request(1, float(now), repeat=10.0)
        if request is None:
            break
        sizes.append(len(request.parcels))
        came += request.parcels
        taken = tuple(parcel.digest for parcel in request.parcels)
        office.take(1, Reply(("a",), (), taken, None), float(now))
    assert sizes == [2, 2, 1, 1]
    assert came == mail
