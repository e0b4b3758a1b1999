"""An operator's files: the proxy is nginx itself, in front of a real SuperLink."""

import configparser
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509

from protocols import Additive
from protocols.errors import SecureAflError
from secure_afl.errors import ConfigError
from secure_afl.flower.deploy import bundle
from secure_afl.flower.deploy.operator import Plan, nginx, superlink_unit, supernode_unit, texts
from secure_afl.flower.deploy.pki import CA, KEY, make_certificates, make_node_key
from secure_afl.flower.deploy.processes import Processes, free_port

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def test_certificates_name_their_hosts_and_keys_are_for_their_owner(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["superlink.example.org", "192.0.2.7"])
    server = x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes())
    authority = x509.load_pem_x509_certificate((tmp_path / CA).read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["superlink.example.org"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="never overwritten"):
        make_certificates(tmp_path, ["other"])
    with pytest.raises(ConfigError, match="--host"):
        make_certificates(tmp_path / "new", [])


def test_a_node_key_is_as_openssh_writes_it(tmp_path: Path) -> None:
    public = make_node_key(tmp_path / "node")
    assert public.read_text().startswith("ecdsa-sha2-nistp384 ")
    assert (tmp_path / "node").read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert (tmp_path / "node").stat().st_mode & 0o777 == 0o600


def test_the_bundle_has_no_python_and_other_files_are_refused(tmp_path: Path) -> None:
    bundle.write_bundle(tmp_path / "bundle")
    settings = tomllib.loads((tmp_path / "bundle" / bundle.FILE).read_text())
    assert settings["project"]["dependencies"] == []
    (tmp_path / "bundle" / "evil.py").write_text("")
    with pytest.raises(ConfigError, match=r"evil\.py"):
        bundle.write_bundle(tmp_path / "bundle")


def test_installed_apps_are_compared_with_the_bundle(tmp_path: Path) -> None:
    bundle.write_bundle(tmp_path / "known")
    assert bundle.unknown_in(tmp_path) == []
    changed = bundle.CONTENT.replace("secure_afl.flower.client:app", "evil.client:app")
    for name, file, text in (
        ("another", "pyproject.toml", changed),
        ("damaged", "pyproject.toml", "["),
        ("more", "secure_afl/flower/client.py", ""),
    ):
        bundle.write_bundle(tmp_path / name)
        (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / file).write_text(text)
    (tmp_path / "file").write_text("")
    assert bundle.unknown_in(tmp_path) == ["another", "damaged", "file", "more"]


def test_units_restart_and_hold_to_their_folders(tmp_path: Path) -> None:
    plan = Plan(tmp_path, "superlink.example.org")
    for text in (superlink_unit(plan), supernode_unit(plan)):
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(text)
        assert unit["Service"]["Restart"] == "always"
        assert unit["Service"]["User"] == "blind-sum"
        assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert "ReadOnlyPaths=/var/lib/blind-sum/flwr/apps" in supernode_unit(plan)
    assert "--enable-supernode-auth" in superlink_unit(plan)
    assert "--host 127.0.0.1" in superlink_unit(plan)
    assert tomllib.loads(texts(plan)["operator/config.toml"])["superlink"]["default"] == "here"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    plan = Plan(tmp_path, "superlink.example.org", user="daemon")
    for name, text in (
        ("a-superlink.service", superlink_unit(plan)),
        ("a-supernode.service", supernode_unit(plan)),
    ):
        if "flower-" in text and not (plan.scripts / "flower-superlink").exists():
            pytest.skip("needs the extra 'flower'")
        (tmp_path / name).write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        about = [line for line in done.stderr.splitlines() if "a-super" in line]
        assert about == [], done.stderr


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """nginx with the shipped server, in front of a real SuperLink; its port, and the authority."""
    pytest.importorskip("flwr", reason="needs the extra 'flower'")
    if NGINX is None:
        pytest.skip("nginx is not installed")
    from secure_afl.flower.deploy.engine import Engine

    with Processes(tmp_path / "logs") as processes:
        engine = Engine(tmp_path / "flower", processes)
        engine.superlink()
        port = begin_nginx(tmp_path, processes, tmp_path / "flower", engine.port)
        yield port, tmp_path / "flower" / "pki" / CA


def begin_nginx(folder: Path, processes: Processes, files: Path, upstream: int) -> int:
    """Begin nginx with the shipped server and nothing else; return its port."""
    port = free_port()
    plan = Plan(files, "localhost", port=port, upstream=upstream)
    (folder / "server.conf").write_text(nginx(plan))
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        + ("user root;\n" if os.geteuid() == 0 else "")
        + "http {\n"
        + "".join(
            f"{kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"access_log {folder}/access.log;\ninclude {folder}/server.conf;\n}}\n"
    )
    assert NGINX is not None
    begun = processes.begin("nginx", [NGINX, "-c", str(folder / "nginx.conf")], dict(os.environ))
    for _ in range(100):
        assert not begun.ended, begun.said()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return port
        except OSError:
            time.sleep(0.1)
    raise AssertionError(begun.said())


