"""Federations between sites: folders, files and keys, and processes that tests turn by hand."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from protocols import Protocol
from protocols.folder_post import FolderPost
from protocols.protocol import PROTOCOLS
from protocols.roster import CLIENT
from secure_afl.analytic.rows import ClientData
from secure_afl.federation.keys import identity_path, make_identity, public_path
from secure_afl.federation.rosters import merge
from secure_afl.sites.convene import Convention
from secure_afl.sites.drive import Driver
from secure_afl.sites.mailroom import FolderMailroom
from secure_afl.sites.party import SiteParty
from secure_afl.sites.settings import read_run, read_site

WAIT = (50, 20)
"""Seconds for all to enrol, and for a step."""
PATIENT = (10_000, 10_000)


class Sites:
    """Sites of one federation, in a folder each, around a folder that is their post.

    Attributes:
        folder: of everything; a site's is of its name.
        protocol: with its parameters.
        clients: rows by name.
        roles: of all parties, by name.
        told: what each process told its people, by name.
        now: the time of all processes, in seconds.
        mailrooms: where each site's post is; by default one for all.
    """

    def __init__(
        self,
        folder: Path,
        protocol: Protocol,
        clients: Mapping[str, ClientData],
        *,
        site: str = "",
        run: str = "",
        method: str = "afl",
        wait: tuple[int, int] = WAIT,
    ) -> None:
        self.folder = folder
        self.wait = wait
        self.protocol = protocol
        self.clients = dict(clients)
        coordinators = protocol.coordinators()
        self.roles = dict.fromkeys(clients, CLIENT) | dict(coordinators)
        self.convener = protocol.receiver
        self.told: dict[str, list[str]] = {name: [] for name in self.roles}
        self.now = 0.0
        self.begun: set[str] = set()
        (folder / "post").mkdir(parents=True)
        self.mailrooms = {name: FolderMailroom(folder / "post") for name in self.roles}
        self.alive: dict[str, Driver] = {}
        self.letters: dict[str, FolderPost] = {}
        self.parties: dict[str, SiteParty] = {}
        self.conventions: dict[str, Convention] = {}
        terms = f'method = "{method}"\nprotocol = "{protocol.name}"\n'
        for name in sorted(_settings(protocol)):
            terms += f"{name} = {json.dumps(getattr(protocol, name))}\n"
        for name, role in self.roles.items():
            make_identity(name, role, folder / name)
        lines = [public_path(folder / name, name) for name in self.roles]
        classes = [str(c) for c in range(1 + max(int(d.labels.max()) for d in clients.values()))]
        for name, role in self.roles.items():
            merge(folder / name / "roster.json", lines)
            text = f"{terms}{site}deadline = {wait[1]}\n{self._places(name, role)}"
            if role == CLIENT and "epsilon" in site:
                text += f"classes = {classes}\n"
            (folder / name / "site.toml").write_text(text)
        width = next(iter(clients.values())).features.shape[1]
        (folder / self.convener / "run.toml").write_text(
            f"{terms}{site}{run}classes = {classes}\nwidth = {width}\nbackbone = 'identity'\n"
            f"wait = {wait[0]}\n"
        )

    def start(self, name: str) -> SiteParty:
        """Start a site's process, or start it again."""
        folder = self.folder / name
        site = read_site(folder / "site.toml")
        new = site.run.ledger is not None and not Path(site.run.ledger).exists()
        party = SiteParty(site, self.told[name].append, new_ledger=new)
        convening = None
        if party.convenes:
            try:
                self.conventions[name] = Convention(party, *read_run(folder / "run.toml", site))
            except BaseException:
                party.close()
                raise
            convening = self.conventions[name].convening
        self.parties[name] = party
        self.letters[name] = self.mailrooms[name].letters()
        self.alive[name] = party.driver(self.mailrooms[name], convening, clock=lambda: self.now)
        return party

    def stop(self, name: str) -> None:
        """Stop a process where it is; what it held in memory is gone."""
        del self.alive[name]
        self.parties.pop(name).close()

    def turn(self) -> None:
        """Let every living process look into its post once."""
        self.now += 1
        for name, driver in list(self.alive.items()):
            if not driver.finished:
                driver.turn(self.letters[name])

    def until(self, over: Callable[[], bool], turns: int = 400) -> None:
        """Go on until something is so."""
        for _ in range(turns):
            if over():
                return
            self.turn()
        raise AssertionError(f"nothing came of it: {self.told}")

    def run(self) -> None:
        """Start everybody who is not alive, and go on to the end of the run."""
        for name in self.roles:
            if name not in self.alive:
                self.start(name)
        self.until(lambda: all(driver.finished for driver in self.alive.values()))

    def weights(self) -> np.ndarray:
        """The convener's model."""
        return self.conventions[self.convener].model().weights

    def _places(self, name: str, role: str) -> str:
        identity = identity_path(Path(), name)
        text = (
            f'identity = "{identity}"\nroster = "roster.json"\nstate = "state"\nrole = "{role}"\n'
        )
        if role != CLIENT:
            return text
        data = self.clients[name]
        np.savez(self.folder / name / "data.npz", features=data.features, labels=data.labels)
        return text + (
            'data = "data.npz"\nbackbone = "identity"\nmax-rows = 32\nledger = "ledger.json"\n'
        )


def _settings(protocol: Protocol) -> list[str]:
    from protocols.registry import options_of

    return [n for n in options_of(PROTOCOLS[protocol.name]) if getattr(protocol, n) is not None]
