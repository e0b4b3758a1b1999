"""The client of `additive`: shares its vector among the aggregators, and speaks once."""

from protocols.message import Channel, Message, derive
from protocols.party import Aborted, Fresh, Party, State
from protocols.primitives.masks import Mask, MaskStream
from protocols.roster import CLIENT
from protocols.schemes.additive.messages import UPLOAD, Share, aggregators, mask_key


class Uploading(State, frozen=True):
    """The client has begun; all that it ever says follows from its secret."""

    secret: bytes
    fingerprint: bytes
    channels: tuple[Channel, ...]


class AdditiveClient(Party):
    """Splits, seals and sends at the start; answers nothing."""

    role = CLIENT
    states = Fresh | Uploading | Aborted

    def _begin(self, secret: bytes) -> Uploading:
        fingerprint = self._fingerprint_vector(secret)
        receivers = aggregators(self.session)
        channels = tuple(self._open_channel(name, secret) for name in receivers)
        return Uploading(secret, fingerprint, channels)

    def _has_opened(self, state: State) -> bool:
        return self._has_uploaded(state)

    def _outbox(self, state: State) -> list[Message]:
        if not isinstance(state, Uploading):
            return []
        first, *others = state.channels
        vector = self._contribution(state.secret, state.fingerprint)
        masks, shares = [], []
        for channel in others:
            seed = derive(state.secret, self.session.id, "share", self.name, channel.recipient)
            key = mask_key(self.session, seed, self.name, channel.recipient)
            masks.append(Mask(key, negative=True))
            shares.append((channel, Share(b"", seed)))
        rest = self._streamed(Share(b"", b""), vector, MaskStream(masks).add_to)
        return self._seal_together(UPLOAD, [(first, rest), *shares])
