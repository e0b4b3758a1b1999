"""One SuperLink and its SuperNodes on this machine, over TLS, with keys of their own."""

import importlib.util
import json
import os
import ssl
import sysconfig
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secure_afl.errors import ConfigError, RunFailed
from secure_afl.flower.deploy.bundle import write_bundle
from secure_afl.flower.deploy.pki import CA, CERTIFICATE, KEY, make_certificates, make_node_key
from secure_afl.flower.deploy.processes import Begun, Processes, free_port

HOST = "127.0.0.1"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""Flower calls nobody at home."""

START = 60.0


def check_installed() -> None:
    """Raise ConfigError unless Flower is installed beside this project."""
    if importlib.util.find_spec("flwr") is None or not _program("flower-superlink").exists():
        raise ConfigError(
            "Flower is not installed here; install the extra: pip install 'secure-afl[flower]'"
        )


def _program(name: str) -> Path:
    return Path(sysconfig.get_path("scripts")) / name


class Engine:
    """Flower's programs around one federation.

    Args:
        folder: for certificates, keys, homes and the SuperLink's database.
        processes: gets all that are begun here.
        env: further environment of all processes.

    Attributes:
        port: of the SuperLink.
        database: of the SuperLink.
    """

    def __init__(
        self, folder: Path, processes: Processes, env: Mapping[str, str] | None = None
    ) -> None:
        check_installed()
        self._folder = folder.resolve()
        self._processes = processes
        self._env = dict(env or {})
        self._ports: dict[str, int] = {}
        self.port = free_port()
        self.database = self._folder / "superlink.db"
        make_certificates(self._folder / "pki", ["localhost", HOST])
        write_bundle(self.bundle)
        home = self.home("operator")
        home.mkdir(parents=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{HOST}:{self.port}"\n'
            f'root-certificates = "{self._pki(CA)}"\n'
        )

    @property
    def bundle(self) -> Path:
        """Folder of the bundle."""
        return self._folder / "bundle"

    def home(self, name: str) -> Path:
        """Return the folder that is one process' FLWR_HOME."""
        return self._folder / "homes" / name

    def node_key(self, name: str) -> Path:
        """Return the file of a SuperNode's private key."""
        return self._folder / "nodes" / name

    def superlink(self) -> Begun:
        """Begin the SuperLink, or begin it again over its database, and wait until it answers.

        Raises:
            RunFailed: it does not come up.
        """
        begun = self._processes.begin(
            "superlink",
            [
                str(_program("flower-superlink")),
                *("--host", HOST, "--port", str(self.port)),
                *("--ssl-ca-certfile", self._pki(CA)),
                *("--ssl-certfile", self._pki(CERTIFICATE)),
                *("--ssl-keyfile", self._pki(KEY)),
                *("--database", str(self.database)),
                "--enable-supernode-auth",
                "--disable-runtime-dependency-installation",
            ],
            self.environment("superlink"),
        )
        self._wait_for(begun)
        return begun

    def register(self, name: str) -> None:
        """Make a SuperNode's key, and tell the SuperLink of it."""
        private = self.node_key(name)
        private.parent.mkdir(exist_ok=True)
        public = make_node_key(private)
        self._flwr("supernode", "register", str(public), "here", "--format", "json")

    def supernode(
        self,
        name: str,
        site: Path,
        env: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
        port: int | None = None,
    ) -> Begun:
        """Begin a SuperNode, or begin it again.

        Args:
            name: that it was registered by.
            site: its site.toml, or a folder of them.
            env: further environment.
            under: a command that starts it, as `unshare` and its arguments.
            port: of a proxy before the SuperLink; None for none.
        """
        own = self._ports.setdefault(name, free_port())
        return self._processes.begin(
            f"supernode-{name}",
            [
                *under,
                str(_program("flower-supernode")),
                *("--superlink", f"{HOST}:{port or self.port}"),
                *("--root-certificates", self._pki(CA)),
                *("--auth-supernode-private-key", str(self.node_key(name))),
                *("--host", HOST, "--port", str(own)),
                *("--node-config", f'site="{site.resolve()}"'),
            ],
            self.environment(name) | dict(env or {}),
        )

    def run(self, site: Path, config: Path, app: Path | None = None, **settings: object) -> int:
        """Begin a run, and return its number.

        Args:
            site, config: the convener's site.toml and run.toml.
            app: folder of another bundle than the project's own.
            settings: further keys of the run's configuration.
        """
        values: dict[str, object] = {"site": str(site), "config": str(config), **settings}
        given = " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
        folder = str(app or self.bundle)
        said = self._flwr("run", folder, "here", "--format", "json", "--run-config", given)
        return int(_json(said)["run-id"])

    def stop(self, run: int) -> None:
        """Stop a run."""
        self._flwr("stop", str(run), "here", "--format", "json")

    def status(self, run: int) -> str:
        """Return a run's status, in Flower's words: "running", "finished:completed", …"""
        found = _json(self._flwr("list", "here", "--run-id", str(run), "--format", "json"))
        return str(found["runs"][0]["status"])

    def wait(self, run: int, timeout: float, every: float = 5.0) -> str:
        """Wait until a run is over, and return its status.

        Raises:
            RunFailed: a process is over before its time, or the run takes too long.
        """
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            self._processes.check()
            status = self.status(run)
            if status.startswith("finished"):
                return status
            time.sleep(every)
        raise RunFailed(f"the run is not over after {timeout:.0f} s")

    def log(self, run: int) -> str:
        """Return what a run's server app logged."""
        return self._flwr("log", str(run), "here", "--show")

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of one process."""
        scripts = sysconfig.get_path("scripts")
        path = os.pathsep.join(filter(None, (scripts, os.environ.get("PATH"))))
        home = {"FLWR_HOME": str(self.home(name)), "PATH": path}
        return os.environ | QUIET | self._env | home

    def _flwr(self, *arguments: str) -> str:
        return self._processes.run(
            [str(_program("flwr")), *arguments], self.environment("operator") | {"NO_COLOR": "1"}
        )

    def _pki(self, name: str) -> str:
        return str(self._folder / "pki" / name)

    def _wait_for(self, begun: Begun) -> None:
        context = ssl.create_default_context(cafile=self._pki(CA))
        until = time.monotonic() + START
        while time.monotonic() < until:
            if begun.ended:
                break
            try:
                url = f"https://{HOST}:{self.port}/health"
                with urllib.request.urlopen(url, context=context, timeout=5):
                    return
            except OSError:
                time.sleep(0.3)
        raise RunFailed(f"the SuperLink does not come up:\n{begun.said()}")


def _json(said: str) -> Any:
    """Read the JSON in what a command printed, which may say other things before."""
    return json.loads(said[said.index("{") :])
