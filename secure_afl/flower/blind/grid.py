"""The server app's side: a grid whose train messages come back as one reply, the clients' mean."""

import inspect
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedYogi,
    Strategy,
)
from flwr.supercore.run import Run

from protocols.codec import encode
from protocols.errors import MessageRejected, SecureAflError, SessionAborted
from protocols.identity import Identity, Member
from protocols.message import Message as SealedMessage
from protocols.party import Party, Sum
from protocols.protocol import form_session, new_nonce
from protocols.roster import Roster
from protocols.schemes.pairwise import Pairwise
from protocols.session import Session
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.task import majority
from secure_afl.flower.blind.wire import (
    Answer,
    Deliver,
    Enrolled,
    Hello,
    Said,
    Terms,
    Train,
    arrays_of,
    context_of,
    flattened,
    layout_of,
    pack,
    unpack_answer,
)
from secure_afl.methods.update import WEIGHT, UpdateQuantiser

log = logging.getLogger("secure_afl")

# Strategies that need no more of the updates than their weighted mean.
OF_MEANS: tuple[type[Strategy], ...] = (FedAvg, FedAvgM, FedProx, FedAdagrad, FedAdam, FedYogi)
SERVER = "server"


class BlindSum(Grid):
    """A grid over which strategies of weighted means run without seeing single updates.

    `FedAvg(...).start(grid=BlindSum(grid, Pairwise(), clip=10.0), ...)` with `blind_sum_mod` in the
    client app. All other messages pass through, evaluation's among them: the metrics that clients
    return there are seen one by one.

    Args:
        grid: that the server app was given.
        protocol: whose only coordinator is the server: `Pairwise`. Nodes refuse a `server_trust`
            other than the default, unless their configuration allows it.
        clip: the greatest L2 norm of a client's update; longer ones are shortened.
        most: the greatest weight of a client, 1 to 2^24; what is needless costs resolution.
        weight: name of the metric that weighs, as the strategy's `weighted_by_key`.
        min_cohort: clients that a sum has at least; by default a majority of the roster's, or of
            those asked where there is none. Nodes want as much, unless their configuration says so.
        identity: of the server, where nodes pin a roster; by default a new one.
        roster: the federation's, where nodes pin one.

    Raises:
        ConfigError: a protocol that a server app cannot carry, or a number out of range.
    """

    def __init__(
        self,
        grid: Grid,
        protocol: Pairwise,
        *,
        clip: float,
        most: int = 2**16,
        weight: str = "num-examples",
        min_cohort: int | None = None,
        identity: Identity | None = None,
        roster: Roster | None = None,
    ) -> None:
        if not isinstance(protocol, Pairwise):
            raise ConfigError(
                f"protocol {protocol!r} needs coordinators at other organisations than the server "
                "app's; allowed here: Pairwise(). For the others see docs/deployment.md"
            )
        if not 0 < clip < float("inf"):
            raise ConfigError(f"clip is {clip!r}, allowed: numbers above 0")
        if isinstance(most, bool) or not 1 <= most <= 2**24:
            raise ConfigError(f"most is {most!r}, allowed: 1..{2**24}")
        self._grid = grid
        self._protocol = protocol
        self._clip = float(clip)
        self._most = int(most)
        self._weight = weight
        self._min_cohort = min_cohort
        self._identity = Identity.generate(SERVER) if identity is None else identity
        self._roster = roster
        self._rounds = 0
        self.included: tuple[str, ...] = ()

    # A grid

    def set_run(self, run: Run) -> None:
        """Set the run of the grid underneath."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the grid underneath."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message as the grid underneath does."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """List the nodes of the grid underneath."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages that train nothing.

        Raises:
            ConfigError: a train message, whose reply would be a single update.
        """
        waiting = list(messages)
        if any(_trains(message) for message in waiting):
            raise ConfigError("a train message goes out by send_and_receive, in a blind sum only")
        return self._grid.push_messages(waiting)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies of the grid underneath."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages; answer train messages by one reply, their weighted mean.

        Raises:
            ConfigError: a strategy that needs single updates, or messages of different arrays.
            SecureAflError: no sum came out; the run ends.
        """
        waiting = list(messages)
        training = [message for message in waiting if _trains(message)]
        if not training:
            return self._grid.send_and_receive(waiting, timeout=timeout)
        if len(training) < len(waiting):
            raise ConfigError("train messages beside others in one call; send them in two")
        _check_strategy()
        return [self._mean(training, timeout)]

    # A round

    def _mean(self, messages: Sequence[Message], timeout: float | None) -> Message:
        nodes = {message.metadata.dst_node_id: message for message in messages}
        first = messages[0].content
        key, arrays = arrays_of(first)
        begun = flattened(arrays)
        # Flower's strategies give all nodes one and the same record.
        others = [arrays_of(message.content)[1] for message in messages]
        if any(own is not arrays and not np.array_equal(flattened(own), begun) for own in others):
            raise ConfigError("clients are given different arrays; wanted the same for all")
        self._rounds += 1
        session, released = _Round(self, nodes, timeout, begun).run()
        mean = self.quantiser(len(session.clients)).mean(released.total, session.layout)
        self.included = released.included
        weight = int(session.layout.split(released.total)[WEIGHT][0])
        log.info(
            "round %d: a blind sum of %d updates, of weight %d",
            self._rounds,
            len(self.included),
            weight,
        )
        content = RecordDict(
            {
                key: _reshaped(begun + mean, arrays),
                "metrics": MetricRecord({self._weight: weight}),
            }
        )
        return Message(content, reply_to=messages[0])

    def quantiser(self, clients: int) -> UpdateQuantiser:
        """Return how updates of so many clients become integers.

        Raises:
            WouldOverflow: of too many clients with too great weights.
        """
        return UpdateQuantiser.fitting(self._clip, None, "nearest", clients * self._most)


