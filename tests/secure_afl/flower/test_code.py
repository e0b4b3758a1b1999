"""Who can change a site's code: an operator's bundle, at a site that takes any, and at ours."""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from protocols import Additive
from secure_afl.flower.check import Node, check_node
from secure_afl.flower.deploy.bundle import CONTENT, write_bundle
from secure_afl.flower.deploy.engine import Engine
from secure_afl.flower.deploy.operator import build
from secure_afl.flower.deploy.processes import Processes
from secure_afl.sites.check import Finding
from tests.kit.flower import Loopback
from tests.secure_afl.flower.test_operator import NGINX, begin_nginx
from tests.secure_afl.sites.test_sites import CLIENTS

NOBODY = 65534
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def read_only(folder: Path) -> list[str]:
    """Start a process to which a folder is read-only, as a unit's ReadOnlyPaths makes it."""
    under = ["unshare", "--mount", "sh", "-c", READ_ONLY, str(folder)]
    done = subprocess.run([*under, "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounts are not allowed here")
    return under


def write_foreign(folder: Path, mark: Path) -> None:
    """A bundle with a name, a version and a configuration like ours, and code of its own."""
    folder.mkdir()
    text = CONTENT.replace("secure_afl.flower.server", "theirs")
    text = text.replace("secure_afl.flower.client:app", "theirs:client")
    (folder / "pyproject.toml").write_text(text)
    (folder / "theirs.py").write_text(
        f"""
from flwr.app import Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
import pathlib, time

app = ServerApp()

@app.main()
def main(grid, context):
    nodes = []
    while not nodes:
        nodes = list(grid.get_node_ids())
        time.sleep(1)
    ask = Message(RecordDict(), nodes[0], "query")
    sent, replies = list(grid.push_messages([ask])), []
    for _ in range(60):
        replies = list(grid.pull_messages(sent))
        if replies:
            break
        time.sleep(1)
    print("ANSWER", [str(reply.error) if reply.has_error() else "done" for reply in replies])

client = ClientApp()

@client.query()
def query(message, context):
    pathlib.Path({str(mark)!r}).write_text("ran")
    return Message(RecordDict(), reply_to=message)
"""
    )


@pytest.mark.nightly
def test_a_foreign_bundle_runs_at_an_open_site_and_is_refused_at_ours(tmp_path: Path) -> None:
    mark, foreign, home = tmp_path / "ran", tmp_path / "theirs", tmp_path / "home"
    write_foreign(foreign, mark)
    with Loopback(tmp_path, Additive(), CLIENTS) as loopback:
        engine = loopback.engine
        engine.register("c0")
        env = {"FLWR_HOME": str(home)}
        built = build(engine.bundle, tmp_path)
        install(loopback, built, home)
        under = read_only(home / "apps")
        node = engine.supernode("c0", loopback.site("c0"), env, under)
        run = engine.run(loopback.site("collector"), Path("x"), foreign)
        loopback.finish(run)
        assert not mark.exists(), node.said()
        assert "Read-only file system" in node.log.read_text()
        assert len(list((home / "apps").iterdir())) == 1
        # The site's own bundle runs there.
        own = loopback.run()
        loopback.until(lambda: "enrolled" in loopback.told("c0"), "enrolment")
        engine.stop(own)
        # Flower as it comes: whatever bundle a run names is installed, and runs beside the keys.
        loopback.processes.forget(node)
        engine.register("open")
        node = engine.supernode("open", loopback.site("c0"))
        loopback.finish(engine.run(loopback.site("collector"), Path("x"), foreign))
        assert mark.exists(), node.said()


def install(loopback: Loopback, built: Path, home: Path) -> None:
    env = loopback.engine.environment("operator") | {"FLWR_HOME": str(home)}
    flwr = Path(sys.executable).parent / "flwr"
    loopback.processes.run([str(flwr), "install", str(built)], env)


def as_nobody(work: Callable[[], list[Finding]]) -> list[Finding]:
    """Do something as another user, in a process of its own; root alone can."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        found: object = None
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            found = work()
        except BaseException as error:
            found = repr(error)
        os.write(write, pickle.dumps(found))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = pickle.loads(pipe.read())
    os.waitpid(pid, 0)
    assert isinstance(found, list), found
    return found


@pytest.fixture
def node() -> Iterator[Node]:
    """A SuperNode's home as root leaves it, where another user can look."""
    folder = Path(tempfile.mkdtemp(prefix="secure-afl-test-"))
    folder.chmod(0o755)
    write_bundle(folder / "apps" / "secure-afl.blind-sum.1.0.0.01234567")
    yield Node(folder)
    shutil.rmtree(folder)


def failed(node: Node) -> dict[str, str]:
    """What another user's check of a node finds to be wrong, but that nobody named a SuperLink."""
    found = {f.what: f.words for f in as_nobody(lambda: list(check_node(node))) if not f.fine}
    assert "--superlink" in found.pop("control")
    assert "--superlink" in found.pop("clock")
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed: run as root")
def test_a_site_check_finds_each_way_in_for_an_operators_code(node: Node) -> None:
    apps = node.home / "apps"
    assert failed(node) == {}
    apps.chmod(0o777)
    assert "install any bundle" in failed(node)["bundle's folder"]
    apps.chmod(0o755)
    (inner,) = apps.iterdir()
    os.chown(inner / "pyproject.toml", NOBODY, NOBODY)
    assert "belongs to this user" in failed(node)["bundle's folder"]
    os.chown(inner / "pyproject.toml", 0, 0)
    write_foreign(apps / "theirs", apps / "mark")
    assert "'theirs'" in failed(node)["bundle"]
    shutil.rmtree(apps)
    assert set(failed(node)) == {"bundle", "bundle's folder"}


def test_what_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    node = Node(tmp_path / "home", "localhost:1", certificates=tmp_path / "ca.crt")
    found = {finding.what: finding.words for finding in check_node(node)}
    assert found["bundle's folder"].startswith(f"{tmp_path / 'home'} cannot be used: No such file")
    for what in ("control", "clock"):
        assert f"--certificates {tmp_path / 'ca.crt'} cannot be used: No such file" in found[what]
        assert "name the certificate of the authority" in found[what]


def test_a_site_check_says_the_most_dangerous_first(node: Node) -> None:
    found = list(check_node(node))
    assert [f.what for f in found] == [
        "user",
        "bundle",
        "bundle's folder",
        "code",
        "control",
        "clock",
    ]
    if os.geteuid() == 0:
        assert "this is root" in found[0].words


@pytest.mark.nightly
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_a_site_check_looks_through_the_proxy(tmp_path: Path, node: Node) -> None:
    with Processes(tmp_path / "logs") as processes:
        engine = Engine(tmp_path / "flower", processes)
        engine.superlink()
        proxy = begin_nginx(tmp_path, processes, tmp_path / "flower", engine.port)
        authority = tmp_path / "flower" / "pki" / "ca.crt"

        def look(port: int, certificates: Path | None = authority) -> dict[str, Finding]:
            there = replace(node, superlink=f"localhost:{port}", certificates=certificates)
            return {finding.what: finding for finding in check_node(there)}

        through = look(proxy)
        assert through["control"].fine, through["control"]
        assert through["clock"].fine, through["clock"]
        open_ = look(engine.port)
        assert not open_["control"].fine
        assert "may start runs" in open_["control"].words
        assert open_["clock"].fine
        assert "cannot be asked" in look(proxy, None)["control"].words
