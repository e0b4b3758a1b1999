"""What an adversary gets out of what it really saw.

An attack takes a `View`, cut from a network's transcript, and returns what it found. Those that lie
say how in a `Lie`, which `stage` tells in a session of real parties.
"""

from attacks.encryption.lies import Lie, Staged, stage
from attacks.views.view import View

__all__ = ["Lie", "Staged", "View", "stage"]
