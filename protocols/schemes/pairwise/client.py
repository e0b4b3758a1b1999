"""The client of pairwise masking: believes nothing that it can check itself."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar, TypeVar

from protocols.codec import Secret
from protocols.errors import (
    BadKey,
    BadSeal,
    BadSignature,
    BelowThreshold,
    InconsistentSurvivors,
    Malformed,
    Replayed,
    SessionAborted,
    UnexpectedStep,
)
from protocols.identity import SIGNATURE_BYTES
from protocols.message import Channel, Message, Streamed
from protocols.party import Aborted, Fresh, Party, Received, State, Step
from protocols.primitives import shamir
from protocols.primitives.masks import Mask, MaskStream
from protocols.roster import CLIENT
from protocols.schemes.pairwise import keys as wire_keys
from protocols.schemes.pairwise import messages as wire
from protocols.schemes.pairwise.graph import draw_neighbours
from protocols.schemes.pairwise.messages import (
    ADVERTISE,
    KEYS,
    SEALED_BYTES,
    SERVER,
    SHARE,
    SHARES,
    SIGN,
    SIGNATURES,
    SURVIVORS,
    UNMASK,
    UPLOAD,
)
from protocols.schemes.pairwise.parameters import Parameters
from protocols.session import Session

_Kind = TypeVar("_Kind", bound=State)


class Neighbour(Secret, frozen=True):
    """One with whom this client masks.

    Attributes:
        name: of the neighbour.
        mask: key of the pair's mask, 16 bytes.
        agreed: the agreement of their share keys, 32 bytes.
        holder: whether it gets a share of this client's secrets.
    """

    name: str
    mask: bytes
    agreed: bytes
    holder: bool


class Held(Secret, frozen=True):
    """A sealed share that this client holds."""

    owner: str
    agreed: bytes
    sealed: bytes


class Advertised(State, frozen=True):
    """Keys are out; the vector that will be uploaded is the one of `fingerprint`."""

    secret: bytes
    fingerprint: bytes
    channel: Channel


class Shared(State, frozen=True):
    """Secrets are shared among the holders of `neighbours`."""

    secret: bytes
    fingerprint: bytes
    channel: Channel
    neighbours: tuple[Neighbour, ...]


class Uploaded(State, frozen=True):
    """The vector is out, masked with `neighbours`, who all have shared; and what it holds.

    Those in `withheld` had keys and are said not to have shared: they must not survive.
    """

    secret: bytes
    fingerprint: bytes
    channel: Channel
    neighbours: tuple[Neighbour, ...]
    withheld: tuple[str, ...]
    held: tuple[Held, ...]


class Signed(State, frozen=True):
    """The state of a client that will never open others than these survivors, given as bits."""

    secret: bytes
    channel: Channel
    held: tuple[Held, ...]
    survivors: bytes


class Unmasked(State, frozen=True):
    """The shares are out; nothing else of the session is kept."""

    channel: Channel
    shares: tuple[tuple[str, bytes], ...]
    survivors: bytes


def _bits_bytes(session: Session) -> int:
    return len(session.header.participants) + 64


_ORDER = (Fresh, Advertised, Shared, Uploaded, Signed, Unmasked)


class PairwiseClient(Party):
    """The client that answers each step once, and only if the answer is safe."""

    role = CLIENT
    states = Fresh | Advertised | Shared | Uploaded | Signed | Unmasked | Aborted
    steps: ClassVar[dict[str, Step]] = {
        KEYS: Step((SERVER,), wire.Keys, wire.bounded(wire.PLACE_BYTES + wire.ADVERT_BYTES)),
        SHARES: Step((SERVER,), wire.Shares, wire.bounded(2 * wire.PLACE_BYTES + SEALED_BYTES)),
        SURVIVORS: Step((SERVER,), wire.Survivors, _bits_bytes),
        SIGNATURES: Step(
            (SERVER,),
            wire.Signatures,
            lambda session: _bits_bytes(session) + SIGNATURE_BYTES * len(session.clients),
        ),
    }

    def _begin(self, secret: bytes) -> Advertised:
        (server,) = self.session.of_role(SERVER)
        fingerprint = self._fingerprint_vector(secret)
        return Advertised(secret, fingerprint, self._open_channel(server, secret))

    def _transition(self, state: State, received: Received) -> State:
        content = received.content
        match content:
            case wire.Keys():
                return self._share(self._expect(state, Advertised, KEYS), content)
            case wire.Shares():
                return self._upload(self._expect(state, Shared, SHARES), content)
            case wire.Survivors():
                return self._sign(self._expect(state, Uploaded, SURVIVORS), content)
            case wire.Signatures():
                return self._unmask(self._expect(state, Signed, SIGNATURES), content)
        raise AssertionError("a content of no step")

    @property
    def agreed(self) -> tuple[str, ...] | None:
        """The survivors, once this client has signed them."""
        if isinstance(self._state, Signed | Unmasked):
            return self.session.names(self._state.survivors)
        return None

    def _has_uploaded(self, state: State) -> bool:
        return isinstance(state, Uploaded | Signed | Unmasked)

    def _has_opened(self, state: State) -> bool:
        # Who has signed one set of survivors helps to open it, and no other.
        return isinstance(state, Signed | Unmasked)

    def _outbox(self, state: State) -> list[Message]:
        match state:
            case Advertised():
                return [self._seal(state.channel, ADVERTISE, self._advertise(state.secret))]
            case Shared():
                return [self._seal(state.channel, SHARE, self._sealed_shares(state))]
            case Uploaded():
                return [self._seal(state.channel, UPLOAD, self._masked(state))]
            case Signed():
                statement = wire_keys.survivors_statement(self.session, state.survivors)
                signature = self._enrolment.identity.sign(statement)
                return [self._seal(state.channel, SIGN, wire.Sign(signature))]
            case Unmasked():
                owners = wire.places(self.session, (owner for owner, _ in state.shares))
                opened = wire.Unmask(owners, b"".join(share for _, share in state.shares))
                return [self._seal(state.channel, UNMASK, opened)]
        return []

    def _news(self, before: State) -> list[Message]:
        return self.pending()

    # From the server's words to the next state: all checks are here.

    def _share(self, state: Advertised, content: wire.Keys) -> Shared:
        names = wire.names_at(self.session, content.clients, self.name, KEYS, but=self.name)
        if len(content.adverts) != len(names):
            raise Malformed("not one advert for each client", party=self.name, step=KEYS)
        keys = wire_keys.keyring(self.session, self.name, state.secret)
        own = {wire_keys.public_key(keys.mask_key), wire_keys.public_key(keys.share_key)}
        mask_key, share_key = (
            wire_keys.private_key(keys.mask_key),
            wire_keys.private_key(keys.share_key),
        )
        chosen = self._chosen(keys)
        neighbours = []
        for name, advert in zip(names, content.adverts, strict=True):
            try:
                wire_keys.check_advert(self.session, name, advert)
                if own & {advert.mask_key, advert.share_key}:
                    raise BadKey(f"'{name}' shows this client's own key")
                masked = wire_keys.agree(mask_key, advert.mask_key, name)
                agreed = wire_keys.agree(share_key, advert.share_key, name)
            except (BadSignature, BadKey) as error:
                raise BadSignature(
                    f"keys of '{name}': {error.what}",
                    party=self.name,
                    step=KEYS,
                    fix="the server or that client is hostile; form a new session",
                ) from None
            pair = sorted((self.name, name), key=self._place.__getitem__)
            mask = wire_keys.pair_mask(self.session, masked, *pair)
            holder = not self._parameters.clients_choose or self._place[name] in chosen
            neighbours.append(Neighbour(name, mask, agreed, holder))
        self._check_holders(neighbours, KEYS)
        return Shared(state.secret, state.fingerprint, state.channel, tuple(neighbours))

    def _upload(self, state: Shared, content: wire.Shares) -> Uploaded:
        known = {neighbour.name: neighbour for neighbour in state.neighbours}
        names = wire.names_at(self.session, content.clients, self.name, SHARES)
        owners = wire.names_at(self.session, content.owners, self.name, SHARES)
        if not set(owners) <= set(names) <= known.keys():
            raise Malformed("a share of one whose keys are unknown", party=self.name, step=SHARES)
        sealed = wire.parts(content.sealed, len(owners), SEALED_BYTES, self.name, SHARES)
        neighbours = tuple(known[name] for name in names)
        self._check_holders(neighbours, SHARES)
        held = tuple(
            Held(owner, known[owner].agreed, share)
            for owner, share in zip(owners, sealed, strict=True)
        )
        listed = {neighbour.name for neighbour in neighbours}
        withheld = tuple(name for name in known if name not in listed)
        return Uploaded(state.secret, state.fingerprint, state.channel, neighbours, withheld, held)

    def _sign(self, state: Uploaded, content: wire.Survivors) -> Signed:
        names = self.session.names(content.clients, party=self.name, step=SURVIVORS)
        if self.name not in names:
            raise self._inconsistent("the survivors leave out a client that they were shown to")
        self._check_set(names, SURVIVORS)
        masked = {neighbour.name for neighbour in state.neighbours} | {self.name}
        must = self._must_mask_with(state.secret) | set(state.withheld)
        if not must & set(names) <= masked:
            # Its mask with that one would be missing, and with it what keeps their sums together.
            raise self._inconsistent("a survivor that should have been masked with was withheld")
        return Signed(state.secret, state.channel, state.held, content.clients)

    def _unmask(self, state: Signed, content: wire.Signatures) -> Unmasked:
        statement = wire_keys.survivors_statement(self.session, state.survivors)
        quorum = self._parameters.quorum
        names = self.session.names(content.signers, party=self.name, step=SIGNATURES)
        if not set(names) <= self._survivors(state):
            raise Malformed("a signer that is no survivor", party=self.name, step=SIGNATURES)
        signatures = wire.parts(
            content.signatures, len(names), SIGNATURE_BYTES, self.name, SIGNATURES
        )
        signers = {self.name}
        for name, signature in zip(names, signatures, strict=True):
            if len(signers) >= quorum:
                break
            if name == self.name:
                continue
            try:
                self.session.line(name).verify(signature, statement)
            except BadSignature:
                raise self._inconsistent(f"'{name}' signed another set", SIGNATURES) from None
            signers.add(name)
        if len(signers) < quorum:
            raise self._inconsistent(f"{len(signers)} signatures, wanted {quorum}", SIGNATURES)
        return Unmasked(state.channel, self._shares_for(state), state.survivors)

    # What each state says

    def _advertise(self, secret: bytes) -> wire.Advertise:
        keys = wire_keys.keyring(self.session, self.name, secret)
        advert = wire_keys.sign_advert(self.session, self._enrolment.identity, keys)
        return wire.Advertise(advert, self._chosen(keys))

    def _sealed_shares(self, state: Shared) -> wire.Share:
        holders = {n.name: n.agreed for n in state.neighbours if n.holder}
        keys = wire_keys.keyring(self.session, self.name, state.secret)
        shares = wire_keys.split_secrets(self.session, keys, tuple(holders))
        sealed = (
            wire_keys.seal_share(self.session, agreed, self.name, name, shares[name])
            for name, agreed in holders.items()
        )
        return wire.Share(wire.places(self.session, holders), b"".join(sealed))

    def _masked(self, state: Uploaded) -> Streamed:
        keys = wire_keys.keyring(self.session, self.name, state.secret)
        masks = [Mask(wire_keys.self_mask(self.session, self.name, keys.self_mask_seed), False)]
        own = self._place[self.name]
        masks += [Mask(n.mask, self._place[n.name] < own) for n in state.neighbours]
        vector = self._contribution(state.secret, state.fingerprint)
        return self._streamed(wire.MaskedVector(b""), vector, MaskStream(masks).add_to)

    def _shares_for(self, state: Signed) -> tuple[tuple[str, bytes], ...]:
        survivors = self._survivors(state)
        shares = []
        for held in state.held:
            try:
                both = wire_keys.open_share(
                    self.session, held.agreed, held.owner, self.name, held.sealed
                )
            except BadSeal:
                continue  # its owner or the server spoilt it; the threshold is for that
            share = _either(both, survived=held.owner in survivors)
            if shamir.is_share(share):
                shares.append((held.owner, share))
        if self._parameters.complete:
            keys = wire_keys.keyring(self.session, self.name, state.secret)
            own = wire_keys.split_secrets(self.session, keys, (self.name,))[self.name]
            shares.append((self.name, _either(own, survived=True)))
        return tuple(sorted(shares, key=lambda share: self._place[share[0]]))

    def _survivors(self, state: Signed) -> set[str]:
        return set(self.session.names(state.survivors))

    # Checks

    def _expect(self, state: State, kind: type[_Kind], step: str) -> _Kind:
        if isinstance(state, kind):
            return state
        if isinstance(state, Aborted):
            raise UnexpectedStep("this client has given up", party=self.name, step=step)
        if _ORDER.index(type(state)) > _ORDER.index(kind):
            raise Replayed("this step has been answered", party=self.name, step=step)
        raise UnexpectedStep("too early", party=self.name, step=step)

    def _check_holders(self, neighbours: Sequence[Neighbour], step: str) -> None:
        parameters = self._parameters
        others = sum(neighbour.holder for neighbour in neighbours)
        if others > parameters.neighbours:
            # Among more holders than k there is room for two disjoint sets of threshold size.
            raise Malformed(
                f"{others} neighbours, allowed: ≤ {parameters.neighbours}",
                party=self.name,
                step=step,
            )
        holders = others + parameters.complete
        if holders < parameters.threshold:
            raise BelowThreshold(
                f"{holders} clients are left to hold this one's secrets, wanted "
                f"≥ {parameters.threshold}",
                party=self.name,
                step=step,
                fix="run again when more clients are there",
            )

    def _inconsistent(self, what: str, step: str = SURVIVORS) -> SessionAborted:
        return InconsistentSurvivors(
            what, party=self.name, step=step, fix="do not trust this server with another session"
        )

    # The graph, as this client knows it by itself

    def _chosen(self, keys: wire_keys.Keyring) -> tuple[int, ...]:
        if not self._parameters.clients_choose:
            return ()
        return draw_neighbours(
            keys.drawing_seed,
            len(self.session.clients),
            self._place[self.name],
            self._parameters.neighbours,
        )

    def _must_mask_with(self, secret: bytes) -> set[str]:
        """Return the clients that this client itself knows to be neighbours, if they survive."""
        if self._parameters.complete:
            return {*self.session.clients} - {self.name}
        chosen = self._chosen(wire_keys.keyring(self.session, self.name, secret))
        return {self.session.clients[place] for place in chosen}

    @cached_property
    def _parameters(self) -> Parameters:
        return wire.parameters_of(self.session)

    @property
    def _place(self) -> Mapping[str, int]:
        return self.session.places


def _either(share: bytes, *, survived: bool) -> bytes:
    """Choose a survivor's share of its self-mask seed, else of its mask key; never both."""
    half = len(share) // 2
    return share[:half] if survived else share[half:]
