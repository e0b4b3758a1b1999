"""What a coalition's records open: every layer of protection that its own secrets take off.

From messages and saved states alone: what is left of each client's upload when all masks are taken
off whose keys the coalition has, and which exact sums that yields. Each module `open_<scheme>` in
this room opens the views of one scheme.
"""

import importlib
import pkgutil
from functools import cache
from weakref import WeakKeyDictionary

import attacks.views
from attacks.views.opened import OPENERS, Openings
from attacks.views.view import View

_opened: "WeakKeyDictionary[View, Openings]" = WeakKeyDictionary()


def openings(view: View) -> Openings:
    """Open all that a view's records open; nothing under protocols that have no opener.

    Opening ciphertexts takes seconds: it is done once for a view, and kept as long as the view is.
    """
    _load_openers()
    if view not in _opened:
        opener = OPENERS.get(view.session.protocol)
        _opened[view] = Openings() if opener is None else opener(view)
    return _opened[view]


def can_open(protocol: str) -> bool:
    """Say whether views of sessions under a protocol are opened at all."""
    _load_openers()
    return protocol in OPENERS


@cache
def _load_openers() -> None:
    for module in pkgutil.iter_modules(attacks.views.__path__):
        if module.name.startswith("open_"):
            importlib.import_module(f"attacks.views.{module.name}")
