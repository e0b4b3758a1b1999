"""The cells of a suite that are still to be made, run by run, in one process or side by side."""

import importlib
import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from threadpoolctl import threadpool_limits

from attacks.suite.adversaries import known_adversaries
from attacks.suite.cells import Cell
from attacks.suite.config import AttackConfig
from attacks.suite.plan import AnyAttack, Setting
from attacks.suite.pool import Pool
from attacks.suite.stage import Stage
from protocols.protocol import PROTOCOLS
from secure_afl.errors import ConfigError, SecureAflError
from secure_afl.methods.method import METHODS

# What libraries read when they are loaded; those that are there already are told otherwise.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Wanted(NamedTuple):
    """A cell that is to be made."""

    key: str
    adversary: str
    attack: type[AnyAttack]


class Work(NamedTuple):
    """The cells of one run."""

    setting: Setting
    wanted: tuple[Wanted, ...]

    def title(self, number: int) -> str:
        """Name a cell as people know it, by its place in `wanted`."""
        run, cell = self.setting, self.wanted[number]
        sums = "exact" if run.epsilon is None else f"ε = {run.epsilon:g}"
        return (
            f"attack '{cell.attack.name}' by '{cell.adversary}' on {run.method} under "
            f"{run.protocol}, {sums}, {run.rows} rows, repeat {run.repeat}"
        )


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


class _Broken(NamedTuple):
    """What a process says of an error that is not a cell's own."""

    error: str


def make_cells(given: Given, works: Sequence[Work], processes: int) -> Generator[Cell]:
    """Make the cells, each as soon as it can be had.

    A run's cells are made in one process, where they share its session, its views and what was
    recovered of its sums. A process has one run in memory at a time, and the rows of all clients.
    Every cell draws from a seed of its own and computes with one thread, so that neither their
    number nor their order turns up in what it says.

    Args:
        processes: ≥ 1.

    Raises:
        ConfigError: an attack that other processes cannot import.
        SecureAflError: a process died, or a cell could not be made; the message names the cell.
    """
    with _one_thread():
        if processes == 1 or len(works) <= 1:
            for work in works:
                yield from _cells(given, work)
        else:
            _check_importable(works)
            yield from _side_by_side(given, works, min(processes, len(works)))


def _side_by_side(given: Given, works: Sequence[Work], processes: int) -> Generator[Cell]:
    """Hand runs to processes, and take each cell when it is made."""
    # A fork of threads that are at work may wait for ever.
    context = multiprocessing.get_context("spawn")
    waiting = deque(works)
    at: dict[Connection, tuple[Work, int]] = {}
    workers = []
    try:
        for _ in range(processes):
            wire, far = context.Pipe()
            arguments = far, given, _modules(works)
            workers.append(context.Process(target=_make, args=arguments, daemon=True))
            workers[-1].start()
            far.close()  # or its end would not be seen here
            _hand(wire, waiting, at)
        while at:
            ready = wait(list(at))
            for wire in [one for one in at if one in ready]:
                work, made = at[wire]
                yield _hear(wire, work.title(made))
                at[wire] = work, made + 1
                if made + 1 == len(work.wanted):
                    _hand(wire, waiting, at)
    finally:
        for worker in workers:  # nobody wants what they are at
            worker.terminate()
        for worker in workers:
            worker.join()


def _hand(wire: Connection, waiting: deque[Work], at: dict[Connection, tuple[Work, int]]) -> None:
    at.pop(wire, None)
    if not waiting:
        wire.close()
        return
    work = waiting.popleft()
    at[wire] = work, 0
    try:
        wire.send(work)
    except OSError:
        raise _died(work.title(0)) from None


def _hear(wire: Connection, title: str) -> Cell:
    try:
        said: Cell | _Broken = wire.recv()
    except (EOFError, OSError):
        raise _died(title) from None
    if isinstance(said, _Broken):
        raise SecureAflError(said.error)
    return said


def _died(title: str) -> SecureAflError:
    return SecureAflError(
        f"the process that made {title} has died, most often for lack of memory. Finished cells "
        "are kept: take fewer processes (--processes 1), and the same command goes on"
    )


def _modules(works: Sequence[Work]) -> list[str]:
    """List the modules of methods and protocols: those that no package announces register so."""
    settings = [work.setting for work in works]
    kinds = {METHODS[setting.method] for setting in settings}
    return sorted(
        {kind.__module__ for kind in kinds}
        | {PROTOCOLS[setting.protocol].__module__ for setting in settings}
    )


def _make(wire: Connection, given: Given, modules: Sequence[str]) -> None:
    """Make the cells of the runs that come, until no more do."""
    for name in modules:
        importlib.import_module(name)
    # Who stops the suite stops this process, too; a terminal would tell both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            for cell in _cells(given, wire.recv()):
                wire.send(cell)
    except (EOFError, OSError):  # nobody is there any more: what cells raise is none of these
        return
    except SecureAflError as error:
        wire.send(_Broken(str(error)))


def _cells(given: Given, work: Work) -> Generator[Cell]:
    adversaries = known_adversaries()
    stage = Stage(given.config, work.setting, given.pools[work.setting.method])
    for number, (key, adversary, attack) in enumerate(work.wanted):
        # The matrices are small: threads would wait more than they work, and far more where other
        # programs run.
        with threadpool_limits(1):
            try:
                cell = stage.cell(key, adversaries[adversary], attack, given.confidence)
            except Exception as error:
                raise SecureAflError(
                    f"{work.title(number)}: {type(error).__name__}: {error}"
                ) from error
        yield cell


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have libraries that an attack loads, and processes, begin with one thread."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_importable(works: Sequence[Work]) -> None:
    for attack in {wanted.attack for work in works for wanted in work.wanted}:
        try:
            pickle.dumps(attack)
        except (pickle.PicklingError, AttributeError):
            raise ConfigError(
                f"attack {attack.name!r} is a class that other processes cannot import; define it "
                "in a module, or take one process"
            ) from None
