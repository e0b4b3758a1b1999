"""What a node insists on, by its own configuration, whatever the server app asks for."""

from collections.abc import Mapping
from typing import NamedTuple

from protocols.errors import InvalidSession
from protocols.roster import Roster
from protocols.schemes.pairwise.messages import parameters_of
from protocols.schemes.pairwise.parameters import SERVERS, ServerTrust
from protocols.session import Session
from secure_afl.errors import ConfigError
from secure_afl.federation.task import majority

LEAST, TRUST, CORRUPT = "blind-sum-min-cohort", "blind-sum-server-trust", "blind-sum-corrupt"
"""Keys of a node's configuration, with the meaning of a site's `min-cohort`, `server-trust` and
`corrupt`."""

Value = bool | float | int | str


class NodeTerms(NamedTuple):
    """The weakest session that a node takes part in.

    Attributes:
        min_cohort: clients that a sum has at least, ≥ 2; None wants a majority of the clients on
            the pinned roster, or of the session's where none is pinned.
        server_trust: how far the server may lie at least. By default it may lie in every step: a
            server that asks to be trusted would choose so itself.
        corrupt: clients at least that may work with the server, ≥ 0.
    """

    min_cohort: int | None = None
    server_trust: ServerTrust = "lying"
    corrupt: int = 0

    @classmethod
    def read(cls, config: Mapping[str, Value]) -> "NodeTerms":
        """Read a node's configuration; what it leaves out is as by default.

        Raises:
            ConfigError: a value out of range.
        """
        trust = config.get(TRUST, "lying")
        found = [known for known in SERVERS if known == trust]
        if not found:
            raise ConfigError(f"{TRUST} is {trust!r}, allowed: {', '.join(SERVERS)}")
        least = _number(config, LEAST, 2) if LEAST in config else None
        return cls(least, found[0], _number(config, CORRUPT, 0) if CORRUPT in config else 0)

    def check(self, session: Session, pinned: Roster | None, party: str) -> None:
        """Compare a `pairwise` session with what the node insists on.

        Raises:
            InvalidSession: the session is weaker, or is none of `pairwise`.
        """
        parameters = parameters_of(session)
        if SERVERS.index(parameters.server_trust) < SERVERS.index(self.server_trust):
            raise InvalidSession(
                f"server trust '{parameters.server_trust}'; this node wants '{self.server_trust}' "
                f"({TRUST})",
                party=party,
                fix="let the server app use Pairwise(server_trust='lying'), its default",
            )
        clients = session.clients if pinned is None else pinned.clients
        least = majority(len(clients)) if self.min_cohort is None else self.min_cohort
        if session.min_cohort < least:
            whose = "in the session" if pinned is None else "on its roster"
            why = f", a majority of the {len(clients)} {whose}" if self.min_cohort is None else ""
            raise InvalidSession(
                f"minimum cohort {session.min_cohort} of {len(session.clients)} clients; this node "
                f"wants ≥ {least}{why} ({LEAST})",
                party=party,
                fix="let the server app ask more nodes, with a larger BlindSum(…, min_cohort=…)",
            )
        if parameters.corrupt < self.corrupt:
            raise InvalidSession(
                f"{parameters.corrupt} clients may work with the server; this node wants "
                f"≥ {self.corrupt} ({CORRUPT})",
                party=party,
                fix="let the server app use Pairwise with a larger corrupt_fraction",
            )


def _number(config: Mapping[str, Value], key: str, low: int) -> int:
    value = config[key]
    try:
        number = int(value) if type(value) in (int, str) else None
    except ValueError:
        number = None
    if number is None or number < low:
        raise ConfigError(f"{key} is {value!r}, allowed: whole numbers ≥ {low}")
    return number
