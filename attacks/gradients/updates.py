"""The gradient that an update of FedSGD or FedAvg stands for, as its round's parameters had it."""

import math

from attacks.views.knowledge import SubsetSum
from attacks.views.run import RunView
from protocols.layout import Integers
from protocols.roster import CLIENT
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError
from secure_afl.methods import FedAvg, FedSGD
from secure_afl.methods.averaging import AveragingPublic
from secure_afl.methods.update import WEIGHT


def gradient_of(view: RunView, subset: SubsetSum, round: int = 0) -> Floats:
    """Return the mean gradient behind the sum of some clients' updates, (p,) float64.

    FedSGD's clients upload the negative gradient, clipped and rounded: −mean is the gradient itself
    but for these two. FedAvg's upload how far they moved in several steps of their own; −mean over
    learning rate and number of steps is the mean of the gradients on the way, taken for the one at
    the start. That is the usual approximation (Geiping et al. 2020, section 6), good while they do
    not move far.

    Args:
        view: of a party, with the public state of the round.
        subset: a sum that it has, see `subset_sums`.
        round: which one, from 0.

    Raises:
        ConfigError: another method, or an outsider's view.
    """
    method, public = averaging_of(view, round)
    layout = view.rounds[round].session.layout
    mean = method.quantiser(public.task).mean(subset.vector, layout)
    if isinstance(method, FedAvg):
        steps = _local_steps(method, public, subset, rows_of(view, subset, round))
        return -mean / (method.learning_rate * steps)
    return -mean


def averaging_of(view: RunView, round: int = 0) -> tuple[FedSGD | FedAvg, AveragingPublic]:
    """Return the method and what it made public before a round.

    Raises:
        ConfigError: it is neither FedSGD nor FedAvg, or the view is an outsider's.
    """
    if not isinstance(view.method, FedSGD | FedAvg):
        raise ConfigError(
            f"{view.method.name} sums no gradients; attack a run of fedsgd or fedavg instead"
        )
    if len(view.publics) <= round:
        raise ConfigError("an outsider knows no parameters; give this attack a view of some party")
    public = view.publics[round]
    assert isinstance(public, AveragingPublic), "what these methods make public"
    return view.method, public


def has_gradients(view: RunView) -> bool:
    """Say whether `gradient_of` takes the view."""
    return isinstance(view.method, FedSGD | FedAvg) and bool(view.publics)


def rows_of(view: RunView, subset: SubsetSum, round: int = 0) -> int:
    """Count a sum's rows: exact where updates are weighted by rows, else the public bound.

    Clients that nobody weighs are taken to have as many rows as they declared at most.
    """
    method, public = averaging_of(view, round)
    if method.weighted:
        weight: Integers = view.rounds[round].session.layout.split(subset.vector)[WEIGHT]
        return int(weight[0])
    session, task = view.rounds[round].session, public.task
    if any(session.line(name).role != CLIENT for name in view.coalition):
        return sum(session.member(name).bound for name in subset.clients)
    # Clients know the bound of all together.
    return math.ceil(task.total_rows * len(subset.clients) / task.clients)


def _local_steps(method: FedAvg, public: AveragingPublic, subset: SubsetSum, rows: int) -> int:
    """Count the local steps of an average client of the sum."""
    each = max(1, math.ceil(rows / len(subset.clients)))
    return method.local_epochs * math.ceil(each / method.batch_size)
