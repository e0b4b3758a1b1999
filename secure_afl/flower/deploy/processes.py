"""Processes that a command begins, and that end with it: every one by its own id."""

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from secure_afl.errors import ConfigError, RunFailed

GRACE = 10.0


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Begun:
    """One process, with its own group for the processes that it begins.

    Attributes:
        name: for people.
        log: file of what it says.
    """

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as file:
            try:
                self._process = subprocess.Popen(
                    command,
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise ConfigError(f"{command[0]} cannot be started ({error.strerror})") from None

    @property
    def pid(self) -> int:
        """Id of the process, and of its group."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is over; its id stays taken until `end`."""
        if self._process.returncode is not None:
            return True
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, options) is not None

    def kill(self) -> None:
        """Kill this process alone, at once, as a machine's death would."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """End the process and those of its group: asked first, then killed."""
        if self._process.returncode is not None:
            return
        # The id is waited for last: until then nobody else can have it.
        others = [_Held(pid) for pid in descendants(self.pid)]
        self._signal(signal.SIGTERM)
        until = time.monotonic() + GRACE
        while not self.ended and time.monotonic() < until:
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        self._process.wait()
        for other in others:
            other.end()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def said(self, lines: int = 12) -> str:
        """Return the last lines of what it said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class _Held:
    """A process that another began: a signal reaches just this one, or nobody."""

    def __init__(self, pid: int) -> None:
        self._handle: int | None = None
        with suppress(OSError):
            self._handle = os.pidfd_open(pid)

    def end(self) -> None:
        """Kill it, unless it is over within a moment."""
        if self._handle is None:
            return
        over, _, _ = select.select([self._handle], [], [], 3.0)
        if not over:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        os.close(self._handle)
        self._handle = None


def descendants(pid: int) -> list[int]:
    """Return the processes that a process began, and that those began; none where /proc is not."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            # After the name, which may hold anything, stand the state and the parent's id.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, open_ = [], [pid]
    while open_:
        new = children.get(open_.pop(), [])
        found += new
        open_ += new
    return found


class Processes:
    """All processes that one command begins.

    Args:
        logs: folder for what they say; made if need be.
    """

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._begun: list[Begun] = []

    def begin(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> Begun:
        """Begin a process.

        Raises:
            ConfigError: it cannot be started.
        """
        begun = Begun(name, command, env, self._logs / f"{name}.log")
        self._begun.append(begun)
        return begun

    def run(self, command: Sequence[str], env: Mapping[str, str], timeout: float = 120) -> str:
        """Run a command to its end, and return what it printed.

        Raises:
            RunFailed: it failed, or took too long.
        """
        try:
            done = subprocess.run(
                command,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RunFailed(f"{' '.join(command[:3])} took longer than {timeout:.0f} s") from None
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise RunFailed(f"{' '.join(command[:3])} failed ({done.returncode}): {said[-2000:]}")
        return done.stdout

    def check(self) -> None:
        """Raise RunFailed if a process is over that should live."""
        for begun in self._begun:
            if begun.ended:
                raise RunFailed(f"{begun.name} is over before its time:\n{begun.said()}")

    def forget(self, begun: Begun) -> None:
        """End a process that is not wanted any more."""
        begun.end()
        self._begun.remove(begun)

    def end(self) -> None:
        """End all, the latest first."""
        while self._begun:
            self._begun.pop().end()

    def __enter__(self) -> "Processes":
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all, whatever happened."""
        self.end()
