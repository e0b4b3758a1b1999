"""The client of pairwise masking: believes nothing that it can check itself."""

from collections.abc import Sequence
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
from protocols.message import Channel, Message
from protocols.party import Aborted, Fresh, Party, Received, State, Step
from protocols.primitives import shamir
from protocols.primitives.masks import Mask, add_masks
from protocols.schemes.pairwise import keys as wire_keys
from protocols.schemes.pairwise import messages as wire
from protocols.schemes.pairwise.graph import draw_neighbours
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
)
from protocols.schemes.pairwise.parameters import Parameters
from protocols.session import CLIENT

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
    """The state of a client that will never open others than these survivors."""

    secret: bytes
    channel: Channel
    held: tuple[Held, ...]
    survivors: tuple[str, ...]


class Unmasked(State, frozen=True):
    """The shares are out; nothing else of the session is kept."""

    channel: Channel
    shares: tuple[tuple[str, bytes], ...]


_ORDER = (Fresh, Advertised, Shared, Uploaded, Signed, Unmasked)


class PairwiseClient(Party):
    """The client that answers each step once, and only if the answer is safe."""

    role = CLIENT
    states = Fresh | Advertised | Shared | Uploaded | Signed | Unmasked | Aborted
    steps: ClassVar[dict[str, Step]] = {
        KEYS: Step(SERVER, wire.Keys),
        SHARES: Step(SERVER, wire.Shares),
        SURVIVORS: Step(SERVER, wire.Survivors),
        SIGNATURES: Step(SERVER, wire.Signatures),
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
                return [self._seal(state.channel, UNMASK, wire.Unmask(state.shares))]
        return []

    def _news(self, before: State) -> list[Message]:
        return self.pending()

    # From the server's words to the next state: all checks are here.

    def _share(self, state: Advertised, content: wire.Keys) -> Shared:
        adverts = content.adverts
        self._check_names([advert.name for advert in adverts], KEYS)
        keys = wire_keys.keyring(self.session, self.name, state.secret)
        own = {wire_keys.public_key(keys.mask_key), wire_keys.public_key(keys.share_key)}
        mask_key, share_key = (
            wire_keys.private_key(keys.mask_key),
            wire_keys.private_key(keys.share_key),
        )
        chosen = self._chosen(keys)
        neighbours = []
        for advert in adverts:
            try:
                wire_keys.check_advert(self.session, advert)
                if own & {advert.mask_key, advert.share_key}:
                    raise BadKey(f"'{advert.name}' shows this client's own key")
                masked = wire_keys.agree(mask_key, advert.mask_key, advert.name)
                agreed = wire_keys.agree(share_key, advert.share_key, advert.name)
            except (BadSignature, BadKey) as error:
                raise BadSignature(
                    f"keys of '{advert.name}': {error.what}",
                    party=self.name,
                    step=KEYS,
                    fix="the server or that client is hostile; form a new session",
                ) from None
            place = self._place[advert.name]
            pair = sorted((self.name, advert.name), key=self._place.__getitem__)
            mask = wire_keys.pair_mask(self.session, masked, *pair)
            holder = not self._parameters.clients_choose or place in chosen
            neighbours.append(Neighbour(advert.name, mask, agreed, holder))
        self._check_holders(neighbours, KEYS)
        return Shared(state.secret, state.fingerprint, state.channel, tuple(neighbours))

    def _upload(self, state: Shared, content: wire.Shares) -> Uploaded:
        known = {neighbour.name: neighbour for neighbour in state.neighbours}
        self._check_names([name for name, _ in content.sealed], SHARES)
        if any(name not in known for name, _ in content.sealed):
            raise Malformed("a share of one whose keys are unknown", party=self.name, step=SHARES)
        neighbours = tuple(known[name] for name, _ in content.sealed)
        self._check_holders(neighbours, SHARES)
        held = tuple(
            Held(name, known[name].agreed, sealed) for name, sealed in content.sealed if sealed
        )
        listed = {neighbour.name for neighbour in neighbours}
        withheld = tuple(name for name in known if name not in listed)
        return Uploaded(state.secret, state.fingerprint, state.channel, neighbours, withheld, held)

    def _sign(self, state: Uploaded, content: wire.Survivors) -> Signed:
        names = content.names
        self._check_names(names, SURVIVORS, own=True)
        if self.name not in names:
            raise self._inconsistent("the survivors leave out a client that they were shown to")
        if len(names) < self.session.min_cohort:
            raise BelowThreshold(
                f"{len(names)} survivors, wanted ≥ {self.session.min_cohort}",
                party=self.name,
                step=SURVIVORS,
                fix="run again with more clients, or a smaller minimum cohort",
            )
        masked = {neighbour.name for neighbour in state.neighbours} | {self.name}
        must = self._must_mask_with(state.secret) | set(state.withheld)
        if not must & set(names) <= masked:
            # Its mask with that one would be missing, and with it what keeps their sums together.
            raise self._inconsistent("a survivor that should have been masked with was withheld")
        return Signed(state.secret, state.channel, state.held, names)

    def _unmask(self, state: Signed, content: wire.Signatures) -> Unmasked:
        statement = wire_keys.survivors_statement(self.session, state.survivors)
        survivors = set(state.survivors)
        quorum = self._parameters.quorum
        signers = {self.name}
        for name, signature in content.signatures:
            if len(signers) >= quorum:
                break
            if name == self.name:
                continue
            if name not in survivors or name in signers:
                raise Malformed("a signer twice, or none", party=self.name, step=SIGNATURES)
            try:
                self.session.member(name).verify(signature, statement)
            except BadSignature:
                raise self._inconsistent(f"'{name}' signed another set", SIGNATURES) from None
            signers.add(name)
        if len(signers) < quorum:
            raise self._inconsistent(f"{len(signers)} signatures, wanted {quorum}", SIGNATURES)
        return Unmasked(state.channel, self._shares_for(state))

    # What each state says

    def _advertise(self, secret: bytes) -> wire.Advertise:
        keys = wire_keys.keyring(self.session, self.name, secret)
        advert = wire_keys.sign_advert(self.session, self._enrolment.identity, keys)
        return wire.Advertise(advert, self._chosen(keys))

    def _sealed_shares(self, state: Shared) -> wire.Share:
        holders = {n.name: n.agreed for n in state.neighbours if n.holder}
        keys = wire_keys.keyring(self.session, self.name, state.secret)
        shares = wire_keys.split_secrets(self.session, keys, tuple(holders))
        return wire.Share(
            tuple(
                (name, wire_keys.seal_share(self.session, agreed, self.name, name, shares[name]))
                for name, agreed in holders.items()
            )
        )

    def _masked(self, state: Uploaded) -> wire.MaskedVector:
        keys = wire_keys.keyring(self.session, self.name, state.secret)
        masks = [Mask(wire_keys.self_mask(self.session, self.name, keys.self_mask_seed), False)]
        own = self._place[self.name]
        masks += [Mask(n.mask, self._place[n.name] < own) for n in state.neighbours]
        layout = self.session.layout
        vector = layout.embed(self._contribution(state.secret, state.fingerprint))
        add_masks(vector, masks)
        return wire.MaskedVector(layout.pack(vector))

    def _shares_for(self, state: Signed) -> tuple[tuple[str, bytes], ...]:
        survivors = set(state.survivors)
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
        return tuple(shares)

    # Checks

    def _expect(self, state: State, kind: type[_Kind], step: str) -> _Kind:
        if isinstance(state, kind):
            return state
        if isinstance(state, Aborted):
            raise UnexpectedStep("this client has given up", party=self.name, step=step)
        if _ORDER.index(type(state)) > _ORDER.index(kind):
            raise Replayed("this step has been answered", party=self.name, step=step)
        raise UnexpectedStep("too early", party=self.name, step=step)

    def _check_names(self, names: Sequence[str], step: str, *, own: bool = False) -> None:
        """Check that the names are clients of the roster, in its order, none twice.

        This client is among them only where it may be.
        """
        places = [self._place.get(name, -1) for name in names]
        if -1 in places or places != sorted(set(places)) or (self.name in names and not own):
            raise Malformed("names out of order, or not of clients", party=self.name, step=step)

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

    @cached_property
    def _place(self) -> dict[str, int]:
        return wire.indices(self.session)


def _either(share: bytes, *, survived: bool) -> bytes:
    """Choose a survivor's share of its self-mask seed, else of its mask key; never both."""
    half = len(share) // 2
    return share[:half] if survived else share[half:]
