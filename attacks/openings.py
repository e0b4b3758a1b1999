"""What a coalition's records open: every layer of protection that its own secrets take off.

For each protocol, from messages and saved states alone: what is left of each client's upload when
all masks are taken off whose keys the coalition has, and which exact sums that yields.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from attacks.view import View
from protocols import additive, ckks, pairwise_wire, plain, shamir
from protocols import pairwise_client as pairwise
from protocols.ckks_parameters import BFV, CKKS, find_parameters
from protocols.layout import Integers, Layout, RingVector
from protocols.masks import Mask, add_mask, add_masks
from protocols.pairwise_server import CollectingUploads, PairwiseServer
from protocols.seal import SEED_BYTES, KeyPair, Ring, from_entries
from protocols.session import CLIENT

_opened: "WeakKeyDictionary[View, Openings]" = WeakKeyDictionary()

# Enough for a test of uniformity; taking a ciphertext apart word by word is slow.
_SAMPLED_CHUNKS = 4


@dataclass(frozen=True, repr=False)
class Openings:
    """What a coalition makes of one session's uploads.

    Attributes:
        own: the vectors of the clients that belong to it, int64 of the layout's length.
        left: what is left of every upload that it saw, as bytes that are uniform while a mask is
            on them: packed ring vectors, seeds, or the low four bytes of ciphertexts' words.
        sums: exact sums over sets of clients.
    """

    own: dict[str, Integers] = field(default_factory=dict)
    left: dict[str, bytes] = field(default_factory=dict)
    sums: dict[frozenset[str], Integers] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Openings: {len(self.own)} own, {len(self.left)} uploads, {len(self.sums)} sums>"


def openings(view: View) -> Openings:
    """All of it, for any of the project's protocols; nothing for others.

    Opening ciphertexts takes seconds: it is done once for a view, and kept as long as the view is.
    """
    if view not in _opened:
        opens = _OPENS.get(view.session.protocol)
        _opened[view] = Openings() if opens is None else opens(view)
    return _opened[view]


def centred(layout: Layout, vector: RingVector) -> Integers:
    """The integers that a sum over some of the clients stands for.

    A part of a sum lies within the sum's own bounds widened to hold 0.
    """
    blocks = (
        msgspec.structs.replace(block, low=min(block.low, 0), high=max(block.high, 0))
        for block in layout.blocks
    )
    widened = Layout(tuple(blocks))
    # Wider bounds may ask for a wider ring, in which residues of the narrow one are no sums.
    if widened.ring_bits != layout.ring_bits:
        return layout.decode(vector)
    return widened.decode(vector)


def _colluders(view: View) -> list[str]:
    return [name for name in view.records if view.session.member(name).role == CLIENT]


def _coordinators(view: View, role: str) -> list[str]:
    return [name for name in view.session.of_role(role) if name in view.records]


# plain: the server reads what it is sent.


def _open_plain(view: View) -> Openings:
    layout = view.session.layout
    found = Openings()
    for name in _colluders(view):
        state = view.held(name, plain.PlainClient, plain.Uploading)
        if state is not None:
            said = view.said(name, plain.UPLOAD, plain.Upload, [state.channel])
            for upload in said.values():
                found.own[name] = centred(layout, layout.unpack(upload.vector))
    for server in _coordinators(view, plain.SERVER):
        for name, upload in view.contents(server, plain.UPLOAD, plain.Upload).items():
            found.left[name] = upload.vector
            found.sums[frozenset({name})] = centred(layout, layout.unpack(upload.vector))
    return found


# additive: the first aggregator has the vector less all masks, each other the seed of one.


def _open_additive(view: View) -> Openings:
    session, layout = view.session, view.session.layout
    found = Openings()
    for name in _colluders(view):
        state = view.held(name, additive.AdditiveClient, additive.Uploading)
        if state is not None:
            said = view.said(name, additive.UPLOAD, additive.Share, state.channels)
            if len(said) == len(state.channels):
                found.own[name] = centred(layout, _add_shares(view, name, said))
    aggregators = session.of_role(additive.AGGREGATOR)
    shares: dict[str, dict[str, additive.Share]] = {}
    for aggregator in _coordinators(view, additive.AGGREGATOR):
        contents = view.contents(aggregator, additive.UPLOAD, additive.Share)
        for name, share in contents.items():
            shares.setdefault(name, {})[aggregator] = share
    for name, by_aggregator in shares.items():
        if aggregators[0] not in by_aggregator:
            found.left[name] = b"".join(share.seed for share in by_aggregator.values())
            continue
        vector = _add_shares(view, name, by_aggregator)
        found.left[name] = layout.pack(vector)
        if len(by_aggregator) == len(aggregators):
            found.sums[frozenset({name})] = centred(layout, vector)
    return found


def _add_shares(view: View, client: str, shares: dict[str, additive.Share]) -> RingVector:
    layout = view.session.layout
    vector = layout.zeros()
    for aggregator, share in shares.items():
        if share.vector:
            vector += layout.unpack(share.vector)
        else:
            key = additive.mask_key(view.session, share.seed, client, aggregator)
            add_mask(vector, key)
    return vector


# pairwise: every mask has a key, and the unmasking gives some of them to the server.


def _open_pairwise(view: View) -> Openings:
    layout = view.session.layout
    found = Openings()
    states: dict[str, pairwise.Uploaded] = {}
    for name in _colluders(view):
        state = view.held(name, pairwise.PairwiseClient, pairwise.Uploaded)
        if state is None:
            continue
        states[name] = state
        said = view.said(name, pairwise_wire.UPLOAD, pairwise_wire.Upload, [state.channel])
        for upload in said.values():
            vector = layout.unpack(upload.vector).copy()
            keys = pairwise_wire.keyring(view.session, name, state.secret)
            own = pairwise_wire.self_mask(view.session, name, keys.self_mask_seed)
            masks = [Mask(own, negative=True)]
            masks += [
                _pair_mask_off(view, name, other.name, other.mask) for other in state.neighbours
            ]
            add_masks(vector, masks)
            found.own[name] = centred(layout, vector)
    for server in _coordinators(view, pairwise_wire.SERVER):
        _open_pairwise_server(view, server, states, found)
    return found


def _open_pairwise_server(
    view: View, server: str, colluders: dict[str, pairwise.Uploaded], found: Openings
) -> None:
    session, layout = view.session, view.session.layout
    state = view.held(server, PairwiseServer, CollectingUploads)
    if state is None:
        return
    uploads = view.contents(server, pairwise_wire.UPLOAD, pairwise_wire.Upload)
    adverts = {node.advert.name: node.advert for node in state.nodes}
    opened = _opened_secrets(view, server, adverts)
    maskers: dict[str, set[str]] = {name: set() for name in adverts}
    for node in state.nodes:
        for holder in maskers.keys() & set(node.holders):
            maskers[node.advert.name].add(holder)
            maskers[holder].add(node.advert.name)
    honest = [name for name in uploads if name not in colluders]
    left: dict[str, RingVector] = {}
    edges: list[tuple[int, int]] = []
    bare = set()
    for name in honest:
        masks = []
        if name in opened:
            key = pairwise_wire.self_mask(session, name, opened[name])
            masks.append(Mask(key, negative=True))
            bare.add(name)
        for other in maskers[name]:
            known = None
            if other in colluders:
                pairs = {
                    neighbour.name: neighbour.mask for neighbour in colluders[other].neighbours
                }
                known = pairs.get(name)
            elif other in opened and other not in uploads:
                private = pairwise_wire.private_key(opened[other])
                agreed = pairwise_wire.agree(private, adverts[name].mask_key, name)
                pair = sorted((name, other), key=pairwise_wire.indices(session).__getitem__)
                known = pairwise_wire.pair_mask(session, agreed, *pair)
            if known is not None:
                masks.append(_pair_mask_off(view, name, other, known))
            elif other in honest:
                edges.append((honest.index(name), honest.index(other)))
            else:
                bare.discard(name)
        left[name] = layout.unpack(uploads[name].vector).copy()
        add_masks(left[name], masks)
        found.left[name] = layout.pack(left[name])
    # Masks between honest clients cancel in the sum over each part that they hold together.
    for part in _parts(len(honest), edges):
        names = frozenset(honest[index] for index in part)
        if names <= bare:
            total = layout.zeros()
            for name in names:
                total += left[name]
            found.sums[names] = centred(layout, total)


def _opened_secrets(
    view: View, server: str, adverts: dict[str, pairwise_wire.Advert]
) -> dict[str, bytes]:
    """By client what its holders opened: its self-mask seed, or its mask key if it vanished."""
    session = view.session
    place = pairwise_wire.indices(session)
    threshold = pairwise_wire.parameters_of(session).threshold
    shares: dict[str, dict[int, bytes]] = {}
    answers = view.contents(server, pairwise_wire.UNMASK, pairwise_wire.Unmask)
    for holder, answer in answers.items():
        for owner, share in answer.shares:
            if len(shares.setdefault(owner, {})) < threshold:
                shares[owner][place[holder] + 1] = share
    opened = {}
    for owner, held in shares.items():
        if len(held) < threshold or owner not in adverts:
            continue
        secret = shamir.combine(held)
        committed = pairwise_wire.commitment(session, owner, secret) == adverts[owner].commitment
        if committed or pairwise_wire.public_key(secret) == adverts[owner].mask_key:
            opened[owner] = secret
    return opened


def _pair_mask_off(view: View, name: str, other: str, key: bytes) -> Mask:
    """What takes the mask with `other` off the upload of `name`: the first on the roster adds."""
    place = pairwise_wire.indices(view.session)
    return Mask(key, negative=place[name] < place[other])


def _parts(count: int, edges: list[tuple[int, int]]) -> list[list[int]]:
    if count == 0:
        return []
    rows, columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    parts, label = connected_components(graph, directed=False)
    return [np.flatnonzero(label == part).tolist() for part in range(parts)]


# ckks, bfv: the key holder's secret makes the session's keys again; a client's, its encryptions.


def _open_encrypted(view: View) -> Openings:
    session = view.session
    found = Openings()
    parameters = find_parameters(session.layout, len(session.clients), session.protocol)
    ring = Ring(parameters)
    for name in _colluders(view):
        state = view.held(name, ckks.EncryptingClient, ckks.Uploading)
        if state is not None:
            said = view.said(name, ckks.UPLOAD, ckks.Ciphertexts, [state.server])
            for upload in said.values():
                chunks = _without_zeros(view, ring, name, state, upload.chunks)
                found.own[name] = _decrypted(view, ring, _own_keys(ring), chunks)
    for server in _coordinators(view, ckks.SERVER):
        keys = _session_keys(view, ring)
        for name, upload in view.contents(server, ckks.UPLOAD, ckks.Ciphertexts).items():
            if keys is None:
                found.left[name] = _low_bytes(ring, upload.chunks[:_SAMPLED_CHUNKS])
                continue
            chunks = map(ring.load, upload.chunks)
            vector = _decrypted(view, ring, keys, chunks)
            found.left[name] = session.layout.pack(session.layout.embed(vector))
            found.sums[frozenset({name})] = vector
    return found


def _session_keys(view: View, ring: Ring) -> KeyPair | None:
    for holder in _coordinators(view, ckks.KEY_HOLDER):
        state = view.held(holder, ckks.KeyHolder, ckks.Vouching)
        if state is not None:
            return ckks.session_keys(view.session, ring, state.secret, holder)
    return None


def _decrypted(view: View, ring: Ring, keys: KeyPair, chunks: Iterable[Any]) -> Integers:
    layout = view.session.layout
    slots = np.concatenate([ring.decrypt(keys.secret_key, chunk) for chunk in chunks])
    entries = np.rint(slots[: layout.length * ring.parameters.limbs]).astype(np.int64)
    return centred(layout, from_entries(ring.parameters, layout, entries))


def _own_keys(ring: Ring) -> KeyPair:
    """Any key pair will do to read what is no longer encrypted."""
    return KeyPair(ring, bytes(SEED_BYTES), bytes(SEED_BYTES))


def _without_zeros(
    view: View, ring: Ring, client: str, state: ckks.Uploading, chunks: Iterable[bytes]
) -> Iterable[Any]:
    """A client's ciphertexts less the encryptions of zero under their seeds: the plaintexts.

    SEAL refuses what is not encrypted, so that an encryption under keys of one's own goes on top.
    """
    seed = ckks.encryption_seed(view.session, state.secret, client)
    public_key, own = ring.load_public_key(state.public_key), _own_keys(ring).public_key
    for index, chunk in enumerate(chunks):
        ciphertext = ring.load(chunk)
        ring.add(ciphertext, ring.encrypt(own, bytes(SEED_BYTES)))
        zero = ring.encrypt(public_key, ckks.chunk_seed(view.session, seed, client, index))
        ring.evaluator.sub_inplace(ciphertext, zero)
        yield ciphertext


def _low_bytes(ring: Ring, chunks: Iterable[bytes]) -> bytes:
    """The words' low four bytes: of words modulo a prime of 54 bits or more they are uniform."""
    low = []
    for chunk in chunks:
        ciphertext = ring.load(chunk)
        words = [ciphertext[index] for index in range(2 * ring.parameters.degree)]
        low.append((np.array(words, dtype=np.uint64) & np.uint64(2**32 - 1)).astype("<u4"))
    return b"".join(part.tobytes() for part in low)


_OPENS: dict[str, Callable[[View], Openings]] = {
    plain.Plain.name: _open_plain,
    additive.Additive.name: _open_additive,
    pairwise_wire.NAME: _open_pairwise,
    CKKS: _open_encrypted,
    BFV: _open_encrypted,
}
