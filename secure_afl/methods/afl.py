"""AFL: a classifier of all clients' rows, from one sum (He et al., CVPR 2025)."""

from secure_afl.methods.method import METHODS
from secure_afl.methods.summed import Summed


@METHODS.register
class AFL(Summed, frozen=True, tag="afl"):
    """Analytic federated learning: a head of (ΣG, ΣQ, Σn); with `ridge`, W = (ΣG + λI)⁻¹ΣQ.

    The paper's clients upload `C_k = G_k + γI` and `W_k = C_k⁻¹Q_k`, which their server joins by a
    pairwise law and then frees from the excess Kγ; the result equals the ridge solution from the
    summed `(G, Q)` used here, in which γ does not occur.
    """

    name = "afl"
    summary = "one model for all"
    auditable = True
