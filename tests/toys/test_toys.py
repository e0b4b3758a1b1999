"""A toy protocol, method and attack, each one file, reach everything that the project's own do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from attacks.attack import ATTACKS
from attacks.suite.adversaries import known_adversaries
from protocols import Plain
from protocols.errors import BrokenExtension
from protocols.protocol import PROTOCOLS
from protocols.registry import Registry
from protocols.roster import CLIENT
from secure_afl import AFL, Additive, Federation
from secure_afl.errors import ConfigError
from secure_afl.methods.method import METHODS
from secure_afl.runs.settings import json_schema, make_config, setting
from tests.kit.commands import Command, run_flags
from tests.kit.protocols import ProtocolSuite
from tests.kit.samples import make_clients
from tests.toys.attack import ToyLargestClass
from tests.toys.method import ToyMeans
from tests.toys.protocol import Toy

ROOT = Path(__file__).parents[2]
DIGITS = ("--backbone", "identity", "--partition", "iid:4")


class TestToy(ProtocolSuite):
    """The shared oracle suite."""

    protocol = Toy(factor=7)
    examples = 8


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("COLUMNS", "160")
    return Command(monkeypatch, capsys)


def test_the_registries_hold_them() -> None:
    assert PROTOCOLS["toy"] is Toy
    assert METHODS["toy-means"] is ToyMeans
    assert ATTACKS["toy-largest-class"] is ToyLargestClass
    assert known_adversaries()["toy-server"].parties(Toy(), ["a", "b", "c"], 1) == ("server",)
    assert known_adversaries()["toy-server"].parties(Plain(), ["a", "b", "c"], 1) is None


def test_their_options_are_flags_keys_and_properties() -> None:
    flags = run_flags()
    for name, owner in (("factor", "toy"), ("stretch", "toy-means")):
        assert flags[f"--{name}"][1].startswith(f"{owner}: ")
        assert json_schema()["$defs"]["RunConfig"]["properties"][name]["description"].startswith(
            f"{owner}: "
        )
    assert "toy: a server sees all, times a factor." in setting("protocol").description
    assert "toy-means: the nearest class mean." in setting("method").description
    config = make_config({"protocol": "toy", "factor": 5, "method": "toy-means", "stretch": 2})
    assert config.options == (("factor", 5), ("stretch", 2.0))
    with pytest.raises(ConfigError, match=r"--factor has no effect .* choose toy"):
        make_config({"factor": 5})
    with pytest.raises(ConfigError, match=r"'factor': 0 is not allowed; allowed: integer and ≥ 1"):
        make_config({"protocol": "toy", "factor": 0})


@pytest.mark.parametrize(
    ("method", "protocol"), [(ToyMeans(), Additive()), (AFL(), Toy()), (ToyMeans(), Toy(factor=9))]
)
def test_runs_with_them_are_exact(method: AFL | ToyMeans, protocol: Toy | Additive) -> None:
    report = Federation(method, protocol).run(make_clients((20, 30, 25)), drop=["c1"]).report
    assert report.exact
    assert (report.method, report.protocol) == (method.name, protocol.name)


def test_the_command_line_runs_them(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    toys = ("--protocol", "toy", "--factor", 5, "--method", "toy-means", "--stretch", 2)
    said = command.well("run", *DIGITS, *toys, "--out", out).out
    assert "toy-means / toy" in said
    assert "Protocol 'toy' protects nothing: the server knows the factor." in " ".join(said.split())
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["exact"]
    assert report["accuracy"]["federated"] > 0.8
    assert (report["settings"]["factor"], report["settings"]["stretch"]) == (5, 2.0)
    assert "even" not in command.badly("run", *DIGITS, "--protocol", "toy", "--factor", 4)


@pytest.mark.slow
def test_they_reach_the_report_and_the_leakage_matrix(command: Command, tmp_path: Path) -> None:
    outcome = command.well(
        "attack",
        *DIGITS,
        *("--attacks", "toy-largest-class,client-statistics"),
        *("--methods", "toy-means,afl", "--protocols", "toy,additive", "--factor", 11),
        *("--rows", 40, "--sweep", "none", "--out", tmp_path),
    )
    said = outcome.out
    assert "nothing here opens uploads of toy:" in " ".join(outcome.err.split())
    assert "toy-means, exact sums, 40 rows in the sum" in said
    assert "server of the toy" in said
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    by = {(c["attack"], c["method"], c["protocol"], c["adversary"]): c for c in results["cells"]}
    cell = by["toy-largest-class", "toy-means", "toy", "toy-server"]
    assert (cell["claimed"], cell["measures"][0]["value"]) == (True, 1.0)
    assert by["toy-largest-class", "afl", "additive", "collector"]["claimed"]
    assert not by["toy-largest-class", "toy-means", "toy", "outsider"]["claimed"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (
        "toy-largest-class", "toy-means", "server of the toy", "Names the largest class",
        "Nothing here opens uploads of toy:",
    ):  # fmt: skip
        assert text in page


@pytest.mark.slow
def test_other_distributions_bring_theirs_by_entry_points(tmp_path: Path) -> None:
    """As an installed package would: its metadata, and a file each."""
    for kind in ("protocol", "method"):
        source = (ROOT / "tests" / "toys" / f"{kind}.py").read_text(encoding="utf-8")
        (tmp_path / f"guest_{kind}.py").write_text(
            source.replace('"toy', '"guest')
            .replace("@PROTOCOLS.register\n", "")
            .replace("@METHODS.register\n", ""),
            encoding="utf-8",
        )
    (tmp_path / "guest_command.py").write_text(
        "def greet() -> None:\n    '''Greet whoever calls.'''\n    print('good day')\n",
        encoding="utf-8",
    )
    write_metadata(
        tmp_path,
        "[secure_afl.protocols]\nguest = guest_protocol:Toy\n"
        "[secure_afl.methods]\nguest-means = guest_method:ToyMeans\n"
        "[secure_afl.commands]\ngreet = guest_command:greet\n",
    )
    chosen = ("--protocol", "guest", "--method", "guest-means", "--stretch", "2")
    done = secure_afl(tmp_path, "run", *DIGITS, *chosen)
    assert done.returncode == 0, done.stderr
    assert "guest-means / guest" in done.stdout
    assert "Greet whoever calls." in secure_afl(tmp_path, "--help").stdout
    assert secure_afl(tmp_path, "greet").stdout == "good day\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("[secure_afl.protocols]\nbroken = nowhere:Nothing\n", "'broken', which cannot be loaded"),
        ("[secure_afl.methods]\nbroken = json:JSONDecoder\n", "JSONDecoder is no method"),
        ("[secure_afl.protocols]\nagain = guest:Again\n", "two classes are protocol 'plain'"),
        ("[secure_afl.methods]\nclash = guest:Clash\n", "declares the option 'seed'"),
        ("[secure_afl.methods]\nown = guest:Own\n", "two settings are called 'config'"),
        ("[secure_afl.methods]\nhalf = guest:Half\n", "Half lacks absorb, begin, contribute"),
        ("[secure_afl.methods]\nmute = guest:Mute\n", "Mute lacks public, summary"),
        ("[secure_afl.protocols]\nneedy = guest:Needy\n", "Needy lacks a default of size"),
    ],
)
def test_a_broken_extension_is_named_and_nothing_runs(
    tmp_path: Path, entry: str, said: str
) -> None:
    (tmp_path / "guest.py").write_text(
        "from typing import Annotated\n"
        "from msgspec import Meta\n"
        "from protocols.schemes.plain import Plain\n"
        "from secure_afl.methods.afl import AFL\n"
        "from secure_afl.methods.method import Method\n"
        "class Again(Plain, frozen=True, tag='again'):\n    pass\n"
        "class Clash(AFL, frozen=True, tag='clash'):\n"
        "    name = 'clash'\n"
        "    seed: Annotated[int, Meta(description='another seed.')] = 0\n"
        "class Own(AFL, frozen=True, tag='own'):\n"
        "    name = 'own'\n"
        "    config: Annotated[int, Meta(description='a setting of its own.')] = 0\n"
        "class Half(Method, frozen=True, tag='half'):\n"
        "    name = 'half'\n"
        "class Mute(Half, frozen=True, tag='mute'):\n"
        "    name = 'mute'\n"
        "    begin = layout = sensitivity = contribute = absorb = model = print\n"
        "class Needy(Plain, frozen=True, kw_only=True, tag='needy'):\n"
        "    name = 'needy'\n"
        "    size: int\n",
        encoding="utf-8",
    )
    write_metadata(tmp_path, entry)
    done = secure_afl(tmp_path, "run", *DIGITS)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert said in line
    assert "Traceback" not in done.stderr


def test_whoever_asks_again_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_metadata(tmp_path, "[guests.broken]\nbroken = nowhere:Nothing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry: Registry[Toy] = Registry("toy", Toy, (), "guests.broken")
    for _ in range(2):
        with pytest.raises(BrokenExtension, match="guest announces the toy 'broken'"):
            registry["toy"]
        with pytest.raises(BrokenExtension):
            list(registry)


def test_a_toy_hides_nothing_and_says_so() -> None:
    assert not Toy.hides_vectors
    assert set(Toy.parties()) == {CLIENT, "server"}
    assert Toy().coordinators() == {"server": "server"}


def write_metadata(folder: Path, entry_points: str) -> None:
    metadata = folder / "guest-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: guest\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)


def secure_afl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process that has the folder's distribution installed."""
    code = (
        f"import sys; sys.path.append({str(folder)!r}); "
        "from secure_afl.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
