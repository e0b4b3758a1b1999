"""The demo as a person starts it, on a machine that reaches nobody."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from secure_afl.flower.deploy.processes import descendants
from tests.kit.commands import Command
from tests.kit.flower import ROOT

LOOPBACK = (
    "import fcntl, os, socket, struct, sys; s = socket.socket(); "
    "fcntl.ioctl(s, 0x8914, struct.pack('16sh14x', b'lo', 0x1 | 0x40)); "  # SIOCSIFFLAGS: up
    "s.close(); os.execv(sys.argv[1], sys.argv[1:])"
)


def offline() -> list[str]:
    """Start a command where the one network is the loopback."""
    under = ["unshare", "--net", sys.executable, "-c", LOOPBACK]
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*under, shutil.which("true") or "true"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("networks of one's own are not allowed here")
    return under


def environment(**more: str) -> dict[str, str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more
    env.pop("SECURE_AFL_DATA", None)
    return env


@pytest.mark.nightly
def test_the_demo_runs_on_a_machine_without_a_network(tmp_path: Path) -> None:
    done = subprocess.run(
        [*offline(), sys.executable, "-m", "secure_afl", "deploy", "demo", "--keep", "kept"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bit for bit, here and at all sites" in done.stdout
    assert "3 sites in the sum" in done.stdout
    keys = list((tmp_path / "kept" / "flower" / "nodes").iterdir())
    assert len(keys) == 8
    assert alive(tmp_path) == []


def alive(folder: Path) -> list[str]:
    """Command lines that name a folder."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = line.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text and "flower" in text:
            found.append(text)
    return found


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_ends_what_it_began(
    number: signal.Signals, tmp_path: Path
) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "secure_afl", "deploy", "demo", "--keep", str(tmp_path / "kept")],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        # A shell's Ctrl-C reaches the demo; background jobs of some shells ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "SuperNodes" in line and "knows" not in line:
            break
    begun = descendants(demo.pid)
    assert len(begun) >= 5
    demo.send_signal(number)
    demo.stdout.close()
    demo.wait(timeout=90)
    assert demo.returncode != 0
    for _ in range(50):
        if not alive(tmp_path):
            break
        time.sleep(0.2)
    assert alive(tmp_path) == []


def test_a_folder_in_use_and_another_protocol_are_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "not empty" in command.badly("deploy", "demo", "--keep", tmp_path)
    said = command.badly("deploy", "demo", "--protocol", "plain")
    assert "allowed: additive, pairwise, ckks" in said


def test_without_flower_the_demo_names_the_extra(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'secure-afl[flower]'" in command.badly("deploy", "demo")
