"""The server of pairwise masking: carries keys and shares, adds up, and opens what must be.

It goes on with whoever is left after each deadline, as long as there are enough for the sum to be
allowed and opened; with fewer it gives up, and what it holds then opens nothing.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import ClassVar, TypeVar

from protocols.codec import Secret, Wire, encode
from protocols.errors import (
    BadKey,
    BadSignature,
    BelowThreshold,
    InvalidVector,
    Malformed,
    MessageRejected,
    Replayed,
    UnexpectedStep,
    WrongShares,
)
from protocols.identity import SIGNATURE_BYTES
from protocols.message import Channel, Message, derive
from protocols.party import (
    Aborted,
    Fresh,
    Party,
    Received,
    State,
    Step,
    Sum,
    vector_bytes,
)
from protocols.primitives import shamir
from protocols.primitives.masks import Mask, add_masks_in_threads
from protocols.roster import CLIENT
from protocols.schemes.pairwise import keys as wire_keys
from protocols.schemes.pairwise import messages as wire
from protocols.schemes.pairwise.graph import circulant
from protocols.schemes.pairwise.messages import (
    ADVERTISE,
    KEYS,
    SERVER,
    SHARE,
    SHARES,
    SIGN,
    SIGNATURES,
    SURVIVORS,
    UNMASK,
    UPLOAD,
    Advert,
    Advertise,
)
from protocols.schemes.pairwise.parameters import Parameters
from protocols.session import Session

_Kind = TypeVar("_Kind", bound=State)
_Shares = tuple[tuple[str, bytes], ...]


class Node(Secret, frozen=True):
    """A client that takes part, and those who hold its secrets, in roster order."""

    name: str
    advert: Advert
    holders: tuple[str, ...]


class CollectingKeys(State, frozen=True):
    """The state of collecting keys: who has advertised, in the order of arrival."""

    secret: bytes
    channels: tuple[Channel, ...]
    arrived: tuple[tuple[str, Advertise], ...]


class CollectingShares(State, frozen=True):
    """The graph of those who have advertised, in roster order; and the shares, by owner."""

    channels: tuple[Channel, ...]
    nodes: tuple[Node, ...]
    shares: tuple[tuple[str, _Shares], ...]


class CollectingUploads(State, frozen=True):
    """The graph of those who shared, their shares, and the uploads' sum so far."""

    channels: tuple[Channel, ...]
    nodes: tuple[Node, ...]
    shares: tuple[tuple[str, _Shares], ...]
    total: memoryview
    included: tuple[str, ...]


class CollectingSignatures(State, frozen=True):
    """The sum is closed; `survivors`, in roster order, are in it."""

    channels: tuple[Channel, ...]
    nodes: tuple[Node, ...]
    total: memoryview
    survivors: tuple[str, ...]
    signatures: _Shares


class CollectingOpenings(State, frozen=True):
    """The signers have been asked for their shares; `answers` are by holder."""

    channels: tuple[Channel, ...]
    nodes: tuple[Node, ...]
    total: memoryview
    survivors: tuple[str, ...]
    signatures: _Shares
    answers: tuple[tuple[str, _Shares], ...]


class Finished(State, frozen=True):
    """The sum is released; nothing that opened it is kept."""

    total: Sum


_AWAITS: dict[type[State], str] = {
    CollectingKeys: ADVERTISE,
    CollectingShares: SHARE,
    CollectingUploads: UPLOAD,
    CollectingSignatures: SIGN,
    CollectingOpenings: UNMASK,
}
_ORDER = (Fresh, *_AWAITS, Finished)


