"""FedHiP's proximal reading: near to the global ridge model, better on the client's rows."""

from secure_afl.analytic.heads.ridge import Ridge
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.ridge import ridge
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics
from secure_afl.methods.method import Own, Task
from secure_afl.methods.model import LinearModel
from secure_afl.methods.personal.personal import PERSONAL, Personal


@PERSONAL.register
class Proximal(Personal):
    """Minimises `α‖Y_k − F_kP‖² + β‖P − G_K‖²`: P_k = (αG_k + βI)⁻¹(αQ_k + βG_K).

    G_K is the global ridge classifier and β its λ. The client sees no more than G_K (Tang et al.
    2025; the reading of their objective is this project's).
    """

    name = "proximal"
    summary = "FedHiP's proximal reading"
    head = Ridge
    wants_ridge = True
    has_alpha = True
    candidate = True

    def make(self, data: ClientData, kept: ClientData | None) -> Own:
        """Solve for P_k, (d, C) float64."""
        own_gram, own_cross = own_moments(self.task, data)
        beta, towards = self.ridge.value, self.ridge.weights
        weights = ridge(self.alpha * own_gram, self.alpha * own_cross + beta * towards, beta)
        return self.own(LinearModel(weights, self.task.classes))


def own_moments(task: Task, data: ClientData) -> tuple[Floats, Floats]:
    """Return a client's Gram matrix (d, d) and cross term (d, C), in units of rows of norm ≤ 1."""
    classes, rows_each = len(task.classes), task.rows_each(data)
    own = Statistics.of(data.features, data.labels, classes, task.quantiser, rows_each)
    return own.floats(task.quantiser, task.label_scale)
