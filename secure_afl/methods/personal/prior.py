"""The global model with the client's own class shares."""

from dataclasses import replace

import numpy as np

from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.methods.method import Own
from secure_afl.methods.personal.personal import PERSONAL, Personal

# Rows that the shares of all clients count for beside the client's own.
_SMOOTHING = 0.5
# Ridge's scores are near 0 and 1, not log-odds: what a nat is worth there, and the least logarithm.
# From label-skewed parts of CIFAR-10.
_RIDGE_NAT, _RIDGE_FLOOR = 0.1, -6.0


@PERSONAL.register
class OwnPrior(Personal):
    """Bayes' rule for a client whose classes are other than everybody's.

    The prior becomes (n_kc + a·π_c)/(n_k + a), a = ½, with the client's counts n_k and the shares π
    of all. A head without a prior gains 0.1·max(log of it, −6) instead.
    """

    name = "prior"
    summary = "the global model with the client's own class shares"
    candidate = True

    def make(self, data: ClientData, kept: ClientData | None) -> Own:
        """Count the client's labels and exchange the prior."""
        model = self.model
        classes = len(self.task.classes)
        shares = np.full(classes, 1 / classes) if model.observed is None else model.observed
        counts = np.bincount(data.labels, minlength=classes)
        own: Floats = (counts + _SMOOTHING * shares) / (counts.sum() + _SMOOTHING)
        if model.prior is not None:
            return self.own(model.with_prior(own))
        with np.errstate(divide="ignore"):
            gain = _RIDGE_NAT * np.maximum(np.log(own), _RIDGE_FLOOR)
        offset = np.zeros(classes) if model.offset is None else model.offset
        return self.own(replace(model, offset=offset - gain))
