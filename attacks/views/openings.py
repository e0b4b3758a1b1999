"""What a coalition's records open: every layer of protection that its own secrets take off.

For each protocol, from messages and saved states alone: what is left of each client's upload when
all masks are taken off whose keys the coalition has, and which exact sums that yields.
"""

from collections.abc import Callable
from weakref import WeakKeyDictionary

from attacks.views.open_additive import _open_additive
from attacks.views.open_encrypted import _open_encrypted
from attacks.views.open_pairwise import _open_pairwise
from attacks.views.open_plain import _open_plain
from attacks.views.opened import Openings
from attacks.views.view import View
from protocols.schemes import plain
from protocols.schemes.additive import protocol as additive
from protocols.schemes.encrypted.parameters import BFV, CKKS
from protocols.schemes.pairwise import messages as pairwise_wire

_opened: "WeakKeyDictionary[View, Openings]" = WeakKeyDictionary()


def openings(view: View) -> Openings:
    """All of it, for any of the project's protocols; nothing for others.

    Opening ciphertexts takes seconds: it is done once for a view, and kept as long as the view is.
    """
    if view not in _opened:
        opens = _OPENS.get(view.session.protocol)
        _opened[view] = Openings() if opens is None else opens(view)
    return _opened[view]


# plain: the server reads what it is sent.


# additive: the first aggregator has the vector less all masks, each other the seed of one.


# pairwise: every mask has a key, and the unmasking gives some of them to the server.


# ckks, bfv: the key holder's secret makes the session's keys again; a client's, its encryptions.


_OPENS: dict[str, Callable[[View], Openings]] = {
    plain.Plain.name: _open_plain,
    additive.Additive.name: _open_additive,
    pairwise_wire.NAME: _open_pairwise,
    CKKS: _open_encrypted,
    BFV: _open_encrypted,
}
