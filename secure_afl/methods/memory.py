"""What a client keeps from round to round, and what it keeps only if its vector was in the sum.

A client cannot know whether the sum will have its vector. What follows from having been in it, a
rounding error that is carried on or a control variate, is pending until the history of the next
round says so; otherwise it is dropped, as if this client had not been asked.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A method keys it by round where `contribute` may run again for the same round after a restart.
Memory = MutableMapping[str, NDArray[np.generic]]

_PENDING, _ONCE = "pending", "update"


def once(
    memory: Memory,
    round: int,
    state: Iterable[NDArray[Any]],
    name: str,
    make: Callable[[], NDArray[Any]],
) -> NDArray[Any]:
    """Return an array of a round, from memory if it is there; older rounds are forgotten.

    A restarted client then does not train a second time, and cannot differ in a last bit.

    Args:
        memory: of the client.
        round: rounds that are over, from 0.
        state: the arrays of the public state that the array follows from.
        name: what it is.
        make: returns it, where it is not there yet.
    """
    hashed = hashlib.sha256()
    for array in state:
        hashed.update(array.tobytes())
    key = f"{_ONCE}/{round}/{hashed.hexdigest()}/{name}"
    if key not in memory:
        for old in [key for key in memory if key.startswith(f"{_ONCE}/")]:
            if int(old.split("/")[1]) < round:
                del memory[old]
        memory[key] = make()
    return np.asarray(memory[key])


def pend(memory: Memory, round: int, name: str, value: NDArray[np.generic]) -> None:
    """Keep a value for as long as it is open whether the sum of a round has this client's vector.

    Args:
        memory: of the client.
        round: of the vector, counted from 1.
        name: under which `settle` keeps it, without a slash.
        value: an array of any shape.
    """
    memory[f"{_PENDING}/{round}/{name}"] = value


def settle(memory: Memory, round: int, *, included: bool) -> None:
    """Keep what a round's vector left pending, or drop it; a second time changes nothing.

    Args:
        memory: of the client.
        round: of the vector, counted from 1.
        included: the round's sum has the vector.
    """
    start = f"{_PENDING}/{round}/"
    for key in [key for key in memory if key.startswith(start)]:
        value = memory.pop(key)
        if included:
            memory[key.removeprefix(start)] = value


@contextmanager
def a_round_later(memory: Memory) -> Iterator[Memory]:
    """Give a memory to a method whose first round is the second of the run.

    What it leaves pending is then of the run's round, by which it is settled.
    """
    seen = {key: value for key, value in memory.items() if not key.startswith(f"{_PENDING}/")}
    before = tuple(seen)
    yield seen
    for key in before:
        if key not in seen:
            del memory[key]
    for key, value in seen.items():
        if key.startswith(f"{_PENDING}/"):
            _, round, name = key.split("/", 2)
            pend(memory, int(round) + 1, name, value)
        else:
            memory[key] = value
