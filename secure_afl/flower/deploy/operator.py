"""`secure-afl deploy init`: an operator's files for one SuperLink, and units for its sites."""

import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from secure_afl.errors import ConfigError, RunFailed
from secure_afl.flower.deploy.bundle import write_bundle
from secure_afl.flower.deploy.engine import QUIET, check_installed
from secure_afl.flower.deploy.pki import CA, CERTIFICATE, KEY, make_certificates

STATE = Path("/var/lib/blind-sum")
"""Where units keep state, by default: a database here, a site's things there."""


@dataclass(frozen=True)
class Plan:
    """What an operator decides.

    Attributes:
        folder: of all files; the SuperLink's unit reads certificates there.
        host: name or address by which sites reach the SuperLink.
        port: of the proxy, to which sites connect.
        upstream: port of the SuperLink on the operator's own machine.
        user: unprivileged, of SuperLink and SuperNodes.
        scripts: folder of Flower's programs, as the units name them.
        state: where units keep state.
    """

    folder: Path
    host: str
    port: int = 443
    upstream: int = 8000
    user: str = "blind-sum"
    scripts: Path = Path(sysconfig.get_path("scripts"))
    state: Path = STATE

    @property
    def pki(self) -> Path:
        """Folder of the certificates."""
        return self.folder / "pki"


def write_all(plan: Plan) -> list[Path]:
    """Write certificates, bundle, proxy, units, Flower's configuration, and what to do next.

    Returns:
        The files.

    Raises:
        ConfigError: no Flower here, or files that are there already.
        RunFailed: Flower does not build the bundle.
    """
    check_installed()
    if plan.folder.exists() and any(plan.folder.iterdir()):
        raise ConfigError(f"{plan.folder} is not empty; name a new folder")
    for name, text in texts(plan).items():
        path = plan.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    make_certificates(plan.pki, [plan.host, "localhost", "127.0.0.1"])
    write_bundle(plan.folder / "bundle")
    build(plan.folder / "bundle", plan.folder / "site")
    shutil.copy(plan.pki / CA, plan.folder / "site" / CA)
    return sorted(path for path in plan.folder.rglob("*") if path.is_file())


def build(bundle: Path, into: Path) -> Path:
    """Let Flower build the bundle, which sites install; return its file.

    Raises:
        RunFailed: Flower does not.
    """
    import os

    command = [str(Path(sysconfig.get_path("scripts")) / "flwr"), "build", "--app", str(bundle)]
    env = os.environ | QUIET
    done = subprocess.run(command, cwd=into, env=env, capture_output=True, text=True, check=False)
    files = sorted(into.glob("*.fab"))
    if done.returncode or len(files) != 1:
        raise RunFailed(f"flwr build failed: {(done.stdout + done.stderr).strip()[-2000:]}")
    return files[0]


def texts(plan: Plan) -> dict[str, str]:
    """Return the text of each file, by its name in the folder."""
    return {
        "README.md": _readme(plan),
        "operator/nginx.conf": nginx(plan),
        "operator/blind-sum-superlink.service": superlink_unit(plan),
        "operator/config.toml": (
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\n'
            f'address = "127.0.0.1:{plan.upstream}"\nroot-certificates = "{plan.pki / CA}"\n'
        ),
        "site/blind-sum-supernode.service": supernode_unit(plan),
    }


def nginx(plan: Plan) -> str:
    """Write a server for nginx that lets SuperNodes through, and nobody else.

    The SuperLink's control and runtime interfaces share its port, and know no passwords. The
    address is compared as it came, before nginx decodes anything.
    """
    return f"""\
# For /etc/nginx/conf.d/. Only what SuperNodes ask for gets through: Flower's control interface,
# which starts runs, and its runtime interface share the SuperLink's port and know no passwords.
map $request_uri $blind_sum_allowed {{
    default 0;
    "~^/v1/fleet/[a-z-]+$" 1;
    "/health" 1;
}}

server {{
    listen {plan.port} ssl;
    server_name {plan.host};
    ssl_certificate {plan.pki / CERTIFICATE};
    ssl_certificate_key {plan.pki / KEY};
    ssl_protocols TLSv1.2 TLSv1.3;
    server_tokens off;

    # Flower sends mail in pieces of 5 MB.
    client_max_body_size 64m;
    proxy_request_buffering off;
    proxy_buffering off;
    proxy_read_timeout 300s;

    if ($blind_sum_allowed = 0) {{
        return 403;
    }}
    location / {{
        proxy_pass https://127.0.0.1:{plan.upstream};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_ssl_trusted_certificate {plan.pki / CA};
        proxy_ssl_verify on;
        proxy_ssl_name localhost;
    }}
}}
"""


