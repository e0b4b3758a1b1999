"""The next blind sum of a method: its layout, its context, and its noise."""

import hashlib

import msgspec

from protocols.codec import encode
from protocols.layout import Integers, Layout
from secure_afl.methods import AnyMethod, PublicState, Task
from secure_afl.privacy.sensitivity import Sensitivity


def context(method: AnyMethod, public: PublicState) -> bytes:
    """SHA-256 of what a round's sum is for: method, its parameters, and the public state."""
    return hashlib.sha256(encode(("secure-afl/1 context", method, public))).digest()


def sum_layout(method: AnyMethod, public: PublicState) -> Layout | None:
    """The layout of the next blind sum, with room for noise; None when there is no next."""
    layout = method.layout(public)
    mechanism = public.task.mechanism
    if layout is None or mechanism is None:
        return layout
    return mechanism.widen(layout, method.sensitivity(public.task, mechanism.privacy))


def noise(method: AnyMethod, public: PublicState, entropy: bytes) -> Integers:
    """One share of the noise of the next blind sum, of the layout's length.

    Args:
        entropy: 32 secret bytes.
    """
    mechanism = public.task.mechanism
    assert mechanism is not None, "the task has noise"
    return mechanism.share(*noiseless(method, public), entropy)


def noiseless(method: AnyMethod, public: PublicState) -> tuple[Layout, Sensitivity]:
    """The next blind sum as its noise is measured by: layout without noise, and sensitivity."""
    layout, mechanism = method.layout(public), public.task.mechanism
    assert layout is not None, "a session has a sum"
    assert mechanism is not None, "the task has noise"
    return layout, method.sensitivity(public.task, mechanism.privacy)


def calibrated(method: AnyMethod, task: Task) -> Task:
    """The task with as much noise in its mechanism as the promise takes. Raises ConfigError."""
    assert task.mechanism is not None, "the task has noise"
    mechanism = task.mechanism.calibrate(*noiseless(method, method.begin(task)))
    return msgspec.structs.replace(task, mechanism=mechanism)
