"""Who dies when: real processes on loopback, killed by their own ids; the sum is exact, or none."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from protocols import Additive, Ckks, Pairwise, Protocol
from secure_afl.analytic.rows import ClientData
from secure_afl.privacy.ledger import Ledger
from tests.kit.flower import Loopback, oracle
from tests.secure_afl.sites.test_sites import CLIENTS, charges

THREE = {name: CLIENTS[name] for name in ("c0", "c1", "c2")}
COMPLETED = "finished:completed"

nightly = pytest.mark.nightly
slow = pytest.mark.slow


def check(loopback: Loopback, clients: Mapping[str, ClientData] = THREE, attempts: int = 1) -> None:
    """The sum is of just these clients, and charged once to each; earlier attempts cost nothing."""
    report = loopback.report()
    assert report["included"] == sorted(clients), loopback.said()
    assert np.array_equal(loopback.weights(), oracle(clients, report["feature_bits"]))
    for name in clients:
        given_back = [(False, False)] * (attempts - 1)
        assert charges(loopback.sites, name) == [*given_back, (True, True)]


@pytest.mark.parametrize(
    ("where", "protocol"),
    [
        pytest.param("before", Additive(), marks=nightly),
        pytest.param("after", Additive(), marks=slow),
        pytest.param("after", Pairwise(dropout_fraction=0.0), marks=nightly),
    ],
)
def test_a_client_app_that_is_killed_says_the_same_bytes_again(
    where: str, protocol: Protocol, tmp_path: Path
) -> None:
    with Loopback(tmp_path, protocol, THREE) as loopback:
        loopback.begin(traps={"c1": where})
        status = loopback.finish(loopback.run())
        assert status == COMPLETED, loopback.said()
        assert (loopback.sites.folder / "c1" / "trap" / "sprung").exists()
        check(loopback)


def kill_with_a_message(loopback: Loopback, name: str) -> None:
    """Kill a SuperNode when it has the message after hello and invitation: the session's."""
    node = loopback.nodes[name]
    loopback.until(lambda: node.log.read_text().count("Receiving") >= 3, "third message")
    node.kill()


@nightly
def test_a_supernode_that_is_killed_with_a_message_comes_back_into_the_sum(tmp_path: Path) -> None:
    with Loopback(tmp_path, Additive(), THREE) as loopback:
        loopback.begin()
        run = loopback.run()
        kill_with_a_message(loopback, "c2")
        loopback.supervise("c2")
        assert loopback.finish(run) == COMPLETED, loopback.said()
        check(loopback)


@nightly
def test_a_supernode_that_stays_away_is_left_out_at_the_deadline(tmp_path: Path) -> None:
    with Loopback(tmp_path, Additive(), THREE, wait=(600, 90)) as loopback:
        loopback.begin()
        run = loopback.run()
        kill_with_a_message(loopback, "c2")
        assert loopback.finish(run) == COMPLETED, loopback.said()
        check(loopback, {name: THREE[name] for name in ("c0", "c1")})


@nightly
@pytest.mark.parametrize(
    ("protocol", "name"), [(Additive(), "aggregator_1"), (Ckks(), "server")], ids=repr
)
def test_another_organisations_party_goes_on_where_it_was(
    protocol: Protocol, name: str, tmp_path: Path
) -> None:
    with Loopback(tmp_path, protocol, THREE) as loopback:
        loopback.begin()
        run = loopback.run()
        loopback.until(lambda: loopback.joined(name), "session")
        loopback.nodes[name].kill()
        loopback.supervise(name)
        assert loopback.finish(run) == COMPLETED, loopback.said()
        check(loopback)


@nightly
def test_an_aggregator_that_comes_back_late_gives_the_session_back(tmp_path: Path) -> None:
    """Its void came while the convener still waited for it, and the next attempt is exact."""
    with Loopback(tmp_path, Additive(), THREE, wait=(400, 90)) as loopback:
        loopback.begin()
        run = loopback.run()
        loopback.until(lambda: loopback.joined("aggregator_1"), "aggregator")
        loopback.nodes["aggregator_1"].kill()
        loopback.until(
            lambda: "asking for the session back" in loopback.told("collector"), "deadline"
        )
        loopback.supervise("aggregator_1")
        assert loopback.finish(run) == COMPLETED, loopback.said()
        check(loopback, attempts=2)


