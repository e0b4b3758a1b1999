"""Runs that are killed, find a full disk or lose their folder, and are finished afterwards."""

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.errors import Busy, SecureAflError, SessionAborted
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import (
    ConfigError,
    DataError,
    LedgerRefusal,
    NoModel,
    NotKept,
    NotResumable,
    NotSaved,
    OutOfBoundsTotal,
    Unfinished,
)
from secure_afl.federation.keys import generate
from secure_afl.federation.result import Result
from secure_afl.federation.server import FederationServer
from secure_afl.federation.simulation import Federation
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.ledger import Ledger
from secure_afl.runs.prepare import prepare
from secure_afl.runs.recovery import FOLDER, given_settings
from secure_afl.runs.run import resume, run
from secure_afl.runs.saving import save
from secure_afl.runs.settings import make_config
from tests.kit.commands import Command
from tests.kit.seats import in_child
from tests.kit.stopped import NAMES, Site, full_disk, killed_before

MANY = {"method": "fedavg", "rounds": 3, "local_epochs": 1}


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path_factory.mktemp("cache") / "features"))
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model of a run that nobody stopped."""
    whole = Site(tmp_path_factory.mktemp("whole"))
    whole.run()
    model, _ = LinearModel.load(whole.out / "model.safetensors")
    whole.check(model.weights)
    return model.weights


def stop(site: Site, monkeypatch: pytest.MonkeyPatch, *, sums: int) -> Path:
    """Let a run be killed once so many sums are on the disk; returns the folder that it leaves."""

    def killed(*_: object) -> None:
        os._exit(9)

    def work() -> None:
        absorb, left = FederationServer.absorb, sums

        def counted(self: FederationServer, *args: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(9)
            absorb(self, *args)

        if sums:
            FederationServer.absorb = counted  # type: ignore[assignment, method-assign]
        else:
            Federation._round = killed  # type: ignore[assignment, method-assign]
        site.run()

    assert in_child(work) == 9
    return site.out / FOLDER


# The first changes make the folder; then come the ledger, the sum, and the results.
@pytest.mark.slow
@pytest.mark.parametrize("change", [1, 6, 11, 16, 19, 25, 31, 34, 37, 39, 42, 44, 46, 49, 52, 55])
def test_a_run_that_is_killed_at_a_change_of_the_disk_is_finished_from_one_release(
    site: Site, weights: Any, change: int
) -> None:
    assert killed_before(change, site.run)
    site.finish()
    site.check(weights)


@pytest.mark.parametrize("change", [20, 44, 58, 68, 80, 93])
def test_so_is_a_run_of_many_rounds(tmp_path: Path, change: int) -> None:
    site = Site(tmp_path, **MANY)
    assert killed_before(change, site.run)
    site.finish()
    site.check(None, rounds=3)


@pytest.mark.parametrize("change", [20, 44, 58, 68])
def test_so_is_a_run_with_an_evaluation(tmp_path: Path, change: int) -> None:
    site = Site(tmp_path, evaluate=0.4)
    assert killed_before(change, site.run)
    site.finish()
    site.check(None, rounds=2)
    pooled = json.loads((site.out / "report.json").read_text())["pooled"]
    assert pooled["examples"] > 20


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param(MANY, marks=pytest.mark.nightly),
    ],
)
def test_so_is_a_run_killed_at_any_change_at_all(
    tmp_path: Path, weights: Any, settings: dict[str, Any]
) -> None:
    change = 0
    while True:
        change += 1
        folder = tmp_path / str(change)
        folder.mkdir()
        site = Site(folder, **settings)
        if not killed_before(change, site.run):
            break
        if change % 3 == 0:
            # The process that finishes it is killed, too.
            killed_before(random.randrange(1, 40), lambda site=site: resume(site.out))  # type: ignore[misc]
        site.finish()
        site.check(None if settings else weights, rounds=3 if settings else 1)
    assert change > 50


@pytest.mark.slow
def test_a_real_process_is_killed_at_ten_random_moments(tmp_path: Path, weights: Any) -> None:
    def begun(site: Site) -> "subprocess.Popen[bytes]":
        flags = [
            word
            for name, value in site.settings.items()
            for word in ([f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)]))
        ]
        return subprocess.Popen(
            [sys.executable, "-m", "secure_afl", "run", *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def made(name: str) -> Site:
        (tmp_path / name).mkdir()
        return Site(tmp_path / name)

    site = made("whole")
    begin = time.monotonic()
    process = begun(site)
    while not (site.out / FOLDER).exists():
        time.sleep(0.002)
    prepared = time.monotonic() - begin
    assert process.wait() == 0
    whole = time.monotonic() - begin
    for number in range(10):
        site = made(str(number))
        process = begun(site)
        # Most of a run's time goes into imports; what matters comes after.
        time.sleep(random.uniform(0.9 * prepared, whole))
        process.send_signal(signal.SIGKILL)
        process.wait()
        site.finish()
        site.check(weights)


def test_nothing_is_released_and_nothing_charged_where_no_sum_was_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    stop(site, monkeypatch, sums=0)
    (dead,) = site.charged()
    assert not dead.released
    with pytest.raises(LedgerRefusal):
        run(site.config.replaced(new_ledger=False, out=str(site.folder / "other")))
    resume(site.out)
    site.check(weights)
    (alive,) = site.charged()
    assert alive.session != dead.session
    ledger = Ledger.open(site.ledger)
    void = next(e.void for e in ledger.entries(alive.lineage) if e.session == dead.session)
    assert void is not None
    assert "ended before its sum was kept" in void.reason
    assert void.evidence is None


def test_a_session_is_given_back_even_where_the_data_are_gone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(site, monkeypatch, sums=0)
    shutil.rmtree(site.folder / "sites")
    with pytest.raises(DataError):
        resume(site.out)
    assert not site.charged()
    assert not (site.out / FOLDER).exists()


@pytest.mark.parametrize("settings", [{}, MANY])
def test_a_new_run_waits_until_the_old_one_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    site = Site(tmp_path, **settings)
    place = stop(site, monkeypatch, sums=1)
    with pytest.raises(Unfinished, match=rf"secure-afl run --resume {place}"):
        site.run()
    result = resume(place)
    assert result.report.settings["out"] == str(site.out)
    with pytest.raises(NotResumable, match="nothing to resume"):
        resume(place)


def test_two_processes_do_not_finish_one_run(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stop(site, monkeypatch, sums=1)
    halfway, go_on = threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        halfway.set()
        assert go_on.wait(20)
        return prepare(*args)

    with monkeypatch.context() as patch:
        patch.setattr("secure_afl.runs.run.prepare", slow)
        first = threading.Thread(target=resume, args=(site.out,))
        first.start()
        assert halfway.wait(20)
        patch.undo()
        with pytest.raises(Busy, match="another process runs"):
            resume(site.out)
        with pytest.raises(Busy, match="another process runs"):
            site.run()
        go_on.set()
        first.join()
    assert (site.out / "report.json").exists()


def test_a_copy_is_not_finished(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stop(site, monkeypatch, sums=1)
    copy = site.folder / "copy"
    shutil.copytree(site.out, copy)
    with pytest.raises(NotResumable, match="was copied or moved from"):
        resume(copy)
    resume(site.out)


def test_relative_settings_go_by_the_folder_that_the_run_was_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path, clients="sites/*.npz", ledger="ledger.json", out="out")
    stop(site, monkeypatch, sums=1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(NotResumable, match=f"cd {tmp_path}"):
        resume(site.out)
    monkeypatch.chdir(tmp_path)
    resume(Path("out"))


def change_rows(site: Site, name: str) -> None:
    path = site.folder / "sites" / f"{name}.npz"
    with np.load(path) as content:
        np.savez(path, features=content["features"] + 1.0, labels=content["labels"])


def test_changed_rows_are_refused_where_sums_are_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, **MANY)
    stop(site, monkeypatch, sums=2)
    before = (tmp_path / "sites" / "south.npz").read_bytes()
    change_rows(site, "south")
    with pytest.raises(DataError, match=r"the rows of 'south' have changed.*1 of 3 sums"):
        resume(site.out)
    (tmp_path / "sites" / "south.npz").write_bytes(before)
    resume(site.out)
    site.check(None, rounds=3)


def test_changed_rows_are_said_where_only_scores_need_them(
    site: Site, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    stop(site, monkeypatch, sums=1)
    change_rows(site, "south")
    change_rows(site, "north")
    result = resume(site.out)
    assert "The rows of 'north', 'south' have changed" in result.report.warnings[0]
    site.check(weights)


def test_another_backbone_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stop(site, monkeypatch, sums=1)
    with monkeypatch.context() as patch:
        patch.setattr("secure_afl.runs.run._digest", lambda *_: bytes(range(32)))
        with pytest.raises(DataError, match="another backbone") as refused:
            resume(site.out)
    assert any("--resume" in note for note in refused.value.__notes__)
    resume(site.out)


def test_sums_are_sealed_under_a_key_beside_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = stop(site, monkeypatch, sums=1)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o600}
    assert len((place / "key").read_bytes()) == 32
    key = (place / "key").read_bytes()
    (place / "key").write_bytes(bytes(32))
    with pytest.raises(NotResumable, match="cannot be opened"):
        resume(site.out)
    (place / "key").unlink()
    with pytest.raises(NotResumable, match=f"{place / 'key'} cannot be read"):
        resume(site.out)
    (place / "key").write_bytes(key)
    resume(site.out)


def test_sums_are_sealed_to_the_receivers_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    keys = tmp_path / "keys"
    generate(list(NAMES), "client", keys)
    generate(["university"], "collector", keys)
    generate(["clinic"], "aggregator", keys)
    site = Site(tmp_path, keys=str(keys))
    place = stop(site, monkeypatch, sums=1)
    assert not (place / "key").exists()
    identity = (keys / "university.identity").read_bytes()
    (keys / "university.identity").unlink()
    with pytest.raises(NotResumable, match="sealed to 'university'"):
        resume(site.out)
    (keys / "university.identity").write_bytes(identity)
    (keys / "university.identity").chmod(0o600)
    result = resume(site.out)
    assert np.array_equal(result.model.weights, weights)


def test_the_total_lies_nowhere_in_the_clear(
    site: Site, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    place = stop(site, monkeypatch, sums=1)
    content = b"".join(path.read_bytes() for path in place.iterdir())
    total = resume(site.out).rounds[0].released.total
    assert total.tobytes()[:64] not in content


@pytest.mark.parametrize("name", ["record", "session", "sum-0000001", "standing-0000001", "seal"])
def test_what_is_damaged_is_refused_by_its_name(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = stop(site, monkeypatch, sums=1)
    whole = (place / name).read_bytes()
    (place / name).write_bytes(whole[:-1])
    with pytest.raises(NotResumable, match=name):
        resume(site.out)
    (place / name).write_bytes(whole)
    resume(site.out)


def test_a_sum_that_is_out_never_comes_out_again_though_its_file_is_gone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = stop(site, monkeypatch, sums=1)
    # The ledger knows by now that it came out.
    assert site.charged()[0].released
    for path in place.glob("s*-*"):
        path.unlink()
    with pytest.raises(LedgerRefusal, match="came out"):
        resume(site.out)


def test_a_total_gets_one_noise_however_often_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, method="afl", epsilon=4.0, max_rows=64, noise="central")
    place = stop(site, monkeypatch, sums=1)
    shutil.copytree(place, tmp_path / "again")
    first = resume(site.out).model.weights
    shutil.copytree(tmp_path / "again", place)
    assert np.array_equal(resume(site.out).model.weights, first)


@pytest.mark.parametrize("error", [OutOfBoundsTotal((("gram", 1),)), NoModel("too few rows")])
def test_a_sum_of_which_no_model_can_be_made_leaves_nothing_to_finish(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: SecureAflError
) -> None:
    def absorbed(*_: object) -> None:
        raise error

    monkeypatch.setattr(FederationServer, "absorb", absorbed)
    with pytest.raises(type(error)) as refused:
        site.run()
    assert not getattr(refused.value, "__notes__", [])
    assert not (site.out / FOLDER).exists()
    assert site.charged()[0].released


def test_an_aborted_session_is_as_its_parties_leave_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def abort(*_: object) -> None:
        raise SessionAborted("nobody is there")

    with monkeypatch.context() as patch:
        patch.setattr(Federation, "_round", abort)
        with pytest.raises(SessionAborted):
            site.run()
    assert not (site.out / FOLDER).exists()
    assert not site.charged()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
def test_a_run_that_is_interrupted_gives_its_session_back_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupted(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Federation, "_round", interrupted)
        with pytest.raises(error):
            site.run()
    assert not site.charged()
    assert not (site.out / FOLDER).exists()


def test_a_run_that_is_interrupted_later_says_how_to_go_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    def interrupted(*_: object) -> None:
        raise ZeroDivisionError("a solver")

    with monkeypatch.context() as patch:
        patch.setattr(FederationServer, "absorb", interrupted)
        with pytest.raises(ZeroDivisionError) as stopped:
            site.run()
    (note,) = stopped.value.__notes__
    assert str(site.out / FOLDER / "key") in note
    assert f"secure-afl run --resume {site.out / FOLDER}" in note
    resume(site.out)
    site.check(weights)


# Full disks, read-only folders, folders that vanish


@pytest.mark.parametrize("after", range(0, 14, 2))
def test_a_full_disk_loses_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, weights: Any, after: int
) -> None:
    with full_disk(monkeypatch, site.out, after), pytest.raises(SecureAflError) as full:
        site.run()
    assert isinstance(full.value, NotKept | NotSaved)
    if isinstance(full.value, NotKept):
        assert not site.ledger.exists() or not site.charged()
        assert not (site.out / FOLDER / "record").exists()
        run(site.config.replaced(new_ledger=not site.ledger.exists()))
    else:
        assert np.array_equal(full.value.result.model.weights, weights)
        assert "--resume" in full.value.__notes__[0]
        resume(site.out)
    site.check(weights)


@pytest.mark.parametrize("after", range(2, 18, 3))
def test_a_disk_that_is_full_for_the_ledger_too_loses_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, weights: Any, after: int
) -> None:
    with full_disk(monkeypatch, site.folder, after), pytest.raises(SecureAflError):
        site.run()
    if (site.out / FOLDER).exists() or not site.ledger.exists():
        site.finish()
    else:
        run(site.config.replaced(new_ledger=False))
    site.check(weights)


def test_a_folder_that_nobody_may_write_to_is_refused_before_work_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    site.out.mkdir(mode=0o555)
    _open_to_all(tmp_path)
    done = tmp_path / "shared" / "done"

    def work() -> None:
        _become_somebody()
        monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "shared" / "cache"))
        try:
            site.run()
        except ConfigError as error:
            done.write_text(str(error))

    assert in_child(work) == 0
    assert "cannot be written (Permission denied)" in done.read_text()
    assert not site.ledger.exists()


def test_a_folder_that_becomes_read_only_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    site = Site(tmp_path, ledger=str(tmp_path / "shared" / "ledger.json"))
    site.ledger = tmp_path / "shared" / "ledger.json"
    site.out = tmp_path / "shared" / "out"
    site.settings["out"] = str(site.out)
    _open_to_all(tmp_path)
    told = tmp_path / "shared" / "told"

    def work() -> None:
        _become_somebody()

        def locked(*args: Any) -> None:
            site.out.chmod(0o555)
            save(*args)

        monkeypatch.setattr("secure_afl.runs.run.save", locked)
        monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "shared" / "cache"))
        try:
            site.run()
        except NotSaved as error:
            told.write_text(f"{error} {error.__notes__[0]}")

    assert in_child(work) == 0
    assert "Permission denied" in told.read_text()
    assert f"--resume {site.out}" in told.read_text()
    site.out.chmod(0o755)
    resume(site.out)
    site.check(weights)


def _open_to_all(folder: Path) -> None:
    """Let others than root go through the tests' folders, and write into one."""
    (folder / "shared").mkdir(exist_ok=True)
    (folder / "shared").chmod(0o777)
    if os.geteuid() == 0:
        while folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o055)
            folder = folder.parent


