"""Every method over Flower's exchanges: personal models, rounds, noise, and what ledgers say."""

import random
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from msgspec import structs

from protocols import Additive, Pairwise, Plain, Protocol
from protocols.codec import decode, encode
from protocols.errors import BadSavedState
from protocols.layout import Integers
from protocols.party import Sum
from secure_afl.federation.client import FederationClient
from secure_afl.federation.result import Result
from secure_afl.federation.server import FederationServer, _Saved
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, AnyMethod, FedAvg, FedHiP
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.ledger import Ledger
from secure_afl.privacy.ledger.book import Entry
from secure_afl.runs.saving import MODEL
from tests.kit.exchanges import Nodes, carry, forget, told
from tests.kit.flower import Loopback
from tests.kit.sites import PATIENT, Sites
from tests.secure_afl.sites.test_sites import CLIENTS, charges, float32

ADDITIVE = Additive()
ROUNDS = "rounds = 3\n"
EACH = (1, 2, 3)
"""Rounds in which the convener is killed."""


def federation(
    folder: Path,
    method: str,
    settings: str = "",
    protocol: Protocol = ADDITIVE,
    own: str = "",
    wait: tuple[int, int] = PATIENT,
) -> tuple[Sites, Nodes]:
    """A federation of a method whose sites keep their models.

    Args:
        own: further settings of the clients' files alone.
    """
    sites = Sites(
        folder,
        protocol,
        CLIENTS,
        method=method,
        site=settings,
        run="attempts = 1\n",
        wait=wait,
    )
    for name in CLIENTS:
        path = folder / name / "site.toml"
        path.write_text(f'out = "results"\n{own}{path.read_text()}')
    names = [name for name in sites.roles if name != sites.convener]
    return sites, Nodes(sites, {place: [name] for place, name in enumerate(names)})


def in_one_place(method: AnyMethod, sites: Sites) -> Result:
    """What a method makes of all rows in one place, at the bits of the run."""
    task = sites.conventions[sites.convener].convening.convener.server.public.task
    federation = Federation(method, Plain(), feature_bits=task.quantiser.bits)
    return federation.run(float32(CLIENTS), classes=("0", "1", "2"), max_rows=32)


def kept(sites: Sites, name: str) -> tuple[LinearModel, Mapping[str, Any]]:
    """The model and the card that a site kept."""
    return LinearModel.load(sites.folder / name / "results" / MODEL)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [Additive(), Pairwise(dropout_fraction=0.0)], ids=repr)
@pytest.mark.parametrize("personal", ["joint", "proximal"])
def test_personal_models_are_made_and_kept_at_their_sites(
    personal: str, protocol: Protocol, tmp_path: Path
) -> None:
    sites, nodes = federation(tmp_path, "fedhip", f'personal = "{personal}"\n', protocol)
    carry(sites, nodes)
    expected = in_one_place(FedHiP(personal=personal), sites)
    assert np.array_equal(sites.weights(), expected.model.weights)
    for name in CLIENTS:
        model, card = kept(sites, name)
        assert np.array_equal(model.weights, expected.personal[name].weights)
        assert not np.array_equal(model.weights, sites.weights())
        assert card["client"] == name
        assert charges(sites, name) == [(True, True)]
        # Nobody but its client has a model of a client's own.
        others = [path for path in tmp_path.rglob("*.safetensors") if name not in path.parts]
        assert all(
            not np.array_equal(LinearModel.load(path)[0].weights, model.weights) for path in others
        )


