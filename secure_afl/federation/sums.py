"""The next blind sum of a method: its layout and its noise."""

import msgspec

from protocols.layout import Layout
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
    """
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


def calibrated(method: AnyMethod, task: Task) -> Task:
    """Put as much noise into a task's mechanism as the promise takes.

    It is for the sums that the method foresees.

    Raises:
        ConfigError: that noise is too small for the grid.
    """
    first, *others = [this_noisy_sum(method, public) for public in method.foreseen(task)]
    return msgspec.structs.replace(task, mechanism=first.calibrated(*others).mechanism)
