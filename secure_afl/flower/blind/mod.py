"""The client app's side: what training returns leaves the node in a blind sum only."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict

from protocols.codec import decode, encode
from protocols.errors import InvalidSession
from protocols.identity import Enrolment, Identity
from protocols.layout import Integers
from protocols.message import Message as SealedMessage
from protocols.party import Party
from protocols.roster import CLIENT, Roster
from protocols.schemes.pairwise import Pairwise
from protocols.session import Session
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.keys import load_identity, pinned_roster
from secure_afl.flower.blind.terms import NodeTerms
from secure_afl.flower.blind.wire import (
    RECORD,
    Deliver,
    Enrolled,
    Hello,
    Said,
    Train,
    arrays_of,
    context_of,
    flattened,
    layout_of,
    pack,
    shapes_of,
    unpack_question,
)
from secure_afl.methods.update import UpdateQuantiser, clipped

log = logging.getLogger("secure_afl")

IDENTITY, ROSTER = "blind-sum-identity", "blind-sum-roster"
"""Keys of a node's configuration: its identity, and the roster that it has pinned."""

Next = Callable[[Message, Context], Message]


def blind_sum_mod(message: Message, context: Context, call_next: Next) -> Message:
    """Let what `train` returns leave this node in a pairwise-masked sum only.

    Use it as `@app.train(mods=[blind_sum_mod])`, with `BlindSum` around the server app's grid. The
    function returns one ArrayRecord like the one that it was given, and a metric that weighs it.
    Other metrics do not leave the node.

    A node trusts whoever forms the sessions unless its configuration names a roster
    (`blind-sum-roster`) and its own key (`blind-sum-identity`); it then takes part with just those.

    The server app chooses the session's terms, and a node takes part in none that are weaker than
    its own: a server that may lie in every step (`blind-sum-server-trust`), a minimum cohort of a
    majority of its roster, or of the session where it pins none (`blind-sum-min-cohort`), and so
    many clients at least that may work with the server (`blind-sum-corrupt`, by default 0).

    Raises:
        ConfigError: a train message without a blind sum: the server app would see single updates;
            or a value of the node's configuration that is out of range.
        InvalidSession: a session that this node takes no part in.
        DataError: training returned what cannot be summed.
    """
    if message.metadata.message_type.split(".")[0] != MessageType.TRAIN:
        return call_next(message, context)
    if RECORD not in message.content:
        raise ConfigError(
            "a train message without a blind sum, which would show this node's update; let the "
            "server app start its strategy with grid=BlindSum(grid, …)"
        )
    question = unpack_question(message.content)
    seat = _Seat(context)
    if isinstance(question, Hello):
        return Message(pack(Enrolled(seat.hello(question.nonce).member)), reply_to=message)
    if isinstance(question, Deliver):
        return Message(pack(seat.deliver(question)), reply_to=message)
    return Message(pack(seat.train(question, message, call_next)), reply_to=message)


