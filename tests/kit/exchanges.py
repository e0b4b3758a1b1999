"""Exchanges between an office and nodes, with Flower's records and without its processes."""

import random
from collections.abc import Collection

from protocols.carrier import Post
from secure_afl.flower.client import answer
from secure_afl.flower.office import Office
from secure_afl.flower.wire import Reply, Request, pack, unpack_reply, unpack_request
from secure_afl.sites.drive import Driver
from secure_afl.sites.process import prepare_site
from secure_afl.sites.settings import read_site
from tests.kit.sites import Sites


class Nodes:
    """Nodes of a federation whose exchanges a test carries by hand.

    Attributes:
        exchanges: how many there were, by node.
        sent: bytes of all parcels that nodes sent.
        away: nodes that answer nothing.
        leaving: nodes that are away once their party has joined a session.
    """

    def __init__(self, sites: Sites, where: dict[int, list[str]]) -> None:
        self.sites = sites
        self.where = where
        self.exchanges = dict.fromkeys(where, 0)
        self.sent = 0
        self.away: set[int] = set()
        self.leaving: set[int] = set()
        for names in where.values():
            for name in names:
                file = sites.folder / name / "site.toml"
                if name in sites.clients:
                    prepare_site(file, print, new_ledger=True)

    @property
    def missing(self) -> set[str]:
        """The parties at nodes that are away."""
        return {name for node in self.away for name in self.where[node]}

    def exchange(self, node: int, request: Request) -> Reply:
        """One exchange, as a process of its own would have it."""
        self.exchanges[node] += 1
        files = [self.sites.folder / name / "site.toml" for name in self.where[node]]
        asked = unpack_request(pack(request))
        reply = unpack_reply(pack(answer([read_site(file) for file in files], asked)))
        self.sent += sum(len(parcel.mail) for parcel in reply.parcels)
        if node in self.leaving and any("joined" in told(self.sites, n) for n in self.where[node]):
            self.away.add(node)
        return reply


def carry(
    sites: Sites,
    nodes: Nodes,
    chance: random.Random | None = None,
    lose: float = 0,
    kill: Collection[int] = (),
    linger: int | None = None,
) -> None:
    """Let a run among nodes go to its end.

    Args:
        lose: the chance of a request, and of a reply, to be lost on its way.
        kill: rounds in whose sessions the convener's process is killed, its mail with it, and
            resumed.
        linger: seconds after the convener's end in which mail may be taken, as the server app has
            it; None, until all is.
    """
    chance = chance or random.Random(0)
    convener = sites.convener

    def convene() -> tuple[Office, Driver, Post]:
        office = Office([convener])
        sites.mailrooms[convener] = office  # type: ignore[assignment]
        sites.start(convener)
        return office, sites.alive[convener], office.letters()

    office, driver, letters = convene()
    waiting, end = set(kill), 600
    for now in range(600):
        sites.now = float(now)
        run = sites.conventions[convener].convening.convener
        if run.session is not None and run.round in waiting:
            waiting.remove(run.round)
            sites.stop(convener)
            office, driver, letters = convene()
        if not driver.finished:
            driver.turn(letters)
            end = end if linger is None else now + linger
        elif now >= end or not office.waits_for(set(sites.roles) - nodes.missing):
            assert not waiting, f"rounds {waiting} never came"
            return
        for node in nodes.where:
            request = office.request(node, float(now), repeat=10.0)
            if request is None or node in nodes.away or chance.random() < lose:
                continue
            reply = nodes.exchange(node, request)
            if chance.random() >= lose:
                office.take(node, reply, float(now))
    raise AssertionError(f"nothing came of it: {sites.told[convener]}")


def forget(sites: Sites) -> None:
    """Let the convener's process end as that of a run that is over does."""
    sites.parties[sites.convener].forget()
    sites.stop(sites.convener)


def told(sites: Sites, name: str) -> str:
    """What a party's exchanges told its own people."""
    path = sites.folder / name / "state" / "log.txt"
    return path.read_text() if path.exists() else ""
