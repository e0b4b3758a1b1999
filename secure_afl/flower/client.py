"""The client app: the parties of this site, in a process that lives for one exchange.

All that protects them stands in the site's own files. Whatever goes wrong leaves the site as the
name of an error.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from protocols.errors import SecureAflError
from secure_afl.errors import ConfigError
from secure_afl.federation.keys import load_identity
from secure_afl.flower.bag import Bag
from secure_afl.flower.wire import ACTION, Parcel, Reply, Request, pack, unpack_request
from secure_afl.sites.ending import finish
from secure_afl.sites.log import open_log
from secure_afl.sites.party import SiteParty
from secure_afl.sites.settings import Site, read_site

log = logging.getLogger("secure_afl")

SITE = "site"
"""The one key of a node's configuration: the path of a site.toml, or of a folder of them."""

TURNS = 20

app = ClientApp()


@app.query(ACTION)
def exchange(message: Message, context: Context) -> Message:
    """Take mail for the parties of this node, and answer with theirs."""
    try:
        request = unpack_request(message.content)
        reply = answer([read_site(file) for file in site_files(context)], request)
    except Exception as error:
        # The text would go to the operator.
        log.exception("an exchange failed")
        reply = Reply((), (), (), None, (("", type(error).__name__),))
    return Message(pack(reply), reply_to=message)


def site_files(context: Context) -> list[Path]:
    """Return the files of the sites at this node.

    Raises:
        ConfigError: the node's configuration names none.
    """
    given = context.node_config.get(SITE)
    if not isinstance(given, str):
        raise ConfigError(f"""the node's configuration has no '{SITE}'; --node-config 'site="…"'""")
    path = Path(given)
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path} has no site.toml")
    return files


def answer(sites: list[Site], request: Request) -> Reply:
    """Let every party take its mail, and collect what they say."""
    names: list[str] = []
    parcels: dict[bytes, Parcel] = {}
    taken: list[bytes] = []
    wakes: list[float] = []
    problems: list[tuple[str, str]] = []
    for site in sites:
        name = load_identity(Path(site.place.identity)).name
        names.append(name)
        mine = [parcel for parcel in request.parcels if parcel.recipient == name]
        tell = open_log(site)
        try:
            bag = Bag(name, mine, request.have)
            wake = take_turns(site, bag, tell)
        except SecureAflError as error:
            tell(str(error))
            problems.append((name, type(error).__name__))
            continue
        parcels |= bag.sent
        taken += bag.taken
        if wake is not None:
            wakes.append(max(0.0, wake - time.time()))
    return Reply(
        tuple(names),
        tuple(parcels.values()),
        tuple(taken),
        min(wakes) if wakes else None,
        tuple(problems),
    )


def take_turns(site: Site, bag: Bag, tell: Callable[[str], None]) -> float | None:
    """Let a site's party take what is in its bag, until nothing more comes of it.

    Returns:
        When something may happen here without mail, in seconds by the clock; None for never.

    Raises:
        SecureAflError: settings, keys, data or state that cannot be used.
    """
    party = SiteParty(site, tell)
    try:
        driver, letters = party.driver(bag), bag.letters()
        for _ in range(TURNS):
            before = len(bag.taken), len(bag.sent)
            driver.turn(letters)
            if (len(bag.taken), len(bag.sent)) == before:
                break
        if driver.finished:
            finish(party)
        bag.discard(party.seats.has_ended)
        return driver.wake
    finally:
        party.close()