class Recorder:
    """Vectors with their noise, the noise alone, and the sums, which a test may see.

    Attributes:
        given, noise: by client, in the order of its sessions.
        totals: in order.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: dict[str, list[Integers]] = defaultdict(list)
        self.noise: dict[str, list[Integers]] = defaultdict(list)
        self.totals: list[Integers] = []
        contribute, noise = FederationClient.contribute, FederationClient.noise
        absorb = FederationServer.absorb

        def contributed(client: FederationClient, *arguments: Any) -> Integers:
            self.given[client.name].append(contribute(client, *arguments))
            return self.given[client.name][-1]

        def drawn(client: FederationClient, *arguments: Any) -> Integers:
            self.noise[client.name].append(noise(client, *arguments))
            return self.noise[client.name][-1]

        def absorbed(server: FederationServer, session: Any, released: Sum, *rest: Any) -> None:
            self.totals.append(released.total)
            absorb(server, session, released, *rest)

        monkeypatch.setattr(FederationClient, "contribute", contributed)
        monkeypatch.setattr(FederationClient, "noise", drawn)
        monkeypatch.setattr(FederationServer, "absorb", absorbed)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "kill"),
    [
        ("fedavg", ROUNDS, ()),
        ("fedavg", ROUNDS, EACH),
        ("fedavg", f"{ROUNDS}proximal = 0.1\nlocal_epochs = 2\n", EACH),
        ("fedsgd", ROUNDS, EACH),
        ("scaffold", ROUNDS, EACH),
        ("fedstale", ROUNDS, EACH),
        ("softmax", "steps = 2\n", EACH),
    ],
    ids=["whole", "fedavg", "fedprox", "fedsgd", "scaffold", "fedstale", "softmax"],
)
def test_rounds_over_nodes_are_sums_of_all_rows(
    name: str, settings: str, kill: tuple[int, ...], tmp_path: Path, recorder: Recorder
) -> None:
    sites, nodes = federation(tmp_path, name, settings)
    carry(sites, nodes, kill=kill)
    # Each round in one place: rounding has entropy of the sites, so that vectors are recorded.
    given = [np.sum(vectors, axis=0) for vectors in zip(*recorder.given.values(), strict=True)]
    assert len(given) == len(recorder.totals) == 3
    assert all(np.array_equal(a, b) for a, b in zip(given, recorder.totals, strict=True))
    method = sites.parties[sites.convener].terms.method
    task = sites.conventions[sites.convener].convening.convener.server.public.task
    public = method.begin(task)
    for sums in range(1, 4):
        public = method.advance(public, given[:sums], tuple(sorted(CLIENTS)))
    expected = method.model(public).weights
    assert np.array_equal(sites.weights(), expected)
    for client in CLIENTS:
        assert np.array_equal(kept(sites, client)[0].weights, expected)
        assert charges(sites, client) == [(True, True)] * 3


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [Additive(), Pairwise(dropout_fraction=0.0)], ids=repr)
def test_noise_is_added_at_the_sites_and_charged_to_their_ledgers(
    protocol: Protocol, tmp_path: Path, recorder: Recorder
) -> None:
    sites, nodes = federation(
        tmp_path, "afl", "epsilon = 4.0\n", protocol, "budget = 4.0\n", wait=(200, 200)
    )
    # What is lost is said again, byte for byte: with new noise it would be told twice.
    carry(sites, nodes, random.Random(3), lose=0.2)
    (total,) = recorder.totals
    given = [vector for (vector,) in recorder.given.values()]
    assert np.array_equal(total, np.sum(given, axis=0))
    server = sites.conventions[sites.convener].convening.convener.server
    first = AFL().begin(server.public.task)
    exact = [AFL().contribute(first, rows, {}, b"") for rows in float32(CLIENTS)]
    noise = [share for (share,) in recorder.noise.values()]
    assert np.array_equal(total - np.sum(noise, axis=0), np.sum(exact, axis=0))
    assert all((share != 0).mean() > 0.9 for share in noise)
    for name in CLIENTS:
        model, card = kept(sites, name)
        assert np.array_equal(model.weights, sites.weights())
        assert card["privacy"]["epsilon"] == 4.0
        entry = only_entry(sites, name)
        assert (entry.counts, entry.released) == (True, True)
        assert entry.mu is not None
        assert entry.epsilon == pytest.approx(4.0, rel=1e-5)
    # The budget is spent, at every site.
    forget(sites)
    carry(sites, nodes)
    assert sites.conventions[sites.convener].convening.problem
    for name in CLIENTS:
        assert "not joined" in told(sites, name)
        only_entry(sites, name)


def only_entry(sites: Sites, name: str) -> Entry:
    """The one release in a client's ledger."""
    ledger = Ledger.look(sites.folder / name / "ledger.json")
    (entry,) = [entry for lineage in ledger.lineages for entry in ledger.entries(lineage)]
    return entry


def test_a_server_without_the_totals_that_its_method_needs_is_refused(tmp_path: Path) -> None:
    """A step from the wrong total would be a model, and nobody would know."""
    sites, nodes = federation(tmp_path, "softmax", "steps = 1\n")
    carry(sites, nodes)
    server = sites.conventions[sites.convener].convening.convener.server
    saved = decode(server.save(), _Saved)
    again = FederationServer(sites.parties[sites.convener].terms, server.public.task)
    assert again.restore(encode(saved)).save() == server.save()
    with pytest.raises(BadSavedState, match="1 totals of 2 rounds"):
        again.restore(encode(structs.replace(saved, totals=saved.totals[:1])))


def begun(folder: Path, method: str, settings: str, protocol: Protocol = ADDITIVE) -> Loopback:
    return Loopback(folder, protocol, CLIENTS, method=method, site=settings)


def carried(loopback: Loopback) -> None:
    """A run of real processes, at whose end all sites have a model."""
    loopback.begin()
    assert loopback.finish(loopback.run()) == "finished:completed", loopback.said()


@pytest.mark.nightly
def test_processes_make_and_keep_personal_models(tmp_path: Path) -> None:
    with begun(tmp_path, "fedhip", "", Pairwise(dropout_fraction=0.0)) as loopback:
        carried(loopback)
        bits = loopback.report()["feature_bits"]
        federation = Federation(FedHiP(), Plain(), feature_bits=bits)
        expected = federation.run(float32(CLIENTS), classes=("0", "1", "2"), max_rows=32)
        assert np.array_equal(loopback.weights(), expected.model.weights)
        for name in CLIENTS:
            model, card = loopback.kept(name)
            assert np.array_equal(model.weights, expected.personal[name].weights)
            assert (card["client"], card["privacy"]) == (name, None)
            assert charges(loopback.sites, name) == [(True, True)]


@pytest.mark.nightly
def test_processes_learn_in_rounds_and_charge_each(tmp_path: Path) -> None:
    with begun(tmp_path, "fedavg", "rounds = 2\n") as loopback:
        carried(loopback)
        federation = Federation(FedAvg(rounds=2), Plain())
        once = federation.run(float32(CLIENTS), classes=("0", "1", "2"), max_rows=32)
        # Rounding draws from each site's own entropy.
        assert np.allclose(loopback.weights(), once.model.weights, rtol=0, atol=1e-4)
        for name in CLIENTS:
            assert np.array_equal(loopback.kept(name)[0].weights, loopback.weights())
            assert charges(loopback.sites, name) == [(True, True)] * 2


@pytest.mark.nightly
def test_processes_add_noise_and_charge_their_ledgers(tmp_path: Path) -> None:
    with begun(tmp_path, "afl", "epsilon = 4.0\n") as loopback:
        carried(loopback)
        assert loopback.report()["privacy"]["epsilon"] == 4.0
        for name in CLIENTS:
            model, card = loopback.kept(name)
            assert np.array_equal(model.weights, loopback.weights())
            assert card["privacy"]["epsilon"] == 4.0
            entry = only_entry(loopback.sites, name)
            assert (entry.counts, entry.released) == (True, True)
            assert entry.mu is not None
