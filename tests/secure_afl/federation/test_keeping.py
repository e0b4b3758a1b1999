"""A run that goes on from the sums that are out, in another process than they came out in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.codec import decode, encode
from protocols.errors import SecureAflError
from protocols.protocol import Protocol
from protocols.schemes.additive import Additive
from protocols.schemes.pairwise import Pairwise
from protocols.session import Session
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import DataError
from secure_afl.federation.keeping import Keeper, Kept, KeptSum, Standing, Start
from secure_afl.federation.keys import generate, load_keys
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.methods.afl import AFL
from secure_afl.methods.fedavg import FedAvg, FedSGD
from secure_afl.methods.fedhip import FedHiP
from secure_afl.methods.method import AnyMethod
from secure_afl.privacy.ledger import Ledger
from secure_afl.privacy.mechanism import Privacy

RNG = np.random.default_rng(5)
CLIENTS = [
    ClientData(f"c{number}", RNG.normal(size=(30, 6)), np.arange(30, dtype=np.int64) % 3)
    for number in range(4)
]


class Killed(Exception):
    """The process ends here."""


class Memory(Keeper):
    """What another process would read off the disk, and the moment at which this one ends."""

    def __init__(self, die_after: int = 10**6, before: "Memory | None" = None) -> None:
        self._die_after = die_after
        self._saved: list[bytes] = [] if before is None else before._saved
        self._rest: tuple[bytes, bytes] | None = None if before is None else before._rest
        self.opened: list[bytes] = []
        if self._rest is not None:
            start, standing = decode(self._rest[0], Start), decode(self._rest[1], Standing)
            self.kept = Kept(start, [decode(saved, KeptSum) for saved in self._saved], standing)

    def opening(self, start: Start, session: Session) -> None:
        self._start = encode(start)
        self.opened.append(session.id)

    def out(self, kept: KeptSum, standing: Standing) -> None:
        self._saved.append(encode(kept))
        self._rest = self._start, encode(standing)
        if len(self._saved) == self._die_after:
            raise Killed


def resumed(federation: Any, die_after: int, **settings: Any) -> Result:
    first = Memory(die_after)
    with pytest.raises(Killed):
        federation().run(CLIENTS, keeper=first, **settings)
    second = Memory(before=first)
    result = federation().run(CLIENTS, keeper=second, **settings)
    assert isinstance(result, Result)
    assert len(second.opened) == len(result.rounds) - die_after
    return result


FEEDBACK = FedAvg(rounds=4, local_epochs=1, update_bits=4, error_feedback=True, rounding="nearest")


@pytest.mark.parametrize("protocol", [Additive(), Pairwise(corrupt_fraction=0.0)])
@pytest.mark.parametrize(
    "method", [AFL(), FedHiP(), FedSGD(rounds=3, rounding="nearest"), FEEDBACK]
)
def test_a_run_that_goes_on_ends_as_if_nothing_had_happened(
    method: AnyMethod, protocol: Protocol
) -> None:
    whole = Federation(method, protocol).run(CLIENTS)
    for die_after in range(1, method.sums + 1):
        result = resumed(lambda: Federation(method, protocol), die_after, drop=[])
        assert np.array_equal(result.model.weights, whole.model.weights)
        for name, model in whole.personal.items():
            assert np.array_equal(result.personal[name].weights, model.weights)
        assert len(result.rounds) == len(whole.rounds)
        for one, other in zip(result.rounds, whole.rounds, strict=True):
            assert np.array_equal(one.released.total, other.released.total)
            assert one.released.included == other.released.included
            assert one.exact
        for name in ("rounds", "examples", "exact", "clients", "accuracy"):
            assert getattr(result.report, name) == getattr(whole.report, name)
        assert result.report.bytes.upload_per_client > 0


def test_without_its_residuals_error_feedback_would_end_elsewhere() -> None:
    whole = Federation(FEEDBACK, Additive()).run(CLIENTS)
    first = Memory(2)
    with pytest.raises(Killed):
        Federation(FEEDBACK, Additive()).run(CLIENTS, keeper=first)
    second = Memory(before=first)
    assert second.kept is not None
    forgotten = Standing(second.kept.standing.roster, (), ())
    second.kept = Kept(second.kept.start, second.kept.sums, forgotten)
    result = Federation(FEEDBACK, Additive()).run(CLIENTS, keeper=second)
    assert not np.array_equal(result.model.weights, whole.model.weights)


def test_identities_that_people_have_are_not_kept(tmp_path: Path) -> None:
    generate([data.name for data in CLIENTS], "client", tmp_path / "keys")
    generate(["university"], "collector", tmp_path / "keys")
    generate(["clinic"], "aggregator", tmp_path / "keys")
    keys = load_keys(tmp_path / "keys")
    method = FedSGD(rounds=3, rounding="nearest")
    result = resumed(lambda: Federation(method, Additive(), keys=keys), 2)
    whole = Federation(method, Additive()).run(CLIENTS)
    assert np.array_equal(result.model.weights, whole.model.weights)
    keeper = Memory()
    Federation(method, Additive(), keys=keys).run(CLIENTS, keeper=keeper)
    secrets = [identity.save()[-32:] for identity in keys.identities.values()]
    assert not any(secret in keeper._start for secret in secrets)


def test_a_total_gets_one_noise_however_often_it_is_gone_on_from() -> None:
    privacy = Privacy(4.0, placement="central")
    first = Memory(1)
    settings: dict[str, Any] = {"max_rows": 32, "classes": ["0", "1", "2"]}

    def federation() -> Federation:
        return Federation(AFL(), Additive(), privacy=privacy)

    with pytest.raises(Killed):
        federation().run(CLIENTS, keeper=first, **settings)
    models = [
        federation().run(CLIENTS, keeper=Memory(before=first), **settings).model.weights
        for _ in range(2)
    ]
    assert np.array_equal(models[0], models[1])
    afresh = federation().run(CLIENTS, **settings).model.weights
    assert not np.array_equal(models[0], afresh)


def test_the_ledger_has_one_entry_for_each_round(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.json", new=True)
    resumed(lambda: Federation(FedSGD(rounds=3, rounding="nearest"), Additive(), ledger=ledger), 2)
    entries = ledger.entries("c0")
    assert len({entry.session for entry in entries}) == len(entries) == 3
    assert len({entry.run for entry in entries}) == 1
    # Each but the one whose process ended before it could note that.
    assert [entry.released for entry in entries] == [True, False, True]


class Full(Memory):
    def out(self, kept: KeptSum, standing: Standing) -> None:
        raise SecureAflError("no space left")


def test_a_sum_that_cannot_be_kept_is_dropped_and_given_back(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.json", new=True)
    with pytest.raises(SecureAflError, match="no space"):
        Federation(AFL(), Additive(), ledger=ledger).run(CLIENTS, keeper=Full())
    (entry,) = ledger.entries("c0")
    assert entry.void is not None
    assert "no space left" in entry.void.reason
    Federation(AFL(), Additive(), ledger=ledger).run(CLIENTS)


def test_nothing_is_charged_for_a_session_that_cannot_be_noted(tmp_path: Path) -> None:
    class Deaf(Memory):
        def opening(self, start: Start, session: Session) -> None:
            raise SecureAflError("no space left")

    ledger = Ledger.open(tmp_path / "ledger.json", new=True)
    with pytest.raises(SecureAflError, match="no space"):
        Federation(AFL(), Additive(), ledger=ledger).run(CLIENTS, keeper=Deaf())
    assert list(tmp_path.iterdir()) == []


def test_other_clients_are_refused() -> None:
    first = Memory(1)
    with pytest.raises(Killed):
        Federation(AFL(), Additive()).run(CLIENTS, keeper=first)
    with pytest.raises(DataError, match="began with 4 clients"):
        Federation(AFL(), Additive()).run(CLIENTS[:3], keeper=Memory(before=first))
    narrow = [ClientData(data.name, data.features[:, :5], data.labels) for data in CLIENTS]
    with pytest.raises(DataError, match="6 features a row"):
        Federation(AFL(), Additive()).run(narrow, keeper=Memory(before=first))


def test_what_is_kept_shows_nothing_of_itself() -> None:
    keeper = Memory(1)
    with pytest.raises(Killed):
        Federation(AFL(), Additive()).run(CLIENTS, keeper=keeper)
    kept = Memory(before=keeper).kept
    assert kept is not None
    assert repr(kept) == "<Kept: 1 sums>"
    assert (repr(kept.start), repr(kept.sums[0])) == ("<Start>", "<KeptSum>")
    assert repr(kept.standing) == "<Standing>"