@nightly
def test_an_aggregator_that_never_comes_back_is_a_typed_end_without_a_sum(tmp_path: Path) -> None:
    with Loopback(tmp_path, Additive(), THREE, wait=(150, 60)) as loopback:
        loopback.begin()
        run = loopback.run()
        loopback.until(lambda: loopback.joined("aggregator_1"), "aggregator")
        loopback.nodes["aggregator_1"].kill()
        assert loopback.finish(run) == "finished:failed", loopback.said()
        assert not loopback.has_model()
        assert "no void of aggregator_1" in loopback.told("collector")


@pytest.mark.parametrize(
    "protocol",
    [
        pytest.param(Additive(), marks=slow),
        pytest.param(Pairwise(dropout_fraction=0.0), marks=nightly),
        pytest.param(Ckks(), marks=nightly),
    ],
    ids=repr,
)
def test_a_run_whose_server_app_was_killed_is_resumed(protocol: Protocol, tmp_path: Path) -> None:
    with Loopback(tmp_path, protocol, THREE) as loopback:
        loopback.begin()
        first = loopback.run()
        loopback.until(lambda: loopback.joined("c0"), "session")
        loopback.kill_serverapp()
        session = sessions(loopback, "c0")
        assert loopback.finish(first) == "finished:failed", loopback.said()
        second = loopback.run(resume=True)
        assert loopback.finish(second) == COMPLETED, loopback.said()
        check(loopback)
        assert sessions(loopback, "c0") == session != set(), "the session of before"


def sessions(loopback: Loopback, name: str) -> set[str]:
    """The sessions that a client's ledger has been charged for."""
    ledger = Ledger.look(loopback.sites.folder / name / "ledger.json")
    return {entry.session for line in ledger.lineages for entry in ledger.entries(line)}


@nightly
def test_a_run_whose_superlink_was_killed_is_resumed(tmp_path: Path) -> None:
    with Loopback(tmp_path, Additive(), THREE) as loopback:
        loopback.begin()
        first = loopback.run()
        loopback.until(lambda: loopback.joined("c0"), "session")
        loopback.superlink.kill()
        for name in loopback.others:
            loopback.supervise(name)
        loopback.until(lambda: loopback.superlink.ended, "end")
        loopback.processes.forget(loopback.superlink)
        loopback.superlink = loopback.engine.superlink()
        assert loopback.finish(first) == "finished:failed", loopback.said()
        second = loopback.run(resume=True)
        assert loopback.finish(second) == COMPLETED, loopback.said()
        check(loopback)


@nightly
def test_a_site_that_lost_its_state_never_enrols_again_in_that_session(tmp_path: Path) -> None:
    with Loopback(tmp_path, Additive(), THREE, wait=(600, 90)) as loopback:
        loopback.begin(["aggregator_1", "c0", "c1"])
        run = loopback.run()
        loopback.until(lambda: "'c1' has enrolled" in loopback.told("collector"), "enrolment")
        loopback.nodes["c1"].kill()
        time.sleep(3)
        shutil.rmtree(loopback.sites.folder / "c1" / "state")
        loopback.supervise("c1")
        # Only now can the session be formed, with the enrolment that c1 knows nothing of any more.
        loopback.begin(["c2"])
        assert loopback.finish(run) == COMPLETED, loopback.said()
        check(loopback, {name: THREE[name] for name in ("c0", "c2")})


@nightly
def test_a_second_run_while_one_is_open_is_refused(tmp_path: Path) -> None:
    with Loopback(tmp_path, Additive(), THREE) as loopback:
        loopback.begin()
        first = loopback.run()
        loopback.until(lambda: loopback.joined("c0"), "session")
        second = loopback.run()
        assert loopback.finish(second) == "finished:failed", loopback.said()
        assert loopback.finish(first) == COMPLETED, loopback.said()
        check(loopback)
