"""What a program prints, logs or raises must not hand over what its parties keep secret."""

import logging
import subprocess
import sys
from collections.abc import Iterable

import msgspec
import numpy as np
import pytest

from protocols import Enrolment, Fault, FaultPlan, Plain
from protocols.errors import ProtocolError
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import SecureAflError
from secure_afl.federation.client import FederationClient
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import Terms
from secure_afl.methods import FedHiP
from tests.kit.samples import make_clients

BITS = 12


def of_rows(clients: Iterable[ClientData]) -> set[str]:
    """Texts that only somebody who has a client's rows could print."""
    texts: set[str] = set()
    for client in clients:
        texts |= {f"{value:.5f}"[:-1] for value in client.features.ravel() if abs(value) > 0.1}
        integers = Quantiser(BITS).integers(client.features).astype(np.int64)
        gram = Statistics.of(client.features, client.labels, 3, Quantiser(BITS)).gram
        texts |= {str(value) for value in gram.ravel() if abs(value) > 10**6}
        texts |= {f"{first}, {second}" for first, second in integers[:, :2]}
    return texts


def of_keys(result: Result) -> set[str]:
    """Texts that only somebody who has a party's keys could print."""
    texts: set[str] = set()
    for round_ in result.rounds:
        assert round_.transcript is not None
        for record in round_.transcript.values():
            # The last fields of a saved enrolment are its sealing keys, and within the first is
            # the signing key.
            identity, _, _, _, *sealing = msgspec.msgpack.decode(record.keys)
            _, signing = msgspec.msgpack.decode(identity)
            for key in (signing, *sealing):
                texts |= {key.hex(), key.hex()[:16], repr(key)[2:-1][:24], str(list(key))[1:20]}
    return texts


def leaks(text: str, secrets: set[str]) -> list[str]:
    return [secret for secret in secrets if secret in text]


def everything_shown(result: Result, clients: list[ClientData]) -> list[str]:
    """The repr of whatever a caller gets hold of."""
    (round_,) = result.rounds
    assert round_.transcript is not None
    session, transcript = round_.session, round_.transcript
    method = FedHiP(alpha=2.0)
    shown: list[object] = [result, round_, session, round_.released, transcript, clients]
    for client in clients:
        record = transcript[client.name]
        enrolment = Enrolment.load(record.keys)
        half = FederationClient(Terms(method, Plain()), client, 32)
        party = Plain().client(session, enrolment, lambda _: np.zeros(1, np.int64))
        shown += [enrolment, enrolment.identity, half, party]
        shown.append(Statistics.of(client.features, client.labels, 3, Quantiser(BITS)))
    return [repr(value) for value in shown] + [str(value) for value in shown]


def test_no_log_line_or_repr_shows_rows_or_keys(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clients = make_clients((20, 30, 4))
    result = Federation(FedHiP(alpha=2.0), Plain(), feature_bits=BITS).run(
        clients, record=True, plan=FaultPlan((Fault("duplicate"),), reload=True)
    )
    secrets = of_rows(clients) | of_keys(result)
    assert len(secrets) > 100
    # The search finds a row, and a key, where they are shown.
    assert leaks(repr(clients[0].features), of_rows(clients))
    key = msgspec.msgpack.decode(
        msgspec.msgpack.decode(next(iter((result.rounds[0].transcript or {}).values())).keys)[0]
    )[1]
    assert leaks(f"signing with {key}", secrets)
    assert leaks(f"signing with {key.hex()}", secrets)

    assert leaks(caplog.text, secrets) == []
    for text in everything_shown(result, clients):
        assert leaks(text, secrets) == [], text[:200]


def test_no_error_shows_rows_or_keys() -> None:
    first, second, third = make_clients((20, 30, 4))
    broken = second.features.copy()
    broken[3, 3] = np.nan
    spoiled = [
        ClientData("c1", broken, second.labels),
        ClientData("c1", second.features, second.labels + 3),
        ClientData("c1", second.features[:, :4], second.labels),
        ClientData("c1", second.features * 1e200, second.labels),
        ClientData("c 1", second.features, second.labels),
    ]
    secrets = of_rows([first, second, third])
    federation = Federation(FedHiP(), Plain(), feature_bits=BITS)
    for bad in spoiled:
        with pytest.raises((SecureAflError, ProtocolError)) as caught:
            federation.run([first, bad, third], classes=("a", "b", "c"))
        chain: BaseException | None = caught.value
        while chain is not None:
            assert leaks(f"{chain} {chain!r}", secrets) == []
            chain = chain.__cause__ or chain.__context__
    for plan in (FaultPlan((Fault("lose"),)), FaultPlan((Fault("tamper"),))):
        with pytest.raises(ProtocolError) as refused:
            federation.run([first, second, third], plan=plan)
        assert leaks(f"{refused.value} {refused.value!r}", secrets) == []


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, secure_afl, secure_afl.cli.main, secure_afl.runs.run, secure_afl.runs.doctor; "
        "print(sorted({'torch', 'torchvision', 'timm', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
