"""A simulation and the clients' ledger: what is charged, noted, given back and recognised."""

import logging
from pathlib import Path

import numpy as np
import pytest

from protocols.errors import ProtocolError
from protocols.network import Fault, FaultPlan
from protocols.schemes.additive import Additive
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError, LedgerRefusal, OutOfBoundsTotal
from secure_afl.federation.simulation import Federation
from secure_afl.methods.afl import AFL
from secure_afl.methods.fedavg import FedSGD
from secure_afl.privacy.ledger import Ledger

RNG = np.random.default_rng(0)


def client(name: str, features: np.ndarray | None = None) -> ClientData:
    features = RNG.normal(size=(20, 6)) if features is None else features
    return ClientData(name, features, np.arange(20, dtype=np.int64) % 3)


CLIENTS = [client(f"c{number}") for number in range(4)]
# Whoever receives the sum is gone when it should be formed.


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "ledger.json", new=True)


def run(ledger: Ledger, clients: list[ClientData] = CLIENTS, plan: FaultPlan | None = None) -> None:
    Federation(AFL(), Additive(), ledger=ledger).run(clients, plan=plan)


def test_a_sum_that_is_out_is_noted(ledger: Ledger) -> None:
    run(ledger)
    for data in CLIENTS:
        (entry,) = ledger.entries(data.name)
        assert entry.released
        with pytest.raises(LedgerRefusal, match="came out"):
            ledger.void(bytes.fromhex(entry.session), "it failed")


def test_each_round_is_noted(ledger: Ledger) -> None:
    Federation(FedSGD(rounds=3), Additive(), ledger=ledger).run(CLIENTS)
    assert [entry.released for entry in ledger.entries("c0")] == [True] * 3


def test_a_session_that_its_parties_cannot_give_back_is_given_back_by_hand(ledger: Ledger) -> None:
    with pytest.raises(ProtocolError):
        run(ledger, plan=FaultPlan(faults=(Fault("lose", step="partial"),)))
    (entry,) = ledger.entries("c0")
    assert not entry.released
    with pytest.raises(LedgerRefusal, match="secure-afl ledger void"):
        run(ledger)
    ledger.void(bytes.fromhex(entry.session), "the aggregator vanished")
    run(ledger)
    assert ledger.spent("c0").releases == 1


def test_a_sum_out_of_its_bounds_is_out(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def liar(*_: object, **__: object) -> None:
        raise OutOfBoundsTotal((("gram", 1),))

    monkeypatch.setattr("secure_afl.federation.server.FederationServer.absorb", liar)
    with pytest.raises(OutOfBoundsTotal):
        run(ledger)
    assert ledger.entries("c0")[0].released


def test_a_sum_is_not_lost_for_a_note(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise LedgerRefusal("the ledger cannot be written")

    monkeypatch.setattr(Ledger, "released", full)
    with caplog.at_level(logging.WARNING, "secure_afl"):
        run(ledger)
    assert "does not know that the sum is out" in caplog.text
    assert ledger.spent("c0").releases == 1


def test_a_copy_under_another_name_is_recognised(ledger: Ledger) -> None:
    run(ledger)
    copies = [client(f"d{number}", data.features) for number, data in enumerate(CLIENTS)]
    with pytest.raises(LedgerRefusal, match="20 of 20 rows were in lineage 'c0'"):
        run(ledger, copies)
    assert ledger.lineages == ("c0", "c1", "c2", "c3")
    run(ledger, [client(f"e{number}") for number in range(4)])


def test_a_half_is_recognised(ledger: Ledger) -> None:
    run(ledger)
    half = np.concatenate([RNG.normal(size=(10, 6)), CLIENTS[2].features[:10]])
    with pytest.raises(LedgerRefusal, match="10 of 20 rows were in lineage 'c2'"):
        run(ledger, [client(f"e{number}") for number in range(3)] + [client("f", half)])


def test_a_client_that_refuses_costs_those_before_it_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorise = Ledger.authorise

    def some(self: Ledger, lineage: str, **terms: object) -> None:
        if lineage == "c2":
            raise LedgerRefusal("c2 refuses")
        authorise(self, lineage, **terms)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "authorise", some)
        with pytest.raises(LedgerRefusal, match="c2 refuses"):
            run(ledger)
    (entry,) = ledger.entries("c0")
    assert entry.void is not None
    assert "c2 refuses" in entry.void.reason
    run(ledger)


def test_clients_that_have_a_row_in_common_are_in_one_sum(ledger: Ledger) -> None:
    same = CLIENTS[1].features.copy()
    same[0] = CLIENTS[0].features[0]
    Federation(FedSGD(rounds=2), Additive(), ledger=ledger).run(
        [CLIENTS[0], client("c1", same), *CLIENTS[2:]]
    )
    assert ledger.shares("c0") == ("c1",)
    assert [ledger.runs(name)[0].used for name in ("c0", "c1")] == [2, 2]


def test_a_run_that_fails_before_its_first_message_makes_no_files(
    ledger: Ledger, tmp_path: Path
) -> None:
    with pytest.raises(ProtocolError):
        Federation(AFL(), Additive(), ledger=ledger, min_cohort=9).run(CLIENTS)
    with pytest.raises(ConfigError):
        Federation(AFL(), Additive(), ledger=ledger).run(CLIENTS, drop=["nobody"])
    assert list(tmp_path.iterdir()) == []
