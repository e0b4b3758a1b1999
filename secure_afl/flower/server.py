"""The server app: the party that receives the sums, and the office for everybody's mail.

It runs beside the SuperLink, with keys and settings in files of its own. The run's configuration
names these files; nothing that protects a client is read from it.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, Message, MessageType
from flwr.serverapp import Grid, ServerApp

from protocols.errors import Malformed
from secure_afl.errors import ConfigError
from secure_afl.flower.office import Office
from secure_afl.flower.wire import ACTION, pack, unpack_reply
from secure_afl.sites.convene import Convention
from secure_afl.sites.drive import Driver
from secure_afl.sites.ending import convened
from secure_afl.sites.log import open_log
from secure_afl.sites.party import SiteParty
from secure_afl.sites.settings import read_run, read_site

log = logging.getLogger("secure_afl")

PAUSE = 0.5
"""Seconds between two looks for replies; SuperNodes look for messages every three."""

app = ServerApp()


@dataclass(frozen=True)
class RunSettings:
    """What `flwr run --run-config` may say.

    Attributes:
        site: path of the site.toml of the party that receives the sums.
        config: path of the run's settings.
        resume: go on with a run that was interrupted.
        nudge: seconds without a reply, after which a node is asked again; more than the 60 s in
            which Flower forgets a node that died.
        ttl: seconds for which Flower keeps a message.
    """

    site: Path
    config: Path
    resume: bool
    nudge: float
    ttl: float

    @classmethod
    def read(cls, context: Context) -> "RunSettings":
        """Read a run's configuration.

        Raises:
            ConfigError: a key without a value, or one out of range.
        """
        given = context.run_config
        for name in ("site", "config"):
            if not isinstance(given.get(name), str) or not given[name]:
                raise ConfigError(
                    f"""no '{name}' in the run's configuration; flwr run … --run-config """
                    f"""'{name}="/path"'"""
                )
        nudge, ttl = float(given["nudge"]), float(given["ttl"])
        if not 1 <= nudge <= ttl:
            raise ConfigError(f"nudge {nudge} and ttl {ttl}; allowed: 1 ≤ nudge ≤ ttl, in seconds")
        site, config = Path(str(given["site"])), Path(str(given["config"]))
        return cls(site, config, bool(given["resume"]), nudge, ttl)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Convene one run among the parties at all nodes, to its end."""
    settings = RunSettings.read(context)
    site = read_site(settings.site)
    party = SiteParty(site, open_log(site))
    try:
        if not party.convenes:
            raise ConfigError(
                f"'{party.name}' of {settings.site} does not receive the sums, and so cannot form "
                "the sessions; name the site of the party that does"
            )
        interrupted = party.state.convener() is not None
        if interrupted != settings.resume:
            raise ConfigError(
                "a run was interrupted here: go on with it (resume=true), or leave it "
                f"(secure-afl party --leave --site {settings.site})"
                if interrupted
                else "there is no run to resume; leave resume out"
            )
        convention = Convention(party, *read_run(settings.config, site))
        office = Office([party.name])
        driver = party.driver(office, convention.convening)
        Exchanges(grid, office, settings).carry(driver)
        report = convened(party, convention)
        log.info(
            "%s over %s: %d of %d clients in the last sum",
            report.method,
            report.protocol,
            len(report.included),
            report.clients,
        )
        party.forget()
    finally:
        party.close()


class Exchanges:
    """Exchanges with all nodes, pushed and pulled.

    Args:
        grid: Flower's.
        office: holds the mail.
        settings: of the run.
    """

    def __init__(self, grid: Grid, office: Office, settings: RunSettings) -> None:
        self._grid = grid
        self._office = office
        self._settings = settings
        self._asked: dict[str, tuple[int, int]] = {}
        self._heard = 0.0

    def carry(self, driver: Driver) -> None:
        """Move mail until the run is over, and its end has reached those who can be reached.

        Raises:
            SecureAflError: as from `Driver.turn`.
        """
        letters = self._office.letters()
        self._heard = time.time()
        end: float | None = None
        while True:
            if not driver.finished:
                driver.turn(letters)
            elif end is None:
                end = time.time() + self._settings.nudge
            self._push()
            self._pull()
            if end is not None and (self._settled() or time.time() >= end):
                return
            time.sleep(PAUSE)

    def _settled(self) -> bool:
        known = {name for node in self._office.nodes.values() for name in node.parties or ()}
        return not self._office.waits_for(known)

    def _push(self) -> None:
        """Ask every node for which there is mail, or from which none has come for long."""
        now, nudge = time.time(), self._settings.nudge
        if now - self._heard >= nudge:
            # Mail may be lost that nobody waits for an answer to.
            self._heard = now
            for node_id, node in list(self._office.nodes.items()):
                if node.asked is None:
                    self._office.lost(node_id, now, pause=0)
        for node_id in self._nodes():
            request = self._office.request(node_id, now, repeat=nudge)
            if request is None:
                continue
            message = Message(
                pack(request), node_id, f"{MessageType.QUERY}.{ACTION}", ttl=self._settings.ttl
            )
            for message_id in self._grid.push_messages([message]):
                self._asked[message_id] = node_id, self._office.nodes[node_id].number

    def _pull(self) -> None:
        """Take what nodes have answered."""
        now = time.time()
        for message in self._grid.pull_messages(list(self._asked)):
            asked = self._asked.pop(message.metadata.reply_to_message_id, None)
            if asked is None:
                continue
            node_id, number = asked
            if message.has_error():
                log.info("node %d: error %d", node_id, message.error.code)
                self._office.lost(node_id, now, pause=5.0, number=number)
                continue
            try:
                reply = unpack_reply(message.content)
            except Malformed as error:
                log.warning("node %d: %s", node_id, error)
                self._office.lost(node_id, now, pause=self._settings.nudge, number=number)
                continue
            for name, problem in reply.problems:
                log.warning("node %d: '%s' has a problem (%s)", node_id, name, problem)
            if reply.parcels or reply.taken:
                self._heard = now
            self._office.take(node_id, reply, now, number)

    def _nodes(self) -> Iterable[int]:
        return list(self._grid.get_node_ids())
