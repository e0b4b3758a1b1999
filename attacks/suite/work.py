"""The cells of a suite that are still to be made, run by run, in one process or side by side."""

import multiprocessing
import pickle
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from threadpoolctl import threadpool_limits

from attacks.suite.adversaries import known_adversaries
from attacks.suite.cells import Cell
from attacks.suite.config import AttackConfig
from attacks.suite.plan import AnyAttack, Setting
from attacks.suite.pool import Pool
from attacks.suite.stage import Stage
from secure_afl.errors import ConfigError, SecureAflError


class Wanted(NamedTuple):
    """A cell that is to be made."""

    key: str
    adversary: str
    attack: type[AnyAttack]


class Work(NamedTuple):
    """The cells of one run."""

    setting: Setting
    wanted: tuple[Wanted, ...]


class Given(NamedTuple):
    """What all cells are made of.

    Attributes:
        config: of the suite.
        pools: by method.
        confidence: with which all intervals of a cell hold together.
    """

    config: AttackConfig
    pools: Mapping[str, Pool]
    confidence: float


def make_cells(given: Given, works: Sequence[Work], processes: int) -> Generator[Cell]:
    """Make the cells, each as soon as it can be had.

    One process has one run in memory at a time, and every process the rows of all clients.

    Args:
        processes: ≥ 1. With more than one, a run's cells come together when all are there.

    Raises:
        ConfigError: an attack that other processes cannot import.
        SecureAflError: a process died.
    """
    if processes == 1 or len(works) <= 1:
        for work in works:
            yield from _cells(given, work)
        return
    _check_importable(works)
    # A fork of threads that are at work may wait for ever.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(works)), context, _begin, (given,))
    try:
        for done in as_completed([pool.submit(_make, work) for work in works]):
            yield from done.result()
    except BrokenProcessPool:
        raise SecureAflError(
            "a process that made cells has died, most often for lack of memory. Finished cells are "
            "kept: take fewer processes (--processes 1), and the same command goes on"
        ) from None
    finally:
        workers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:  # nobody wants what they are at
            worker.terminate()


def _cells(given: Given, work: Work) -> Generator[Cell]:
    adversaries = known_adversaries()
    stage = Stage(given.config, work.setting, given.pools[work.setting.method])
    for key, adversary, attack in work.wanted:
        # The matrices are small: threads would wait more than they work, and far more where other
        # programs run.
        with threadpool_limits(1):
            cell = stage.cell(key, adversaries[adversary], attack, given.confidence)
        yield cell


_given: Given | None = None


def _begin(given: Given) -> None:
    global _given
    _given = given


def _make(work: Work) -> list[Cell]:
    assert _given is not None, "a process begins with it"
    return list(_cells(_given, work))


def _check_importable(works: Sequence[Work]) -> None:
    for attack in {wanted.attack for work in works for wanted in work.wanted}:
        try:
            pickle.dumps(attack)
        except (pickle.PicklingError, AttributeError):
            raise ConfigError(
                f"attack {attack.name!r} is a class that other processes cannot import; define it "
                "in a module, or take one process"
            ) from None
