"""Exchanges between an office and nodes without Flower between them, and with its records."""

import random
from pathlib import Path

import numpy as np
import pytest

flwr = pytest.importorskip("flwr", reason="needs the extra 'flower'")

from protocols import Additive, Ckks, Pairwise, Protocol  # noqa: E402
from secure_afl.flower.client import answer  # noqa: E402
from secure_afl.flower.office import Office  # noqa: E402
from secure_afl.flower.wire import (  # noqa: E402
    Reply,
    Request,
    pack,
    unpack_reply,
    unpack_request,
)
from secure_afl.privacy.ledger import Ledger  # noqa: E402
from secure_afl.sites.settings import read_site  # noqa: E402
from tests.kit.sites import PATIENT, Sites  # noqa: E402
from tests.secure_afl.sites.test_sites import CLIENTS, oracle  # noqa: E402


class Nodes:
    """Nodes of a federation whose exchanges a test carries by hand.

    Attributes:
        exchanges: how many there were, by node.
        sent: bytes of all parcels that nodes sent.
    """

    def __init__(self, sites: Sites, where: dict[int, list[str]]) -> None:
        self.sites = sites
        self.where = where
        self.exchanges = dict.fromkeys(where, 0)
        self.sent = 0
        for names in where.values():
            for name in names:
                site = read_site(sites.folder / name / "site.toml")
                if site.run.ledger is not None:
                    path = Path(site.run.ledger)
                    Ledger.open(path, anchor=path.parent, new=True).take_over(None, ())

    def exchange(self, node: int, request: Request) -> Reply:
        """One exchange, as a process of its own would have it."""
        self.exchanges[node] += 1
        files = [self.sites.folder / name / "site.toml" for name in self.where[node]]
        asked = unpack_request(pack(request))
        reply = unpack_reply(pack(answer([read_site(file) for file in files], asked)))
        self.sent += sum(len(parcel.mail) for parcel in reply.parcels)
        return reply


def carry(sites: Sites, nodes: Nodes, chance: random.Random | None = None, lose: float = 0) -> None:
    """Let a run among nodes go to its end; requests and replies may be lost on their way."""
    chance = chance or random.Random(0)
    convener = sites.convener
    office = Office([convener])
    sites.mailrooms[convener] = office  # type: ignore[assignment]
    sites.start(convener)
    driver, letters = sites.alive[convener], office.letters()
    for now in range(600):
        sites.now = float(now)
        if not driver.finished:
            driver.turn(letters)
        elif not office.waits_for(sites.roles):
            return
        for node in nodes.where:
            request = office.request(node, float(now), repeat=10.0)
            if request is None or chance.random() < lose:
                continue
            reply = nodes.exchange(node, request)
            if chance.random() >= lose:
                office.take(node, reply, float(now))
    raise AssertionError(f"nothing came of it: {sites.told[convener]}")


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
