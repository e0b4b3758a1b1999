"""Federations over Flower with real processes on loopback, which tests kill by their own ids."""

import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from protocols import Protocol
from secure_afl.analytic.rows import ClientData
from secure_afl.flower.deploy.engine import Engine
from secure_afl.flower.deploy.processes import Begun, Processes, descendants
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.ledger import Ledger
from secure_afl.runs.saving import MODEL, REPORT
from secure_afl.sites.settings import read_site
from tests.kit.sites import Sites

ROOT = Path(__file__).parents[2]
TRAP = "SECURE_AFL_TEST_TRAP"
NUDGE = 20


class Loopback:
    """One federation with a SuperLink, and a SuperNode for each party but the convener.

    Attributes:
        sites: the parties' files.
        processes: that were begun.
        engine: Flower's programs.
        nodes: SuperNodes that run, by party.
        proxy: port before the SuperLink that SuperNodes go through; None for none.
    """

    def __init__(
        self,
        folder: Path,
        protocol: Protocol,
        clients: Mapping[str, ClientData],
        *,
        wait: tuple[int, int] = (600, 600),
        site: str = "",
        run: str = "",
        method: str = "afl",
    ) -> None:
        self.sites = Sites(
            folder / "parties", protocol, clients, wait=wait, site=site, run=run, method=method
        )
        for name in clients:
            settings = read_site(self.site(name))
            assert settings.run.ledger is not None
            path = Path(settings.run.ledger)
            Ledger.open(path, anchor=path.parent, new=True).take_over(None, ())
        for name in (self.sites.convener, *clients):
            file = self.site(name)
            file.write_text(f'out = "results"\n{file.read_text()}')
        self.processes = Processes(folder / "logs")
        self.engine = Engine(
            folder / "flower",
            self.processes,
            {
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
            },
        )
        self.nodes: dict[str, Begun] = {}
        self.proxy: int | None = None
        self._supervised: set[str] = set()
        self._env: dict[str, dict[str, str]] = {}
        self.superlink = self.engine.superlink()

    @property
    def others(self) -> list[str]:
        """All parties but the convener."""
        return [name for name in self.sites.roles if name != self.sites.convener]

    def site(self, name: str) -> Path:
        return self.sites.folder / name / "site.toml"

    def begin(self, names: Collection[str] = (), traps: Mapping[str, str] | None = None) -> None:
        """Register and begin SuperNodes.

        Args:
            names: of the parties; by default all but the convener.
            traps: by party, where its first client app to come there is killed, see `trap`.
        """
        for name in names or self.others:
            self.engine.register(name)
            if traps and name in traps:
                self._env[name] = trap(self.sites.folder / name, traps[name])
            self.start(name)

    def start(self, name: str) -> None:
        self.nodes[name] = self.engine.supernode(
            name, self.site(name), self._env.get(name), port=self.proxy
        )

    def supervise(self, name: str) -> None:
        """Begin a SuperNode again whenever it is over, as a unit with Restart=always."""
        self._supervised.add(name)

    def run(self, **settings: object) -> int:
        folder = self.sites.folder / self.sites.convener
        given = {"nudge": NUDGE, **settings}
        return self.engine.run(folder / "site.toml", folder / "run.toml", None, **given)

    def until(self, over: Callable[[], bool], what: str, timeout: float = 300) -> None:
        """Wait for something, and begin those again who are supervised."""
        until = time.monotonic() + timeout
        while not over():
            assert time.monotonic() < until, f"no {what}; {self.said()}"
            for name in self._supervised:
                if self.nodes[name].ended:
                    self.processes.forget(self.nodes[name])
                    self.start(name)
            time.sleep(0.1)

    def finish(self, run: int, timeout: float = 420) -> str:
        """Wait for the end of a run, and return Flower's words for it."""
        status = ""
        asked = 0.0

        def over() -> bool:
            nonlocal status, asked
            if time.monotonic() - asked < 4:
                return False
            status = self.engine.status(run)
            asked = time.monotonic()
            return status.startswith("finished")

        self.until(over, "end of the run", timeout)
        return status

    def told(self, name: str) -> str:
        """What a party told its own people."""
        path = self.sites.folder / name / "state" / "log.txt"
        return path.read_text() if path.exists() else ""

    def joined(self, name: str) -> bool:
        return "joined" in self.told(name)

    def serverapp(self) -> int:
        """The process of the server app, among those that the SuperLink began."""
        begun = descendants(self.superlink.pid)
        (found,) = [pid for pid in begun if _runs(pid, "flwr-serverapp")]
        return found

    def kill_serverapp(self) -> None:
        os.kill(self.serverapp(), signal.SIGKILL)

    def weights(self) -> Any:
        """The convener's model."""
        assert self.has_model(), self.said()
        return self.kept(self.sites.convener)[0].weights

    def kept(self, name: str) -> tuple[LinearModel, Mapping[str, Any]]:
        """The model and the card that a party kept."""
        path = self.sites.folder / name / "results" / MODEL
        assert path.exists(), self.said()
        return LinearModel.load(path)

    def has_model(self) -> bool:
        return (self.sites.folder / self.sites.convener / "results" / REPORT).exists()

    def report(self) -> dict[str, Any]:
        import json

        out = self.sites.folder / self.sites.convener / "results"
        found: dict[str, Any] = json.loads((out / REPORT).read_text())
        return found

    def said(self) -> str:
        """Everything that may explain a failure."""
        told = {name: self.told(name)[-1500:] for name in self.sites.roles}
        logs = {b.name: b.said() for b in [self.superlink, *self.nodes.values()]}
        return "\n".join(f"--- {n}\n{text}" for n, text in (told | logs).items())

    def __enter__(self) -> "Loopback":
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.end()


def _runs(pid: int, program: str) -> bool:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(program.encode() in part for part in line[:2])


def trap(folder: Path, where: str) -> dict[str, str]:
    """Make the environment of a SuperNode whose first client app to come somewhere is killed there.

    Python reads a sitecustomize.py before it runs anything; this one calls `spring`.

    Args:
        folder: for the file, and for the mark that it happened.
        where: "before" the letter that opens a session is kept, or "after" all that came of it is.
    """
    place = folder / "trap"
    place.mkdir()
    (place / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('flwr-clientapp' in part for part in sys.orig_argv):\n"
        "    from tests.kit.flower import spring\n"
        "    spring()\n"
    )
    return {
        "PYTHONPATH": os.pathsep.join((str(place), str(ROOT))),
        TRAP: f"{where}:{place / 'sprung'}",
    }


def spring() -> None:
    """Set the trap of this process."""
    from secure_afl.flower import client, wire
    from secure_afl.sites.state import State

    where, _, mark = os.environ[TRAP].partition(":")
    keep, pack = State.keep_letter, wire.pack
    kept = False

    def die() -> None:
        if not Path(mark).exists():
            Path(mark).write_text(f"{os.getpid()}")
            os.kill(os.getpid(), signal.SIGKILL)

    def keep_letter(self: State, nonce: bytes, letter: bytes) -> None:
        nonlocal kept
        if letter and where == "before":
            die()
        kept = kept or bool(letter)
        keep(self, nonce, letter)

    def packed(reply: Any) -> Any:
        if kept and where == "after":
            die()
        return pack(reply)

    State.keep_letter = keep_letter  # type: ignore[method-assign]
    vars(client)["pack"] = packed
    sys.stderr.write(f"trap: {where}\n")


def oracle(clients: Mapping[str, ClientData], bits: int) -> np.ndarray:
    from tests.secure_afl.sites.test_sites import oracle as made

    return made(dict(clients), bits)
