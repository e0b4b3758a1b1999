"""FedHiP's joint reading: everybody's rows, and the client's own once more."""

from secure_afl.analytic.heads.ridge import Ridge
from secure_afl.analytic.private_ridge import raise_eigenvalues
from secure_afl.analytic.ridge import ridge
from secure_afl.analytic.rows import ClientData
from secure_afl.methods.method import Own
from secure_afl.methods.model import LinearModel
from secure_afl.methods.personal.personal import PERSONAL, Personal
from secure_afl.methods.personal.proximal import own_moments


@PERSONAL.register
class Joint(Personal):
    """Minimises `Σ‖Y_i − F_iP‖² + α‖Y_k − F_kP‖² + β‖P‖²` over all clients' rows.

    P_k = (ΣG + αG_k + βI)⁻¹(ΣQ + αQ_k), for which the client needs the sums (Tang et al. 2025).
    With noise, the summed Gram's eigenvalues are raised to β and no βI is added.
    """

    name = "joint"
    summary = "FedHiP's joint reading; clients are given the summed statistics"
    head = Ridge
    needs_statistics = True
    has_alpha = True

    def make(self, data: ClientData, kept: ClientData | None) -> Own:
        """Solve for P_k, (d, C) float64."""
        assert self.summed is not None, "the sums are broadcast"
        own_gram, own_cross = own_moments(self.task, data)
        gram, cross = self.summed.floats(self.task.quantiser, self.task.label_scale)
        beta = self.ridge.value
        if self.task.mechanism is not None:
            gram, beta = raise_eigenvalues(gram, beta), 0.0
        weights = ridge(gram + self.alpha * own_gram, cross + self.alpha * own_cross, beta)
        return self.own(LinearModel(weights, self.task.classes))