class PairwiseServer(Party):
    """Coordinates; learns who took part, and the sum."""

    role = SERVER
    states = (
        Fresh
        | CollectingKeys
        | CollectingShares
        | CollectingUploads
        | CollectingSignatures
        | CollectingOpenings
        | Finished
        | Aborted
    )
    steps: ClassVar[dict[str, Step]] = {
        ADVERTISE: Step((CLIENT,), Advertise, wire.bounded(wire.PLACE_BYTES, 256)),
        SHARE: Step((CLIENT,), wire.Share, wire.bounded(wire.PLACE_BYTES + wire.SEALED_BYTES)),
        UPLOAD: Step((CLIENT,), wire.MaskedVector, vector_bytes),
        SIGN: Step((CLIENT,), wire.Sign, wire.bounded(0, SIGNATURE_BYTES + 64)),
        UNMASK: Step((CLIENT,), wire.Unmask, wire.bounded(wire.PLACE_BYTES + shamir.SHARE_BYTES)),
    }
    threads: ClassVar[int] = os.cpu_count() or 1

    def _begin(self, secret: bytes) -> CollectingKeys:
        channels = tuple(self._open_channel(name, secret) for name in self.session.clients)
        return CollectingKeys(secret, channels, ())

    @property
    def awaits(self) -> str | None:
        """`advertise`, `share`, `upload`, `sign`, `unmask`, in that order; else None."""
        return _AWAITS.get(type(self._state))

    @property
    def result(self) -> Sum | None:
        """The unmasked sum over the survivors, once enough shares are opened; None until then."""
        return self._state.total if isinstance(self._state, Finished) else None

    def _transition(self, state: State, received: Received) -> State:
        sender, content = received.sender, received.content
        match content:
            case wire.Advertise():
                return self._take_keys(self._expect(state, CollectingKeys), sender, content)
            case wire.Share():
                return self._take_shares(self._expect(state, CollectingShares), sender, content)
            case wire.MaskedVector():
                return self._take_upload(self._expect(state, CollectingUploads), sender, content)
            case wire.Sign():
                closed = self._expect(state, CollectingSignatures)
                return self._take_signature(closed, sender, content)
            case wire.Unmask():
                return self._take_answer(self._expect(state, CollectingOpenings), sender, content)
        raise AssertionError("a content of no step")

    def _deadline(self, state: State) -> State:
        match state:
            case CollectingKeys():
                return self._close_keys(state)
            case CollectingShares():
                return self._close_shares(state)
            case CollectingUploads():
                return self._close_uploads(state)
            case CollectingSignatures():
                return self._close_signatures(state)
            case CollectingOpenings():
                return self._release(state)
        raise AssertionError("a deadline in a state that awaits nothing")

    def _has_opened(self, state: State) -> bool:
        # Once it has shown a quorum, clients open the sum to it, and it may remember how.
        return isinstance(state, CollectingOpenings | Finished)

    def _outbox(self, state: State) -> list[Message]:
        match state:
            case CollectingShares():
                return self._send_keys(state)
            case CollectingUploads():
                return self._send_shares(state)
            case CollectingSignatures():
                survivors = wire.Survivors(self.session.bits(state.survivors))
                return self._send(
                    state.channels, SURVIVORS, dict.fromkeys(state.survivors, survivors)
                )
            case CollectingOpenings():
                signers = [name for name, _ in state.signatures]
                quorum = self._quorum(state.signatures)
                return self._send(state.channels, SIGNATURES, dict.fromkeys(signers, quorum))
        return []

    def _news(self, before: State) -> list[Message]:
        return self.pending()

    # Keys, and the graph

    def _take_keys(self, state: CollectingKeys, sender: str, content: Advertise) -> State:
        self._expect_first(sender, [name for name, _ in state.arrived], ADVERTISE)
        advert = content.advert
        try:
            wire_keys.check_advert(self.session, sender, advert)
            wire_keys.check_order(sender, advert)
        except (MessageRejected, BadKey) as error:
            raise BadSignature(
                f"keys from '{sender}': {error.what}", party=self.name, step=ADVERTISE
            ) from None
        if not self._well_chosen(sender, content.chosen):
            raise Malformed(
                f"'{sender}' chose other neighbours than it should",
                party=self.name,
                step=ADVERTISE,
            )
        state = CollectingKeys(state.secret, state.channels, (*state.arrived, (sender, content)))
        everybody = len(state.arrived) == len(self.session.clients)
        return self._close_keys(state) if everybody else state

    def _close_keys(self, state: CollectingKeys) -> CollectingShares:
        arrived = sorted(state.arrived, key=lambda entry: self._place[entry[0]])
        self._enough(len(arrived), ADVERTISE)
        names = [name for name, _ in arrived]
        if self._parameters.clients_choose:
            clients, present = self.session.clients, set(names)
            holders = [
                tuple(clients[index] for index in advertise.chosen if clients[index] in present)
                for _, advertise in arrived
            ]
        else:
            # Fixed by the server's secret and by all keys, after all of them.
            bound = hashlib.sha256(encode(arrived)).hexdigest()
            seed = derive(state.secret, self.session.id, "pairwise", "graph", bound)
            graph = circulant(seed, len(names), self._parameters.neighbours)
            holders = [tuple(names[index] for index in neighbours) for neighbours in graph]
        nodes = tuple(
            Node(name, advertise.advert, held_by)
            for (name, advertise), held_by in zip(arrived, holders, strict=True)
        )
        return CollectingShares(state.channels, nodes, ())

    def _send_keys(self, state: CollectingShares) -> list[Message]:
        adverts = {node.name: node.advert for node in state.nodes}
        return self._send(
            state.channels,
            KEYS,
            {
                name: wire.Keys(
                    wire.places(self.session, others), tuple(adverts[other] for other in others)
                )
                for name, others in self._maskers(state.nodes).items()
            },
        )

    # Shares

    def _take_shares(self, state: CollectingShares, sender: str, content: wire.Share) -> State:
        node = next((node for node in state.nodes if node.name == sender), None)
        if node is None:
            raise UnexpectedStep(f"'{sender}' has no keys here", party=self.name, step=SHARE)
        self._expect_first(sender, [name for name, _ in state.shares], SHARE)
        if wire.names_at(self.session, content.holders, self.name, SHARE) != node.holders:
            raise Malformed(f"'{sender}' shares with others", party=self.name, step=SHARE)
        sealed = wire.parts(content.sealed, len(node.holders), wire.SEALED_BYTES, self.name, SHARE)
        shares = tuple(zip(node.holders, sealed, strict=True))
        state = CollectingShares(state.channels, state.nodes, (*state.shares, (sender, shares)))
        return self._close_shares(state) if len(state.shares) == len(state.nodes) else state

    def _close_shares(self, state: CollectingShares) -> CollectingUploads:
        self._enough(len(state.shares), SHARE)
        present = {name for name, _ in state.shares}
        nodes = tuple(node for node in state.nodes if node.name in present)
        empty = memoryview(bytes(self.session.layout.packed_bytes))
        return CollectingUploads(state.channels, nodes, state.shares, empty, ())

    def _send_shares(self, state: CollectingUploads) -> list[Message]:
        sealed = {owner: dict(shares) for owner, shares in state.shares}

        def shares_for(name: str, others: Sequence[str]) -> wire.Shares:
            owners = [other for other in others if name in sealed[other]]
            return wire.Shares(
                wire.places(self.session, others),
                wire.places(self.session, owners),
                b"".join(sealed[owner][name] for owner in owners),
            )

        maskers = self._maskers(state.nodes).items()
        contents = {name: shares_for(name, others) for name, others in maskers}
        return self._send(state.channels, SHARES, contents)

    # Uploads

    def _take_upload(
        self, state: CollectingUploads, sender: str, content: wire.MaskedVector
    ) -> State:
        if all(node.name != sender for node in state.nodes):
            raise UnexpectedStep(f"'{sender}' has not shared", party=self.name, step=UPLOAD)
        self._expect_first(sender, state.included, UPLOAD)
        layout = self.session.layout
        try:
            addend = layout.unpack(content.vector)
        except InvalidVector as error:
            raise Malformed(f"'{sender}': {error.what}", party=self.name, step=UPLOAD) from None
        state = CollectingUploads(
            state.channels,
            state.nodes,
            state.shares,
            layout.packed(layout.unpack(state.total) + addend),
            (*state.included, sender),
        )
        return self._close_uploads(state) if len(state.included) == len(state.nodes) else state

    def _close_uploads(self, state: CollectingUploads) -> CollectingSignatures:
        self._enough(len(state.included), UPLOAD)
        self._check_set(state.included, UPLOAD)
        included = set(state.included)
        survivors = tuple(name for name in self.session.clients if name in included)
        return CollectingSignatures(state.channels, state.nodes, state.total, survivors, ())

    # Consistency

    def _take_signature(
        self, state: CollectingSignatures, sender: str, content: wire.Sign
    ) -> State:
        if sender not in state.survivors:
            raise UnexpectedStep(f"'{sender}' is no survivor", party=self.name, step=SIGN)
        self._expect_first(sender, [name for name, _ in state.signatures], SIGN)
        statement = _statement(self.session, state.survivors)
        try:
            self.session.line(sender).verify(content.signature, statement)
        except BadSignature as error:
            raise BadSignature(error.what, party=self.name, step=SIGN) from None
        state = CollectingSignatures(
            state.channels,
            state.nodes,
            state.total,
            state.survivors,
            (*state.signatures, (sender, content.signature)),
        )
        everybody = len(state.signatures) == len(state.survivors)
        return self._close_signatures(state) if everybody else state

    def _close_signatures(self, state: CollectingSignatures) -> CollectingOpenings:
        quorum = self._parameters.quorum
        if len(state.signatures) < quorum:
            raise self._below(f"{len(state.signatures)} clients signed, wanted ≥ {quorum}", SIGN)
        return CollectingOpenings(
            state.channels, state.nodes, state.total, state.survivors, state.signatures, ()
        )

    # Openings, and the sum

    def _take_answer(self, state: CollectingOpenings, sender: str, content: wire.Unmask) -> State:
        if all(name != sender for name, _ in state.signatures):
            raise UnexpectedStep(f"'{sender}' was not asked", party=self.name, step=UNMASK)
        self._expect_first(sender, [name for name, _ in state.answers], UNMASK)
        holders = {node.name: node.holders for node in state.nodes}
        owners = wire.names_at(self.session, content.owners, self.name, UNMASK)
        own = self._parameters.complete
        if not all(
            sender in holders.get(owner, ()) or (own and sender == owner) for owner in owners
        ):
            raise Malformed(f"shares that '{sender}' cannot have", party=self.name, step=UNMASK)
        opened = wire.parts(content.shares, len(owners), shamir.SHARE_BYTES, self.name, UNMASK)
        if not all(map(shamir.is_share, opened)):
            raise Malformed(f"no shares, from '{sender}'", party=self.name, step=UNMASK)
        state = CollectingOpenings(
            state.channels,
            state.nodes,
            state.total,
            state.survivors,
            state.signatures,
            (*state.answers, (sender, tuple(zip(owners, opened, strict=True)))),
        )
        return self._release(state) if len(state.answers) == len(state.signatures) else state

    def _release(self, state: CollectingOpenings) -> Finished:
        secrets = self._open(state)
        layout = self.session.layout
        total = layout.unpack(state.total).copy()
        add_masks_in_threads(total, self._masks_left(state, secrets), self.threads)
        return Finished(Sum.of(layout.decode(total), state.survivors))

    def _open(self, state: CollectingOpenings) -> dict[str, bytes]:
        """Return by client a survivor's self-mask seed, or the mask key of one that vanished."""
        threshold = self._parameters.threshold
        shares: dict[str, dict[int, bytes]] = defaultdict(dict)
        for holder, held in state.answers:
            for owner, share in held:
                if len(shares[owner]) < threshold:
                    shares[owner][self._place[holder] + 1] = share
        weights: dict[tuple[int, ...], list[int]] = {}
        secrets = {}
        survivors = set(state.survivors)
        for node in state.nodes:
            name = node.name
            points = tuple(shares[name])
            if len(points) < threshold:
                raise self._below(
                    f"{len(points)} clients opened their share of '{name}', wanted ≥ {threshold}",
                    UNMASK,
                )
            if points not in weights:
                weights[points] = shamir.weights(points)
            secret = shamir.combine(shares[name], weights[points])
            self._check_opened(node, secret, survived=name in survivors)
            secrets[name] = secret
        return secrets

    def _check_opened(self, node: Node, secret: bytes, *, survived: bool) -> None:
        if survived:
            commitment = wire_keys.commitment(self.session, node.name, secret)
            right = commitment == node.advert.commitment
        else:
            right = wire_keys.public_key(secret) == node.advert.mask_key
        if not right:
            raise WrongShares(
                f"the shares of '{node.name}' open something else than it shared",
                party=self.name,
                step=UNMASK,
                fix="that client or one of its holders lies; run again without the suspects",
            )

    def _masks_left(self, state: CollectingOpenings, secrets: Mapping[str, bytes]) -> list[Mask]:
        """List the masks between total and sum, each with the sign that removes it."""
        keys = {node.name: node.advert.mask_key for node in state.nodes}
        masks = [
            Mask(wire_keys.self_mask(self.session, name, secrets[name]), negative=True)
            for name in state.survivors
        ]
        survivors = set(state.survivors)
        for gone, others in self._maskers(state.nodes).items():
            if gone in survivors:
                continue
            private = wire_keys.private_key(secrets[gone])
            for other in survivors.intersection(others):
                agreed = wire_keys.agree(private, keys[other], other)
                first, second = sorted((gone, other), key=self._place.__getitem__)
                key = wire_keys.pair_mask(self.session, agreed, first, second)
                # The survivor added it if it comes first on the roster.
                masks.append(Mask(key, negative=other == first))
        return masks

    # Helpers

    @property
    def _place(self) -> Mapping[str, int]:
        return self.session.places

    def _quorum(self, signatures: _Shares) -> wire.Signatures:
        """Put together the first signatures that came, as many as open the sum."""
        first = dict(signatures[: self._parameters.quorum])
        ordered = sorted(first, key=self._place.__getitem__)
        signers = self.session.bits(ordered)
        return wire.Signatures(signers, b"".join(first[name] for name in ordered))

    @property
    def _parameters(self) -> Parameters:
        return wire.parameters_of(self.session)

    def _maskers(self, nodes: Sequence[Node]) -> dict[str, list[str]]:
        """Return the clients that each client masks with, in roster order.

        They are its holders and those it holds for.
        """
        edges: dict[str, set[str]] = {node.name: set() for node in nodes}
        for node in nodes:
            for holder in node.holders:
                if holder in edges:
                    edges[node.name].add(holder)
                    edges[holder].add(node.name)
        return {name: sorted(others, key=self._place.__getitem__) for name, others in edges.items()}

    def _well_chosen(self, name: str, chosen: tuple[int, ...]) -> bool:
        if not self._parameters.clients_choose:
            return not chosen
        clients = len(self.session.clients)
        own = self._place[name]
        return (
            len(chosen) == self._parameters.neighbours
            and list(chosen) == sorted(set(chosen))
            and own not in chosen
            and chosen[0] >= 0
            and chosen[-1] < clients
        )

    def _send(
        self, channels: Sequence[Channel], step: str, contents: Mapping[str, Wire]
    ) -> list[Message]:
        return [
            self._seal(channel, step, contents[channel.recipient])
            for channel in channels
            if channel.recipient in contents
        ]

    def _expect(self, state: State, kind: type[_Kind]) -> _Kind:
        if isinstance(state, kind):
            return state
        step = _AWAITS[kind]
        if isinstance(state, Aborted) or _ORDER.index(type(state)) > _ORDER.index(kind):
            raise UnexpectedStep("this step is closed", party=self.name, step=step)
        raise UnexpectedStep("too early", party=self.name, step=step)

    def _expect_first(self, sender: str, arrived: Sequence[str], step: str) -> None:
        if sender in arrived:
            raise Replayed(f"'{sender}' has said this before", party=self.name, step=step)

    def _enough(self, clients: int, step: str) -> None:
        wanted = max(self.session.min_cohort, self._parameters.quorum)
        if clients < wanted:
            raise self._below(f"{clients} clients are left, wanted ≥ {wanted}", step)

    def _below(self, what: str, step: str) -> BelowThreshold:
        return BelowThreshold(
            what,
            party=self.name,
            step=step,
            fix="run again with more clients, or declare more drop-outs",
        )


@lru_cache(maxsize=4)
def _statement(session: Session, survivors: tuple[str, ...]) -> bytes:
    """Return what all survivors sign, made once for all of them."""
    return wire_keys.survivors_statement(session, session.bits(survivors))
