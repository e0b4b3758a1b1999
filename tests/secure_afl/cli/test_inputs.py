"""Odd inputs as people meet them, from the command line."""

import json
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.kit.commands import Command


def images(site: Path, *classes: str, kinds: str = "png", start: int = 0) -> None:
    for number, name in enumerate(classes):
        (site / name).mkdir(parents=True, exist_ok=True)
        for index in range(3):
            rng = np.random.default_rng([start, number, index])
            pixels = rng.integers(0, 80, (8, 8, 3), dtype=np.uint8) + np.uint8(100 * number)
            Image.fromarray(pixels).save(site / name / f"{index}.{kinds}")


def table(path: Path, labels: list[int], scale: float = 1.0, **arrays: object) -> None:
    rng = np.random.default_rng([ord(letter) for letter in path.stem])
    rows = np.eye(4)[labels] + rng.normal(0, 0.05, (len(labels), 4))
    np.savez(path, features=rows * scale, labels=labels, **arrays)  # type: ignore[arg-type]


LABELS = [0, 1] * 6


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "cache.sqlite"))


def test_inspect_says_what_is_there_and_keeps_it_private(command: Command) -> None:
    images(Path("site"), "[x]", ":smile:")
    images(Path("test"), "[x]", start=1)
    Path("site/[x]/a.heic").touch()
    Path("site/[x]/0.png").rename("site/:smile:/copy.png")
    os.link("site/:smile:/copy.png", "test/[x]/copy.png")
    said = command.well("inspect", "site", "--test", "test", "--json", "account.json")
    for words in (":smile:: 4, [x]: 2", "1 .heic files, which nothing here reads", "8 × 8: 6"):
        assert words in said.out
    assert "wrong: site: 1 of 6 rows are in the test set too" in said.out
    assert stat.S_IMODE(Path("account.json").stat().st_mode) == 0o600
    content = json.loads(Path("account.json").read_text())
    assert content["version"] == 1
    assert content["sites"][0]["in_test"] == 1
    assert json.loads(command.well("inspect", "site", "--json", "-").out)["sites"][0]["rows"] == 6


def test_inspect_reads_columns_whose_range_a_run_is_to_find(command: Command) -> None:
    Path("site.csv").write_text("crp,ill\n1e9,no\n3,yes\n")
    Path("d.toml").write_text(
        'target = "ill"\n[columns.crp]\ntype = "number"\n'
        '[columns.ill]\ntype = "category"\ncategories = ["no", "yes"]\n'
    )
    said = command.well("inspect", "site.csv", "--dictionary", "d.toml")
    assert "without a range, for --scale federated: crp" in said.err
    assert "out of range" not in said.out


def test_inspect_goes_on_where_a_run_refuses(command: Command) -> None:
    images(Path("sites/a"), "Cat", "dog")
    images(Path("sites/b"), "cat", "dog", start=1)
    line = command.badly("run", "--clients", "sites/*", "--backbone", "identity")
    assert "'Cat' (of sites/a) and 'cat' (of sites/b) look like one" in line
    assert "wrong: the classes 'Cat'" in command.well("inspect", "sites/*").out
    Path("names.toml").write_text('[classes]\n"Cat" = "cat"\n')
    settings = ("--clients", "sites/*", "--backbone", "identity", "--mapping", "names.toml")
    assert "192 × 2" in command.well("run", *settings).out
    assert "Nothing looks wrong" in command.well("inspect", "sites/a", *settings[4:]).out


def test_a_run_says_first_what_is_doubtful(command: Command) -> None:
    images(Path("sites/a"), "x", "y", kinds="tif")
    images(Path("sites/b"), "x", "y")
    Path("sites/b/z").mkdir()
    for name in ("1.heic", "2.heic"):
        Path("sites/b/z", name).touch()
    said = command.well("run", "--clients", "sites/*", "--backbone", "identity")
    first, second = said.err.strip().splitlines()
    assert first.startswith("Warning: b: 2 files are left out (.heic files")
    assert second.startswith("Warning: b: class folders without an image that can be read: 'z'")
    assert "what was read" in said.out


def test_three_lines_are_the_most(command: Command) -> None:
    for name in "abcde":
        images(Path("sites") / name, "x", "y", start=ord(name))
        Path(f"sites/{name}/x/1.heic").touch()
    said = command.well("run", "--clients", "sites/*", "--backbone", "identity").err.strip()
    assert len(said.splitlines()) == 3
    assert said.endswith("… and 3 more: secure-afl inspect PATH… says all.")


def test_with_noise_nothing_is_said_of_rows(command: Command) -> None:
    for name in ("a", "b", "c"):
        table(Path(f"{name}.npz"), [*LABELS, 0], classes=np.array(["u", "v"]))
    settings = ("--clients", "*.npz", "--max-rows", "16", "--epsilon", "1")
    said = command.well("run", *settings)
    assert "what was read" not in said.out
    assert "equal" not in said.err


def test_one_class_in_all_is_refused(command: Command) -> None:
    for name in ("a", "b"):
        table(Path(f"{name}.npz"), [1] * 4)
    assert "are of one class, '1'" in command.badly("run", "--clients", "*.npz")


