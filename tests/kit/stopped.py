"""Runs that are stopped, and what has to be true of them afterwards."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_afl.errors import NotResumable
from secure_afl.federation.server import FederationServer
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.ledger import Ledger
from secure_afl.runs.config import RunConfig
from secure_afl.runs.run import resume, run
from secure_afl.runs.settings import make_config
from tests.kit.seats import in_child

NAMES = ("north", "south", "west")


class Site:
    """Three clients' data in a folder, and a run with a ledger over them.

    Args:
        folder: an empty one.
        settings: of the run, beside the clients and the ledger; by default it is saved.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        (folder / "sites").mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        for name in NAMES:
            features = rng.normal(size=(40, 6))
            np.savez(folder / "sites" / name, features=features, labels=np.arange(40) % 2)
        self.out = folder / "out"
        self.ledger = folder / "ledger.json"
        self.settings = {
            "clients": f"{folder}/sites/*.npz",
            "ledger": str(self.ledger),
            "new_ledger": True,
            "out": str(self.out),
        } | settings

    @property
    def config(self) -> RunConfig:
        return make_config({k: v for k, v in self.settings.items() if v is not None})

    def run(self) -> None:
        run(self.config)

    def finish(self) -> None:
        """Do what people do after a run was stopped: finish it, or begin it where there is none."""
        try:
            resume(self.out)
        except NotResumable:
            # Nothing was released then and nothing is charged, or all is done.
            if not (self.out / "report.json").exists():
                assert not self.ledger.exists()
                self.run()

    def charged(self) -> list[Any]:
        """The releases that count, about the first client."""
        ledger = Ledger.open(self.ledger)
        entries = ledger.entries(str(self.folder / "sites" / "north.npz"))
        return [entry for entry in entries if entry.counts]

    def check(self, weights: Any, rounds: int = 1) -> None:
        """Check that the run is finished, once, and right."""
        model, card = LinearModel.load(self.out / "model.safetensors")
        assert weights is None or np.array_equal(model.weights, weights)
        report = json.loads((self.out / "report.json").read_text())
        assert report["session"] == card["session"]
        assert (report["exact"], report["rounds"]) == (True, rounds)
        ledger = Ledger.open(self.ledger)
        for name in NAMES:
            entries = ledger.entries(str(self.folder / "sites" / f"{name}.npz"))
            counting = [entry for entry in entries if entry.counts]
            assert len(counting) == rounds
            assert all(entry.released for entry in counting)
            assert report["session"] in [entry.session for entry in counting]
            assert not any(entry.released for entry in entries if entry.void is not None)
        with pytest.raises(NotResumable, match="nothing to resume"):
            resume(self.out)
        left = {path.name for path in self.out.iterdir()}
        made = {"model.safetensors", "model.json", "report.json", "report.html"}
        # The receiver's own file is there where the sum chose a setting.
        assert left - {"receiver.json"} == made | {".secure-afl.json"}


# What changes a disk: each write that is flushed, each rename, each deletion.
CHANGES = ("fsync", "replace", "unlink")


def killed_before(change: int, work: Callable[[], object]) -> bool:
    """Run something in a process that is killed before its nth change of the disk.

    Returns:
        Whether it got so far.
    """

    def dying() -> None:
        left = change

        def counted(happen: Callable[..., object]) -> Callable[..., object]:
            def called(*args: Any, **kwargs: Any) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    os._exit(9)
                return happen(*args, **kwargs)

            return called

        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name)))
        work()

    return in_child(dying) == 9


@contextmanager
def full_disk(patch: pytest.MonkeyPatch, folder: Path, after: int = 0) -> Iterator[None]:
    """Let writes below a folder fail as on a full disk, after so many that did not."""
    flush, left = os.fsync, after

    def fsync(file: int) -> None:
        nonlocal left
        path = Path(f"/proc/self/fd/{file}").readlink()
        if path.is_file() and path.is_relative_to(folder):
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(file)

    with patch.context() as inner:
        inner.setattr(os, "fsync", fsync)
        yield


@contextmanager
def stops_at_sum(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the run within stop, as a machine does, before the server absorbs a sum."""
    absorb, sums = FederationServer.absorb, []

    def stopped(self: FederationServer, *args: object) -> None:
        sums.append(1)
        if len(sums) == number:
            raise OSError("the machine stops")
        absorb(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(FederationServer, "absorb", stopped)
        with pytest.raises(OSError, match="the machine stops"):
            yield
