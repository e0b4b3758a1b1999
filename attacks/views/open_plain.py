"""What a coalition's records open under `plain`: the server reads what it is sent."""

from attacks.views.opened import Openings, centred, colluders, coordinators, opens
from attacks.views.view import View
from protocols.schemes import plain


@opens(plain.Plain.name)
def open_plain(view: View) -> Openings:
    """Open a view of a session under this scheme."""
    layout = view.session.layout
    found = Openings()
    for name in colluders(view):
        state = view.held(name, plain.PlainClient, plain.Uploading)
        if state is not None:
            said = view.said(name, plain.UPLOAD, plain.ClearVector, [state.channel])
            for upload in said.values():
                found.own[name] = centred(layout, layout.unpack(upload.vector))
    for server in coordinators(view, plain.SERVER):
        for name, upload in view.contents(server, plain.UPLOAD, plain.ClearVector).items():
            found.left[name] = upload.vector
            found.sums[frozenset({name})] = centred(layout, layout.unpack(upload.vector))
    return found