@pytest.mark.parametrize(
    ("scale", "words"),
    [(0.0, "'b' are zero"), (1e-60, "b: the features of row 0 are below"), (1e-40, "row 0 are")],
)
def test_data_of_zeros_or_next_to_it_are_refused(
    command: Command, scale: float, words: str
) -> None:
    table(Path("a.npz"), LABELS)
    table(Path("b.npz"), LABELS, scale)
    outcome = command("run", "--clients", "*.npz")
    assert outcome.code == 2
    assert words in outcome.err.splitlines()[-1]
    # With noise it is refused too, before anybody enrols.
    settings = ("--epsilon", "1", "--max-rows", "16")
    assert words in command.badly("run", "--clients", "*.npz", *settings)


def test_text_of_data_is_never_markup(command: Command) -> None:
    for name in ("a", "b"):
        table(Path(f"{name}.npz"), LABELS, classes=np.array(["[/b]", ":warning:"]))
    Path("[old]").mkdir()
    Path("a.npz").rename("[old]/a.npz")
    Path("b.npz").rename("[old]/b.npz")
    command.well("run", "--clients", "[[]old]/*.npz", "--out", "out")
    said = command.well("evaluate", "out", "[old]/a.npz").out
    for words in ("[/b]", ":warning:", "out on [old]/a.npz"):
        assert words in said
    head, first, *_ = command.well("predict", "out", "[old]/a.npz").out.splitlines()
    assert head.startswith("example,class,score,p::warning:,p:[/b]")
    assert first.startswith("0,[/b]")


def test_brackets_of_a_folder_get_a_hint(command: Command) -> None:
    for name in ("a", "b"):
        images(Path("study [2]") / name, "x", "y", start=ord(name))
    line = command.badly("run", "--clients", "study [2]/*")
    assert "write 'study [[]2]/*'" in line
    command.well("run", "--clients", "study [[]2]/*", "--backbone", "identity")


def test_a_pattern_without_quotes_gets_a_hint(command: Command) -> None:
    for name in ("a", "b", "c"):
        images(Path("sites") / name, "x", "y", start=ord(name))
    outcome = command("run", "--clients", "sites/a", "sites/b", "sites/c")
    assert outcome.code == 2
    assert "quote it: --clients 'sites/*'" in " ".join(outcome.err.split())
    assert "quote" not in command("run", "sites/nothing").err


def test_the_home_folder_is_known_without_a_shell(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("a", "b"):
        images(tmp_path / "home" / "sites" / name, "x", "y", start=ord(name))
    Path("run.toml").write_text('clients = "~/sites/*"\nbackbone = "identity"\nout = "~/out"\n')
    command.well("run", "--config", "run.toml")
    assert (tmp_path / "home" / "out" / "model.safetensors").exists()
    command.well("run", "--clients=~/sites/*", "--backbone", "identity")
    assert "100.0%" in command.well("evaluate", "~/out", "~/sites/a").out


def test_output_is_utf8_with_lf(tmp_path: Path) -> None:
    import subprocess

    images(Path("sites/a"), "müde", "wach")
    said = subprocess.run(
        [sys.executable, "-m", "secure_afl", "inspect", "sites/a"],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(ROOT)},
    )
    assert "müde: 3" in said.stdout.decode("utf-8")
    assert b"\r" not in said.stdout


ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_a_class_folder_that_is_not_utf8_is_refused_before_the_features(command: Command) -> None:
    for name in ("a", "b"):
        images(Path("sites") / name, "x", "y", start=ord(name))
    os.rename(b"sites/b/x", b"sites/b/caf\xe9")  # noqa: PTH104
    line = command.badly("run", "--clients", "sites/*", "--backbone", "identity")
    assert r"the folder sites/b/caf\xe9 has a name that is not UTF-8" in line
    assert "rename it" in line


def test_both_spellings_of_a_key_are_refused(command: Command) -> None:
    Path("run.toml").write_text("min-cohort = 8\nmin_cohort = 8\n")
    assert "'min_cohort' twice" in command.badly("run", "--config", "run.toml")


def test_settings_are_read_as_windows_saves_them(command: Command) -> None:
    text = 'partition = "iid:4"\r\nprotocol = "plain"\r\n'
    for content in (b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16")):
        Path("run.toml").write_bytes(content)
        assert "4 of 4" in command.well("run", "--config", "run.toml").out


@pytest.mark.parametrize(("delta", "warned"), [("0.1", True), (str(1 / 48), True), ("0.02", False)])
def test_a_delta_for_whole_rows_is_warned_of(command: Command, delta: str, warned: bool) -> None:
    for name in ("a", "b", "c"):
        table(Path(f"{name}.npz"), [*LABELS, 0], classes=np.array(["u", "v"]))
    settings = ("--clients", "*.npz", "--max-rows", "16", "--epsilon", "1", "--delta", delta)
    said = command.well("run", *settings).out
    assert ("is not below 1 / 48, the declared bound on all rows" in said) == warned
    assert ("--delta 2e-03" in said) == warned


def test_a_run_without_a_ledger_says_so_once(command: Command) -> None:
    for name in ("a", "b"):
        table(Path(f"{name}.npz"), LABELS)
    assert command.well("run", "--clients", "*.npz").out.count("No ledger") == 1
    ledger = ("--ledger", "l.json", "--new-ledger")
    assert "No ledger" not in command.well("run", "--clients", "*.npz", *ledger).out
    assert "No ledger" not in command.well("run", "--partition", "iid:3").out
