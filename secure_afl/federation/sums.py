"""The next blind sum of a method: its layout and its noise."""

import math

import msgspec

from protocols.layout import Layout
from secure_afl.errors import ConfigError
from secure_afl.methods.method import AnyMethod, PublicState, Task
from secure_afl.privacy.mechanism import NoisySum


def sum_layout(method: AnyMethod, public: PublicState) -> Layout | None:
    """Lay out the next blind sum, with room for noise.

    None when there is no next.
    """
    if public.task.mechanism is None:
        return method.layout(public)
    noisy = noisy_sum(method, public)
    return None if noisy is None else noisy.widened()


def noisy_sum(method: AnyMethod, public: PublicState) -> NoisySum | None:
    """Describe the next blind sum of a task with noise.

    None when there is no next.

    Raises:
        ConfigError: the method cannot bound a unit's part in the sum, or does not know the unit.
    """
    if public.task.by_patient and not method.hides_patients:
        raise ConfigError(
            f"unit patient with {method.name}, which does not weigh rows by patient; allowed: "
            "example, client. Or declare `hides_patients` once the method knows that unit"
        )
    layout, mechanism = method.layout(public), public.task.mechanism
    assert mechanism is not None, "the task has noise"
    if layout is None:
        return None
    return NoisySum(mechanism, layout, method.sensitivity(public, mechanism.privacy))


def this_noisy_sum(method: AnyMethod, public: PublicState) -> NoisySum:
    """Describe the blind sum that a session of a noisy task is about to form."""
    noisy = noisy_sum(method, public)
    assert noisy is not None, "a session has a sum"
    return noisy


def foreseen_sums(method: AnyMethod, task: Task) -> list[NoisySum]:
    """Describe one blind sum of each kind that the method foresees, the last kind last."""
    return [this_noisy_sum(method, public) for public in method.foreseen(task)]


def check_spending(method: AnyMethod, task: Task) -> None:
    """Check that the sums of a run do not spend more together than the promise has for them.

    Raises:
        ConfigError: they do; or some spend more than others, and not every sum is foreseen.
    """
    mechanism = task.mechanism
    assert mechanism is not None, "the task has noise"
    foreseen = method.foreseen(task)
    spends = [method.sensitivity(public, mechanism.privacy).spend for public in foreseen]
    if all(spend <= 1 for spend in spends):
        return
    spent = math.fsum(spend**2 for spend in spends)
    if len(spends) != mechanism.rounds or spent > mechanism.rounds * (1 + 1e-12):
        raise ConfigError(
            f"{mechanism.rounds} sums of which those foreseen spend {spent:.6g} shares of μ²; "
            f"allowed: ≤ {mechanism.rounds}, with every sum foreseen where some spend more"
        )


def calibrated(method: AnyMethod, task: Task) -> Task:
    """Put as much noise into a task's mechanism as the promise takes.

    It is for the sums that the method foresees.

    Raises:
        ConfigError: that noise is too small for the grid.
    """
    check_spending(method, task)
    first, *others = foreseen_sums(method, task)
    return msgspec.structs.replace(task, mechanism=first.calibrated(*others).mechanism)