class _Seat:
    """This node's party, in the state that Flower keeps for a run."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._roster = _configured(context, ROSTER)
        self._terms = NodeTerms.read(context.node_config)
        kept = context.state.get(RECORD)
        self._kept: ConfigRecord = kept if isinstance(kept, ConfigRecord) else ConfigRecord()
        context.state[RECORD] = self._kept

    def hello(self, nonce: bytes) -> Enrolment:
        """Enrol under a nonce; one nonce, one answer, and a new one ends the session before."""
        enrolment = self._enrolment()
        if enrolment is None or enrolment.nonce != nonce:
            enrolment = self._identity().enrol(CLIENT, nonce)
            for key in ("header", "thin", "party"):
                self._kept.pop(key, None)
            self._context.state.pop(_VECTOR, None)
            self._kept["enrolment"] = enrolment.save()
        return enrolment

    def train(self, train: Train, message: Message, call_next: Next) -> Said:
        """Join a session with what training returns; a second time say the same again.

        Raises:
            InvalidSession, DataError: as `blind_sum_mod`.
        """
        enrolment = self._enrolment()
        if enrolment is None:
            raise InvalidSession("this node has enrolled for no session")
        pinned = self._pinned()
        session = Session.read(train.header, pinned, thin=train.thin)
        joined = self._kept.get("header")
        if joined is not None:
            if joined != train.header:
                raise InvalidSession(
                    "this node has joined another session of this nonce",
                    party=enrolment.member.name,
                )
            return _said(self._party(enrolment).pending())
        _protocol(session)
        self._terms.check(session, pinned, enrolment.member.name)
        self._check(session, enrolment, train, message.content)
        vector = self._trained(session, train, message, call_next)
        self._context.state[_VECTOR] = ArrayRecord({"vector": Array(vector)})
        self._kept["header"], self._kept["thin"] = train.header, train.thin
        party = _protocol(session).client(session, enrolment, lambda _: vector)
        messages = party.start()
        # The state outlives this process once the reply has left, and not before.
        self._kept["party"] = party.save()
        return _said(messages)

    def deliver(self, deliver: Deliver) -> Said:
        """Take messages of the session.

        Raises:
            InvalidSession: this node is in no session of this nonce.
            MessageRejected, SessionAborted: as from the party.
        """
        enrolment = self._enrolment()
        if enrolment is None or enrolment.nonce != deliver.nonce or "party" not in self._kept:
            raise InvalidSession("this node has joined no session of this nonce")
        party = self._party(enrolment)
        for data in deliver.mail:
            party.take(data)
        self._kept["party"] = party.save()
        return _said(party.pending())

    def _check(
        self, session: Session, enrolment: Enrolment, train: Train, records: RecordDict
    ) -> None:
        name, clients = enrolment.member.name, len(session.clients)
        if session.context != context_of(records, train.terms):
            raise InvalidSession(
                "the session is for other arrays or settings than came with it", party=name
            )
        length = len(flattened(arrays_of(records)[1]))
        quantiser = UpdateQuantiser(train.clip, train.bits, "nearest")
        if session.layout != layout_of(quantiser, length, clients, train.most):
            raise InvalidSession("the session's layout is not that of these arrays", party=name)
        last = self._kept.get("round", 0)
        assert isinstance(last, int), "as it was written"
        if session.header.round <= last:
            raise InvalidSession(
                f"round {session.header.round} after round {last}: two sums of one round show who "
                "is in one of them only",
                party=name,
            )
        if self._roster is None and not last:
            log.warning(
                "node '%s' pins no roster (%s): whoever runs the server app chooses who the "
                "others are",
                name,
                ROSTER,
            )
        self._kept["round"] = session.header.round

    def _trained(
        self, session: Session, train: Train, message: Message, call_next: Next
    ) -> Integers:
        given = message.content
        _, begun = arrays_of(given)
        bare = RecordDict({key: value for key, value in given.items() if key != RECORD})
        before = flattened(begun)
        message.content = bare
        try:
            reply = call_next(message, self._context)
        finally:
            message.content = given
        if reply.has_error():
            raise DataError(f"training failed: {reply.error.reason}")
        _, arrays = arrays_of(reply.content)
        if shapes_of(arrays) != shapes_of(begun):
            raise DataError(
                "training returned arrays of other names, types or shapes than it was given"
            )
        found = [
            metrics[train.weight]
            for metrics in reply.content.metric_records.values()
            if train.weight in metrics
        ]
        weight = found[0] if len(found) == 1 else None
        whole = isinstance(weight, int | float) and weight == int(weight)
        if not isinstance(weight, int | float) or not whole or not 1 <= weight <= train.most:
            # Flower sends the error's text to the server app; a number of rows is the node's own.
            log.error("metric '%s' is %s", train.weight, found or "not there")
            raise DataError(
                f"metric '{train.weight}' is not what can be summed, and in the node's log; "
                f"allowed: one whole number, 1..{train.most}. Let the server app's "
                "BlindSum(…, most=…) be larger"
            )
        weight = int(weight)
        quantiser = UpdateQuantiser(train.clip, train.bits, "nearest")
        update = clipped(flattened(arrays) - before, train.clip)
        return np.append(quantiser.integers(update, weight, b""), weight)

    def _party(self, enrolment: Enrolment) -> Party:
        header, thin, saved = (self._kept[key] for key in ("header", "thin", "party"))
        assert isinstance(header, bytes), "as it was written"
        assert isinstance(thin, bytes), "as it was written"
        assert isinstance(saved, bytes), "as it was written"
        session = Session.read(header, self._pinned(), thin=thin)
        stored = self._context.state[_VECTOR]
        assert isinstance(stored, ArrayRecord), "as it was written"
        vector = stored["vector"].numpy()
        return _protocol(session).client(session, enrolment, lambda _: vector).restore(saved)

    def _enrolment(self) -> Enrolment | None:
        saved = self._kept.get("enrolment")
        return Enrolment.load(saved) if isinstance(saved, bytes) else None

    def _identity(self) -> Identity:
        path = _configured(self._context, IDENTITY)
        if path is not None:
            return load_identity(Path(path))
        saved = self._kept.get("identity")
        if not isinstance(saved, bytes):
            saved = Identity.generate(f"node-{self._context.node_id}").save()
            self._kept["identity"] = saved
        return Identity.load(saved)

    def _pinned(self) -> Roster | None:
        return None if self._roster is None else pinned_roster(Path(self._roster))


_VECTOR = f"{RECORD}-vector"


def _configured(context: Context, key: str) -> str | None:
    value = context.node_config.get(key)
    return None if value is None else str(value)


def _protocol(session: Session) -> Pairwise:
    """Return the session's protocol: of those that there are, the one of a single server.

    Raises:
        InvalidSession: another.
    """
    if session.protocol != Pairwise.name:
        raise InvalidSession(
            f"protocol '{session.protocol}'; a server app alone can carry '{Pairwise.name}'"
        )
    return decode(session.parameters, Pairwise)


def _said(messages: Iterable[SealedMessage]) -> Said:
    return Said(tuple((m.route[0], encode(m)) for m in messages))
