"""What a coalition's records open under `plain`: the server reads what it is sent."""

from attacks.views.opened import Openings, _colluders, _coordinators, centred
from attacks.views.view import View
from protocols.schemes import plain


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
