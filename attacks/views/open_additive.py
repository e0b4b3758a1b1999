"""What a coalition's records open under `additive`.

The collector has the vector less all masks, each other the seed of one.
"""

from attacks.views.opened import Openings, centred, colluders, opens
from attacks.views.view import View
from protocols.layout import RingVector
from protocols.primitives.masks import add_mask
from protocols.schemes.additive import client as additive_client
from protocols.schemes.additive import messages as additive_messages


@opens("additive")
def open_additive(view: View) -> Openings:
    """Open a view of a session under this scheme."""
    session, layout = view.session, view.session.layout
    found = Openings()
    for name in colluders(view):
        state = view.held(name, additive_client.AdditiveClient, additive_client.Uploading)
        if state is not None:
            said = view.said(
                name, additive_messages.UPLOAD, additive_messages.Share, state.channels
            )
            if len(said) == len(state.channels):
                found.own[name] = centred(layout, _add_shares(view, name, said))
    aggregators = additive_messages.aggregators(session)
    shares: dict[str, dict[str, additive_messages.Share]] = {}
    for aggregator in [name for name in aggregators if name in view.records]:
        contents = view.contents(aggregator, additive_messages.UPLOAD, additive_messages.Share)
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


def _add_shares(view: View, client: str, shares: dict[str, additive_messages.Share]) -> RingVector:
    layout = view.session.layout
    vector = layout.zeros()
    for aggregator, share in shares.items():
        if share.vector:
            vector += layout.unpack(share.vector)
        else:
            key = additive_messages.mask_key(view.session, share.seed, client, aggregator)
            add_mask(vector, key)
    return vector