def _become_somebody() -> None:
    """Be a person to whom modes mean something."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


def vanishing(site: Site, parent_too: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*args: Any) -> None:
        shutil.rmtree(site.out)
        if parent_too:
            site.out.write_text("in the way")
        save(*args)

    monkeypatch.setattr("secure_afl.runs.run.save", gone)


def test_a_folder_that_vanishes_is_made_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    vanishing(site, False, monkeypatch)
    site.run()
    monkeypatch.undo()
    site.check(weights)


def test_a_folder_that_cannot_be_made_again_is_no_loss(
    site: Site, monkeypatch: pytest.MonkeyPatch, weights: Any, state: Path
) -> None:
    with monkeypatch.context() as patch:
        vanishing(site, True, patch)
        with pytest.raises(NotSaved) as lost:
            site.run()
    (kept,) = (state / "secure-afl").iterdir()
    assert f"--resume {kept}" in lost.value.__notes__[0]
    site.out.unlink()
    resume(kept)
    assert not kept.exists()
    site.check(weights)


def test_a_folder_that_vanishes_between_rounds_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, **MANY)
    absorb, left = FederationServer.absorb, 2

    def vanish(self: FederationServer, *args: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            shutil.rmtree(site.out)
        if left == -1:
            raise ZeroDivisionError
        absorb(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(FederationServer, "absorb", vanish)
        with pytest.raises(ZeroDivisionError):
            site.run()
    names = {path.name for path in (site.out / FOLDER).iterdir()}
    assert {f"sum-{number:07d}" for number in (1, 2, 3)} <= names
    resume(site.out)
    site.check(None, rounds=3)


# Where a run's folder lies, and what else lies there


@pytest.mark.parametrize("given", ["its own folder", "the one beside the ledger"])
def test_without_out_the_folder_lies_beside_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Any, given: str
) -> None:
    site = Site(tmp_path, out=None)
    stop(site, monkeypatch, sums=1)
    (place,) = (tmp_path / f"ledger.json.{FOLDER}").iterdir()
    with pytest.raises(Unfinished, match=str(place)):
        run(site.config.replaced(new_ledger=False))
    found: list[Result] = []

    def deliver(result: Result) -> None:
        assert (place / "record").exists()
        found.append(result)

    named = place if given == "its own folder" else place.parent
    result = resume(named, deliver=deliver)
    assert found == [result]
    assert np.array_equal(result.model.weights, weights)
    assert not place.parent.exists()
    assert len(site.charged()) == 1


def test_of_several_runs_beside_a_ledger_one_has_to_be_named(tmp_path: Path) -> None:
    beside = tmp_path / f"ledger.json.{FOLDER}"
    for name in ("0a0a0a0a", "0b0b0b0b"):
        (beside / name).mkdir(parents=True)
        (beside / name / "record").touch()
    with pytest.raises(NotResumable, match="2 runs were stopped") as refused:
        resume(beside)
    assert str(beside / "0a0a0a0a") in str(refused.value)
    assert str(beside / "0b0b0b0b") in str(refused.value)


def test_a_folder_beside_a_ledger_without_runs_has_nothing_to_finish(tmp_path: Path) -> None:
    beside = tmp_path / f"ledger.json.{FOLDER}"
    beside.mkdir()
    with pytest.raises(NotResumable, match="there is nothing to resume"):
        resume(beside)


def test_a_result_that_nobody_got_is_kept(tmp_path: Path, weights: Any) -> None:
    site = Site(tmp_path, out=None)

    def broken(result: Result) -> None:
        raise OSError("the pipe is closed")

    with pytest.raises(OSError, match="pipe") as lost:
        run(site.config, deliver=broken)
    (place,) = (tmp_path / f"ledger.json.{FOLDER}").iterdir()
    assert f"--resume {place}" in lost.value.__notes__[0]
    assert np.array_equal(resume(place).model.weights, weights)


def test_a_run_with_neither_ledger_nor_folder_keeps_nothing(tmp_path: Path, state: Path) -> None:
    site = Site(tmp_path, out=None, ledger=None, new_ledger=None)
    before = set(tmp_path.rglob("*"))
    site.run()
    assert set(tmp_path.rglob("*")) == before
    assert not list(state.iterdir())


def test_what_lies_in_the_way_is_refused(site: Site) -> None:
    (site.out / FOLDER).mkdir(parents=True)
    (site.out / FOLDER / "holiday.jpg").write_bytes(b"picture")
    with pytest.raises(ConfigError, match=r"holiday\.jpg.*move it away"):
        site.run()
    assert (site.out / FOLDER / "holiday.jpg").exists()


def test_the_settings_of_a_run_are_those_that_it_was_given(tmp_path: Path) -> None:
    for given in (
        {},
        {"epsilon": 1.0, "delta": 1e-6, "max_rows": 64, "noise": "central"},
        {"method": "fedavg", "architecture": "convnet", "rounds": 3, "same_set": False},
        {"method": "fedhip", "ridge": 1, "alpha": 0, "reading": "proximal", "holdout": 0.2},
        {"protocol": "ckks", "verify": False, "out": "results", "ledger": "l", "new_ledger": True},
    ):
        config = make_config(given)
        again = json.loads(json.dumps(given_settings(config)))
        assert make_config(again) == config


# The command line


def test_resume_takes_no_other_settings(command: Command, site: Site) -> None:
    for flags in (["--seed", 3], ["--no-same-set"], ["--config", "run.toml"]):
        line = command.badly("run", "--resume", site.out, *flags)
        assert "has no effect with --resume" in line
        assert str(flags[0]).replace("no-same", "same") in line
    assert "nothing to resume" in command.badly("run", "--resume", site.out)


def test_the_command_finishes_a_run(
    command: Command, site: Site, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    stop(site, monkeypatch, sums=1)
    report = site.folder / "report.json"
    outcome = command.well("run", "--resume", site.out, "--json", report)
    assert "clients in the sum" in outcome.out
    assert json.loads(report.read_text()) == json.loads((site.out / "report.json").read_text())
    site.check(weights)


def flags_of(site: Site) -> list[object]:
    given = {name: v for name, v in site.settings.items() if v is not None}
    return [
        word
        for name, value in given.items()
        for word in [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
    ]


def test_results_are_printed_even_where_nothing_can_be_written(
    command: Command, site: Site, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("secure_afl.runs.run.save", full)
        outcome = command("run", *flags_of(site))
    assert outcome.code == 2
    assert "clients in the sum" in outcome.out
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("Error: ")]
    assert "No space left on device" in line
    assert f"secure-afl run --resume {site.out / FOLDER}" in line
    command.well("run", "--resume", site.out)
    site.check(weights)


@pytest.mark.parametrize("before", [None, "of an earlier run"])
def test_a_report_that_cannot_be_written_leaves_no_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    site = Site(tmp_path, ledger=None, new_ledger=None, out=None)
    report = tmp_path / "report.json"
    if before is not None:
        report.write_text(before)
    command.badly("run", *flags_of(site), "--min-cohort", 9, "--json", report)
    assert report.exists() == (before is not None)
    write: Callable[..., int] = Path.write_text

    def full(path: Path, text: str, **how: Any) -> int:
        write(path, text[:10], **how)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        outcome = command("run", *flags_of(site), "--json", report)
    assert outcome.code == 2
    assert "clients in the sum" in outcome.out
    assert "report.json cannot be written (No space left on device)" in outcome.err
    assert {path.name for path in tmp_path.iterdir()} <= {"sites", "report.json"}
    assert (report.read_text() if report.exists() else None) == before


def test_statistics_are_those_of_a_run_that_nobody_stopped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(site, monkeypatch, sums=1)
    result = resume(site.out)
    quantiser = result.public.task.quantiser
    truth = [
        Statistics.of(content["features"], content["labels"], 2, quantiser)
        for content in (np.load(site.folder / "sites" / f"{name}.npz") for name in NAMES)
    ]
    assert np.array_equal(result.statistics.gram, np.sum([own.gram for own in truth], axis=0))
    assert np.array_equal(result.statistics.cross, np.sum([own.cross for own in truth], axis=0))
