"""The key holder of a naive deployment, which decrypts what it is given and publishes the result.

It differs from `KeyHolder` without verification in one thing: it refuses nothing.
"""

import numpy as np

from protocols.layout import Decoded
from protocols.schemes.encrypted.key_holder import KeyHolder
from protocols.schemes.encrypted.seal import Slots


class NaiveKeyHolder(KeyHolder):
    """Rounds and releases.

    Attributes:
        published: the decrypted sum before rounding, for those deployments that publish that.
    """

    published: Slots

    def _decode(self, slots: Slots) -> Decoded:
        self.published = slots
        return Decoded(np.rint(slots).astype(np.int64), ())
