"""AFL: a classifier of all clients' rows, from one sum (He et al., CVPR 2025)."""

from typing import Annotated

from msgspec import Meta

from secure_afl.errors import ConfigError
from secure_afl.methods.method import METHODS, Task
from secure_afl.methods.summed import Summed, SummedPublic
from secure_afl.methods.task_sums import releases_counts


@METHODS.register
class AFL(Summed, frozen=True, tag="afl"):
    """Analytic federated learning: a head of (ΣG, ΣQ, Σn); with `ridge`, W = (ΣG + λI)⁻¹ΣQ.

    The paper's clients upload `C_k = G_k + γI` and `W_k = C_k⁻¹Q_k`, which their server joins by a
    pairwise law and then frees from the excess Kγ; the result equals the ridge solution from the
    summed `(G, Q)` used here, in which γ does not occur.

    Attributes:
        squares: sums of squares by class are summed too, d·C integers.
    """

    name = "afl"
    summary = "one model for all"
    auditable = True
    squares: Annotated[
        bool,
        Meta(
            description="tables: sum squares by class too, d·C integers, from which Table 1 has "
            "deviations by class."
        ),
    ] = False

    @property
    def sums_squares(self) -> bool:
        """Whether squares by class are summed beside."""
        return self.squares

    def begin(self, task: Task) -> SummedPublic:
        """Return the task with no classifier yet.

        Raises:
            ConfigError: as `Summed.begin`, or squares that nothing would be made of.
        """
        public = super().begin(task)
        if self.squares and task.columns is None:
            raise ConfigError(
                "--squares has no effect without columns, for deviations by class are of these; "
                "leave it out, or give --dictionary"
            )
        if self.squares and not releases_counts(task, self.weights(task)):
            raise ConfigError(
                "--squares has no effect on a sum without class counts, as noise leaves none to "
                "this head; leave it out, or take --head lda"
            )
        return public
