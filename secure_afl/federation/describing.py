"""Table 1 of a released sum: what its receiver reads of it, by what the task declares."""

from protocols.layout import Integers, Layout
from secure_afl.analytic.describe import Summary, summarise
from secure_afl.analytic.statistics import SQUARES, Statistics
from secure_afl.analytic.table_sums import StepNoise
from secure_afl.errors import ConfigError
from secure_afl.federation.sums import this_noisy_sum
from secure_afl.methods.method import AnyMethod, Task


def summary_of(
    method: AnyMethod, task: Task, total: Integers, layout: Layout, included: int
) -> Summary | None:
    """Describe the rows of a sum; None where the method or the task has no table.

    Args:
        total, layout: of the released sum, with its noise where there is some.
        included: clients in the sum.

    Raises:
        ConfigError: a noisy sum without counts, noise that is not in the total, or too few rows.
    """
    least = method.least_printed(task)
    if least is None or task.columns is None:
        return None
    blocks = layout.split(total)
    if "counts" not in blocks:
        raise ConfigError(
            "no Table 1: this sum holds no class counts, without which no mean follows. Choose "
            "--head lda with a larger ε, whose sums hold them"
        )
    squares = blocks.get(SQUARES)
    return summarise(
        Statistics.unpack(total, layout),
        task.columns,
        task.classes,
        task.quantiser,
        squares=None if squares is None else squares.reshape(task.feature_dim, -1),
        label_scale=task.label_scale,
        least=least,
        noise=_noise_of(method, task, included),
    )


def _noise_of(method: AnyMethod, task: Task, included: int) -> StepNoise | None:
    """Return the noise that is in a sum of so many clients' shares; None in exact sums."""
    mechanism = task.mechanism
    if mechanism is None:
        return None
    if mechanism.privacy.placement == "central":
        raise ConfigError(
            "no Table 1: with --noise central the noise comes after the sum, and the sum itself is "
            "not promised to anybody. Leave --noise out"
        )
    noisy = this_noisy_sum(method, method.begin(task))
    more = mechanism.surplus(included)
    steps = {name: std * more for name, std in noisy.stds.items()}
    counted = noisy.layout.units["counts"] * task.label_scale**2
    return StepNoise(
        steps["gram_diagonal"],
        steps.get("gram_upper", 0.0),
        steps["cross"],
        steps["counts"] * counted,
        steps.get(SQUARES, 0.0),
    )