def ask(port: int, authority: Path, method: str, path: str) -> int:
    context = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    # http.client sends the path as it is, dots and all.
    connection.putrequest(method, path, skip_accept_encoding=True)
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


REFUSED = [
    "/v1/control/list-runs",
    "/v1/control/start-run",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/docs",
    "/openapi.json",
    "/",
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet//control/list-runs",
    "//v1/control/list-runs",
    "/v1/control/list-runs?/v1/fleet/get-run",
    "/v1/fleet/get-run?x=/v1/control/list-runs",
    "/V1/CONTROL/list-runs",
    "/v1%2fcontrol%2flist-runs",
    "/health/../v1/control/list-runs",
    "/v1/fleet/get-run/../../control/list-runs",
    "/v1/fleet/",
]


@pytest.mark.slow
def test_nginx_lets_only_the_fleet_through(proxy: tuple[int, Path]) -> None:
    port, authority = proxy
    assert ask(port, authority, "GET", "/health") == 200
    # Through to the SuperLink, which wants a signature there.
    assert ask(port, authority, "POST", "/v1/fleet/pull-messages") in (400, 401, 415, 422)
    for path in REFUSED:
        for method in ("GET", "POST"):
            assert ask(port, authority, method, path) in (400, 403), path


@pytest.mark.nightly
def test_supernodes_behind_nginx_make_an_exact_sum(tmp_path: Path) -> None:
    pytest.importorskip("flwr", reason="needs the extra 'flower'")
    if NGINX is None:
        pytest.skip("nginx is not installed")
    from tests.kit.flower import Loopback, oracle
    from tests.secure_afl.sites.test_sites import CLIENTS, charges

    with Loopback(tmp_path, Additive(), CLIENTS) as loopback:
        files, port = tmp_path / "flower", loopback.engine.port
        loopback.proxy = begin_nginx(tmp_path, loopback.processes, files, port)
        loopback.begin()
        assert loopback.finish(loopback.run()) == "finished:completed", loopback.said()
        report = loopback.report()
        assert report["included"] == sorted(CLIENTS)
        assert np.array_equal(loopback.weights(), oracle(CLIENTS, report["feature_bits"]))
        for name in CLIENTS:
            assert charges(loopback.sites, name) == [(True, True)]
        # Every request came through: nginx has written each down.
        asked = (tmp_path / "access.log").read_text()
        for what in ("activate-node", "pull-messages", "push-messages", "push-object"):
            assert f'"POST /v1/fleet/{what} HTTP/1.1" 200' in asked, asked[-2000:]


@pytest.mark.slow
def test_without_the_proxy_the_control_interface_answers_anybody(tmp_path: Path) -> None:
    """Which is why there is one: this is the hole, shown."""
    pytest.importorskip("flwr", reason="needs the extra 'flower'")
    from secure_afl.flower.deploy.engine import Engine

    with Processes(tmp_path / "logs") as processes:
        engine = Engine(tmp_path, processes)
        engine.superlink()
        status = ask(engine.port, tmp_path / "pki" / CA, "POST", "/v1/control/list-runs")
        assert status not in (401, 403, 404)


@pytest.mark.slow
def test_deploy_init_writes_what_an_operator_needs(tmp_path: Path) -> None:
    pytest.importorskip("flwr", reason="needs the extra 'flower'")
    from secure_afl.flower.deploy.operator import write_all

    folder = tmp_path / "here"
    files = {str(path.relative_to(folder)) for path in write_all(Plan(folder, "sl.example.org"))}
    fabs = {name for name in files if name.endswith(".fab")}
    assert len(fabs) == 1
    assert {"pki/server.key", "bundle/pyproject.toml", "site/ca.crt", "README.md"} <= files
    with pytest.raises(SecureAflError, match="not empty"):
        write_all(Plan(folder, "sl.example.org"))