class _Round:
    """One session, carried by Flower's messages."""

    def __init__(
        self,
        grid: BlindSum,
        nodes: Mapping[int, Message],
        timeout: float | None,
        begun: Floats,
    ) -> None:
        self._blind = grid
        self._length = len(begun)
        self._nodes = nodes
        self._timeout = timeout
        self._names: dict[str, int] = {}
        self._mail: dict[str, list[bytes]] = defaultdict(list)

    def run(self) -> tuple[Session, Sum]:
        """Carry a session to its sum.

        Raises:
            SecureAflError: no sum can come out.
        """
        nonce = new_nonce()
        members = []
        for node, answer in self._ask({node: pack(Hello(nonce)) for node in self._nodes}).items():
            if isinstance(answer, Enrolled):
                members.append(answer.member)
                self._names[answer.member.name] = node
        if len(self._names) < len(members):
            raise DataError("two nodes have one name; give every node an identity of its own")
        if not members:
            raise DataError("no node has enrolled; see why in this log, and at the nodes")
        quantiser = self._blind.quantiser(len(members))
        terms = (self._blind._clip, quantiser.bits, self._blind._most, self._blind._weight)
        session, party = self._session(nonce, members, quantiser, terms)
        self._post(party.start())
        asked = Train(encode(session.header), session.thin, *terms)
        training = {n: pack(asked, self._nodes[n].content) for n in self._names.values()}
        self._take(party, self._ask(training))
        while party.result is None:
            if not self._mail:
                # Whoever is expected has failed or stays away.
                assert party.awaits is not None, "a party without result waits for something"
                self._post(party.deadline(party.awaits))
                if not self._mail and party.result is None and party.aborted:
                    raise SessionAborted("the session ended without a sum")
                continue
            waiting = {self._names[name]: mail for name, mail in self._mail.items()}
            self._mail = defaultdict(list)
            questions = {n: pack(Deliver(nonce, tuple(mail))) for n, mail in waiting.items()}
            self._take(party, self._ask(questions))
        return session, party.result

    def _session(
        self, nonce: bytes, members: Sequence[Member], quantiser: UpdateQuantiser, terms: Terms
    ) -> tuple[Session, Party]:
        blind, clients = self._blind, len(members)
        first = next(iter(self._nodes.values())).content
        server = blind._identity.enrol(next(iter(blind._protocol.coordinators().values())), nonce)
        known = clients if blind._roster is None else len(blind._roster.clients)
        cohort = majority(known) if blind._min_cohort is None else blind._min_cohort
        session = form_session(
            blind._protocol,
            [*members, server.member],
            nonce,
            layout_of(quantiser, self._length, clients, blind._most),
            min_cohort=cohort,
            context=context_of(first, terms),
            round=blind._rounds,
            roster=blind._roster,
        )
        return session, blind._protocol.coordinator(session, server)

    def _ask(self, questions: Mapping[int, RecordDict]) -> dict[int, Answer]:
        """Send records to nodes; return what those answer that can."""
        messages = []
        for node, content in questions.items():
            metadata = self._nodes[node].metadata
            messages.append(
                self._blind.create_message(
                    content, metadata.message_type, node, metadata.group_id, metadata.ttl
                )
            )
        found: dict[int, Answer] = {}
        for reply in self._blind._grid.send_and_receive(messages, timeout=self._timeout):
            node = reply.metadata.src_node_id
            if reply.has_error():
                log.warning("node %d: %s", node, reply.error.reason)
                continue
            try:
                found[node] = unpack_answer(reply.content)
            except SecureAflError as error:
                log.warning("node %d: %s", node, error)
        return found

    def _take(self, party: Party, answers: Mapping[int, Answer]) -> None:
        names = {node: name for name, node in self._names.items()}
        for node, answer in answers.items():
            if not isinstance(answer, Said):
                log.warning("node %d answers what it was not asked", node)
                continue
            for recipient, mail in answer.mail:
                if recipient == party.name:
                    try:
                        self._post(party.take(mail))
                    except MessageRejected as error:
                        log.warning("from '%s': %s", names[node], error)
                elif recipient in self._names:
                    self._put(recipient, mail)

    def _post(self, messages: Iterable[SealedMessage]) -> None:
        for message in messages:
            self._put(message.route[0], encode(message))

    def _put(self, recipient: str, mail: bytes) -> None:
        if mail not in self._mail[recipient]:
            self._mail[recipient].append(mail)


def _trains(message: Message) -> bool:
    return message.metadata.message_type.split(".")[0] == MessageType.TRAIN


def _check_strategy() -> None:
    """Refuse a strategy that aggregates otherwise than by the weighted mean.

    A grid is not told who uses it: the strategy is the one whose method is on the stack.
    """
    frame = inspect.currentframe()
    while frame is not None:
        strategy = frame.f_locals.get("self")
        if isinstance(strategy, Strategy):
            own = type(strategy).aggregate_train
            if own not in [kind.aggregate_train for kind in OF_MEANS]:
                names = ", ".join(kind.__name__ for kind in OF_MEANS)
                raise ConfigError(
                    f"strategy {type(strategy).__name__} needs single updates, which a blind sum "
                    f"does not give; allowed: {names}, and those that aggregate as they do"
                )
            return
        frame = frame.f_back


def _reshaped(values: Floats, like: ArrayRecord) -> ArrayRecord:
    found, start = {}, 0
    for name, array in like.items():
        own = array.numpy()
        block = values[start : start + own.size].reshape(own.shape).astype(own.dtype)
        found[name] = Array(block)
        start += own.size
    return ArrayRecord(found)
