"""What `secure-afl site check` looks at where a site runs under Flower, in order of danger.

It runs as the SuperNode's user, for it asks what that user may write.
"""

import http.client
import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path

from protocols.errors import SecureAflError
from secure_afl.errors import ConfigError
from secure_afl.flower.deploy.bundle import NAME, unknown_in
from secure_afl.sites.check import Finding, unusable

CONTROL = "/v1/control/list-runs"
PACKAGES = ("secure_afl", "protocols", "flwr")
# A SuperLink takes requests that were signed up to 5 s ahead of its clock, and 305 s behind.
DRIFT = 4.0


@dataclass(frozen=True)
class Node:
    """A site's SuperNode.

    Attributes:
        home: its FLWR_HOME.
        superlink: what it connects to, HOST:PORT; None leaves the other side unseen.
        certificates: of the authority that the SuperLink's certificate is from; None for the
            system's own.
    """

    home: Path
    superlink: str | None = None
    certificates: Path | None = None


def check_node(node: Node) -> Iterator[Finding]:
    """Look at everything that keeps an operator's code out, the most dangerous first."""
    looks: list[tuple[str, Callable[[Node], str]]] = [
        ("user", _user),
        ("bundle", _bundle),
        ("bundle's folder", _folder),
        ("code", _code),
        ("control", _control),
        ("clock", _clock),
    ]
    for what, look in looks:
        try:
            yield Finding(what, True, look(node))
        except (SecureAflError, ValueError) as error:
            yield Finding(what, False, str(error))
        except OSError as error:
            yield Finding(what, False, unusable(error))


def _user(node: Node) -> str:
    if os.geteuid() == 0:
        raise ConfigError(
            "this is root, whom no read-only folder stops; run the SuperNode, and this check, as "
            "an unprivileged user"
        )
    return f"unprivileged, id {os.geteuid()}"


def _bundle(node: Node) -> str:
    apps = node.home / "apps"
    if not apps.is_dir() or not any(apps.iterdir()):
        raise ConfigError(
            f"{apps} has no bundle, so that the first run's would be installed, whatever it is; as "
            f"root: FLWR_HOME={node.home} flwr install …{NAME}….fab"
        )
    if unknown := unknown_in(apps):
        raise ConfigError(
            f"{apps} has {unknown[0]!r}, which is not this project's bundle: its code runs beside "
            "this site's keys when a run names it; remove it"
        )
    return f"{apps} has nothing but this project's"


def _folder(node: Node) -> str:
    apps = node.home / "apps"
    _refuse_writable([node.home, apps, *apps.rglob("*")], "install any bundle that a run brings")
    return f"{apps} cannot be written"


def _code(node: Node) -> str:
    folders = []
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise ConfigError(
                f"{name} is not installed here; pip install 'secure-afl[flower]', where the "
                "SuperNode's user cannot write"
            )
        folders.append(Path(spec.origin).parent)
    for folder in folders:
        _refuse_writable([folder.parent, folder, *folder.rglob("*.py")], "change the site's code")
    return f"{', '.join(str(folder) for folder in folders)} cannot be written"


def _control(node: Node) -> str:
    status, _ = _ask(node, "POST", CONTROL)
    if status != http.client.FORBIDDEN:
        raise ConfigError(
            f"{node.superlink}{CONTROL} answers {status}, so that whoever reaches it may start "
            "runs; the operator's proxy has to refuse it with 403 (secure-afl deploy init)"
        )
    return f"{node.superlink} refuses it"


def _clock(node: Node) -> str:
    status, headers = _ask(node, "GET", "/health")
    if status != http.client.OK or "Date" not in headers:
        raise ConfigError(f"{node.superlink}/health answers {status}; see whether it is up")
    drift = time.time() - parsedate_to_datetime(headers["Date"]).timestamp()
    # The header has whole seconds.
    if abs(drift) > DRIFT + 1:
        raise ConfigError(
            f"this clock and the SuperLink's differ by {abs(drift):.0f} s; requests are signed "
            "with the time, and refused. Set both by NTP"
        )
    return f"within {DRIFT + 1:.0f} s of the SuperLink's"


def _ask(node: Node, method: str, path: str) -> tuple[int, http.client.HTTPMessage]:
    if node.superlink is None:
        raise ConfigError("not looked at; name the SuperLink: --superlink HOST:PORT")
    host, _, port = node.superlink.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--superlink {node.superlink!r}; wanted: HOST:PORT")
    given = None if node.certificates is None else str(node.certificates)
    try:
        context = ssl.create_default_context(cafile=given)
    except OSError as error:
        raise ConfigError(
            f"--certificates {given} cannot be used: {error.strerror}; name the certificate of the "
            "authority that the operator handed out, ca.crt"
        ) from None
    connection = http.client.HTTPSConnection(host, int(port), timeout=20, context=context)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers
    except OSError as error:
        raise ConfigError(f"{node.superlink} cannot be asked: {error}") from None
    finally:
        connection.close()


def _refuse_writable(paths: Iterable[Path], danger: str) -> None:
    """Raise ConfigError if this user may write one of some paths, or may make it so."""
    for path in paths:
        owned = path.stat().st_uid == os.geteuid()
        if owned or os.access(path, os.W_OK):
            raise ConfigError(
                f"{path} {'belongs to' if owned else 'can be written by'} this user, who could "
                f"{danger}; as root: chown -R root:root {path} && chmod -R go-w {path}"
            )