def superlink_unit(plan: Plan) -> str:
    """Write the SuperLink's unit for systemd; it listens on the operator's own machine alone."""
    pki = plan.pki
    command = (
        f"{plan.scripts}/flower-superlink --host 127.0.0.1 --port {plan.upstream}"
        f" --ssl-ca-certfile {pki / CA} --ssl-certfile {pki / CERTIFICATE}"
        f" --ssl-keyfile {pki / KEY} --database {plan.state}/superlink.db"
        " --enable-supernode-auth --disable-runtime-dependency-installation"
    )
    return _unit("Flower SuperLink, for blind sums", plan, command, "")


def supernode_unit(plan: Plan) -> str:
    """Write a site's unit for systemd; the bundle's folder is read-only to all that runs in it."""
    command = (
        f"{plan.scripts}/flower-supernode --superlink {plan.host}:{plan.port}"
        f" --root-certificates {plan.state}/{CA}"
        f" --auth-supernode-private-key {plan.state}/node"
        f""" --node-config 'site="{plan.state}/site.toml"'"""
    )
    return _unit(
        "Flower SuperNode, for blind sums",
        plan,
        command,
        # A bundle that is not there cannot be installed, and what is not installed does not run.
        f"ReadOnlyPaths={plan.state}/flwr/apps\n",
    )


def _unit(description: str, plan: Plan, command: str, more: str) -> str:
    return f"""\
[Unit]
Description={description}
After=network-online.target
Wants=network-online.target
# Flower refuses a SuperNode for a minute after its death: try for as long as it takes.
StartLimitIntervalSec=0

[Service]
User={plan.user}
Environment=FLWR_HOME={plan.state}/flwr
Environment=FLWR_TELEMETRY_ENABLED=0
Environment=FLWR_DISABLE_UPDATE_CHECK=1
Environment=PATH={plan.scripts}:/usr/bin:/bin
ExecStart={command}
Restart=always
RestartSec=5
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ReadWritePaths={plan.state}
{more}
[Install]
WantedBy=multi-user.target
"""


def _readme(plan: Plan) -> str:
    return f"""\
# Blind sums over Flower, at {plan.host}

`docs/deployment.md` of the project explains who can do what. These files hold one private key,
`pki/{KEY}`; only this machine needs it.

## Here, at the operator

1. Make the user: `useradd --system --home {plan.state} --create-home {plan.user}`. Let it read the
   certificates: `chown -R {plan.user} pki`.
2. Install `operator/blind-sum-superlink.service` in `/etc/systemd/system/`, and
   `operator/nginx.conf` in `/etc/nginx/conf.d/`; start both. No other machine may reach port
   {plan.upstream}.
3. Put `operator/config.toml` into `~/.flwr/` of whoever starts runs.
4. Make key, site.toml and run.toml of the party that receives the sums (`docs/sites.md`). The
   SuperLink's user has to read them, and to write their state.
5. For every site: `flwr supernode register NAME.pub here`, with the key that the site sent.
6. Start a run; after a death of anything, the same with `resume=true`:

       flwr run {plan.folder}/bundle here \\
           --run-config 'site="/…/site.toml" config="/…/run.toml"'

## At each site: send them `site/`

1. As root, make the user as above. Install the project with the extra `flower` where that user
   cannot write. The unit names {plan.scripts}: put your folder of programs there.
2. Make the party: keygen, the roster, and `site.toml` in `{plan.state}` (`docs/sites.md`); then, as
   that user, `secure-afl site prepare --new-ledger`.
3. Make the node's key, and send `node.pub` to the operator:
   `ssh-keygen -t ecdsa -b 384 -N '' -f {plan.state}/node`.
4. As root, so that nobody else can write there: `FLWR_HOME={plan.state}/flwr flwr install *.fab`,
   and `cp {CA} {plan.state}/`.
5. As that user, until all is ok:

       secure-afl site check --site {plan.state}/site.toml --flwr-home {plan.state}/flwr \\
           --superlink {plan.host}:{plan.port} --root-certificates {plan.state}/{CA}

6. Install and start `blind-sum-supernode.service`.
"""
