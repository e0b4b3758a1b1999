"""What a coalition's records open under `pairwise`.

Every mask has a key, and the unmasking gives some of them to the server.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from attacks.views.opened import Openings, centred, colluders, coordinators, opens
from attacks.views.view import View
from protocols.layout import RingVector
from protocols.primitives import shamir
from protocols.primitives.masks import Mask, add_masks
from protocols.schemes.pairwise import client as pairwise
from protocols.schemes.pairwise import keys as pairwise_wire_keys
from protocols.schemes.pairwise import messages as pairwise_wire
from protocols.schemes.pairwise.server import CollectingUploads, PairwiseServer


@opens(pairwise_wire.NAME)
def open_pairwise(view: View) -> Openings:
    """Open a view of a session under this scheme."""
    layout = view.session.layout
    found = Openings()
    states: dict[str, pairwise.Uploaded] = {}
    for name in colluders(view):
        state = view.held(name, pairwise.PairwiseClient, pairwise.Uploaded)
        if state is None:
            continue
        states[name] = state
        said = view.said(name, pairwise_wire.UPLOAD, pairwise_wire.MaskedVector, [state.channel])
        for upload in said.values():
            vector = layout.unpack(upload.vector).copy()
            keys = pairwise_wire_keys.keyring(view.session, name, state.secret)
            own = pairwise_wire_keys.self_mask(view.session, name, keys.self_mask_seed)
            masks = [Mask(own, negative=True)]
            masks += [
                _pair_mask_off(view, name, other.name, other.mask) for other in state.neighbours
            ]
            add_masks(vector, masks)
            found.own[name] = centred(layout, vector)
    for server in coordinators(view, pairwise_wire.SERVER):
        _open_pairwise_server(view, server, states, found)
    found.told = _told(view)
    return found


def _told(view: View) -> frozenset[str] | None:
    """Return who is in the sum, as the server told the coalition's clients."""
    for name in view.records:
        told = view.contents(name, pairwise_wire.SURVIVORS, pairwise_wire.Survivors)
        for survivors in told.values():
            return frozenset(view.session.names(survivors.clients))
    return None


def _open_pairwise_server(
    view: View, server: str, states: dict[str, pairwise.Uploaded], found: Openings
) -> None:
    session, layout = view.session, view.session.layout
    state = view.held(server, PairwiseServer, CollectingUploads)
    if state is None:
        return
    uploads = view.contents(server, pairwise_wire.UPLOAD, pairwise_wire.MaskedVector)
    adverts = {node.name: node.advert for node in state.nodes}
    opened = _opened_secrets(view, server, adverts)
    maskers: dict[str, set[str]] = {name: set() for name in adverts}
    for node in state.nodes:
        for holder in maskers.keys() & set(node.holders):
            maskers[node.name].add(holder)
            maskers[holder].add(node.name)
    honest = [name for name in uploads if name not in states]
    left: dict[str, RingVector] = {}
    edges: list[tuple[int, int]] = []
    bare = set()
    for name in honest:
        masks = []
        if name in opened:
            key = pairwise_wire_keys.self_mask(session, name, opened[name])
            masks.append(Mask(key, negative=True))
            bare.add(name)
        for other in maskers[name]:
            known = None
            if other in states:
                pairs = {neighbour.name: neighbour.mask for neighbour in states[other].neighbours}
                known = pairs.get(name)
            elif other in opened and other not in uploads:
                private = pairwise_wire_keys.private_key(opened[other])
                agreed = pairwise_wire_keys.agree(private, adverts[name].mask_key, name)
                pair = sorted((name, other), key=session.places.__getitem__)
                known = pairwise_wire_keys.pair_mask(session, agreed, *pair)
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
    """Return by client the secret that its holders opened.

    It is the client's self-mask seed, or its mask key if it vanished.
    """
    session = view.session
    threshold = pairwise_wire.parameters_of(session).threshold
    shares: dict[str, dict[int, bytes]] = {}
    answers = view.contents(server, pairwise_wire.UNMASK, pairwise_wire.Unmask)
    for holder, answer in answers.items():
        owners = [session.clients[place] for place in answer.owners]
        size = shamir.SHARE_BYTES
        opened_shares = pairwise_wire.parts(answer.shares, len(owners), size, server, "unmask")
        for owner, share in zip(owners, opened_shares, strict=True):
            if len(shares.setdefault(owner, {})) < threshold:
                shares[owner][session.places[holder] + 1] = share
    opened = {}
    for owner, held in shares.items():
        if len(held) < threshold or owner not in adverts:
            continue
        secret = shamir.combine(held)
        committed = (
            pairwise_wire_keys.commitment(session, owner, secret) == adverts[owner].commitment
        )
        if committed or pairwise_wire_keys.public_key(secret) == adverts[owner].mask_key:
            opened[owner] = secret
    return opened


def _pair_mask_off(view: View, name: str, other: str, key: bytes) -> Mask:
    """Make the mask that takes the mask with `other` off an upload.

    The first on the roster adds.
    """
    place = view.session.places
    return Mask(key, negative=place[name] < place[other])


def _parts(count: int, edges: list[tuple[int, int]]) -> list[list[int]]:
    if count == 0:
        return []
    rows, columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    parts, label = connected_components(graph, directed=False)
    return [np.flatnonzero(label == part).tolist() for part in range(parts)]
