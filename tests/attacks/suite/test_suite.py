import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from attacks.attack import ATTACKS, Attack, Known, Measure, Truth
from attacks.measures.metrics import gaussian_auc
from attacks.report.matrix import compact, panels, said
from attacks.statistics.membership import LeverageMembership, ModelMembership
from attacks.suite.cells import CELLS, Cell, above_chance, averaged, is_done, success
from attacks.suite.config import AttackConfig, make_config
from attacks.suite.pool import available, draw, load_pool, sequel
from attacks.suite.results import Results
from attacks.suite.run import Interrupted, run
from attacks.views.run import RunView
from protocols.layout import Integers
from secure_afl.errors import ConfigError, SecureAflError
from secure_afl.journal import Journal
from secure_afl.runs.choose import make_method
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import load
from tests.kit.tiny import TINY, Counts, Drawing, Leverage, Stumbling

DATA = RunConfig(backbone="identity", partition="iid:4")
SMALL = AttackConfig(run=DATA, methods=("afl",), protocols=("plain", "ckks"), rows=(40,), sweep=())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "features.sqlite"))


def changed(config: AttackConfig, **changes: object) -> AttackConfig:
    return msgspec.structs.replace(config, **changes)


def by_place(results: Results) -> dict[tuple[str, str, str], Cell]:
    return {(cell.attack, cell.protocol, cell.adversary): cell for cell in results.cells}


class Counting(Counts):
    """As the class counts, and remembers how often it was asked."""

    claims = 0
    stop_after: int | None = None

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Integers | None:
        if Counting.claims == Counting.stop_after:
            raise KeyboardInterrupt
        Counting.claims += 1
        return super().claim(view, known, rng)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, type[Attack[Any]]]:
    monkeypatch.setattr(Counting, "claims", 0)
    monkeypatch.setattr(Counting, "stop_after", None)
    return {"counts": Counting}


def test_cells_are_what_each_adversary_really_had(tmp_path: Path) -> None:
    results = run(SMALL, TINY, tmp_path)
    cells = by_place(results)
    assert len(cells) == len(results.cells) == results.planned
    assert all(cell.error is None for cell in cells.values())
    for protocol, receiver in (("plain", "server"), ("ckks", "key-holder")):
        strong, blind = cells["counts", protocol, receiver], cells["counts", protocol, "outsider"]
        assert (strong.claimed, strong.measures[0].value) == (True, 1.0)
        assert (blind.claimed, blind.measures[0].value) == (False, 0.0)
        assert cells["leverage", protocol, receiver].measures[0].value == 1.0, "40 rows of 64-d"
    # Under CKKS the server has ciphertexts and no sum.
    assert not cells["counts", "ckks", "server"].claimed
    assert cells["counts", "ckks", "server-and-key-holder"].coalition == ("server", "key_holder")
    assert len(cells["counts", "plain", "all-clients-but-one"].coalition) == 4
    assert ("counts", "plain", "key-holder") not in cells
    stored = msgspec.json.decode((tmp_path / "results.json").read_bytes(), type=Results)
    assert stored == results


def test_an_interrupted_suite_goes_on_without_doing_anything_twice(
    tmp_path: Path, counting: Mapping[str, type[Attack[Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "stop_after", 5)
    with pytest.raises(Interrupted) as stopped:
        run(SMALL, counting, tmp_path)
    assert len(stopped.value.results.cells) == 5 == Counting.claims
    stored = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert len(stored["cells"]) == 5 < stored["planned"]
    # A crash in the middle of a line costs that line.
    file = tmp_path / CELLS
    file.write_bytes(file.read_bytes()[:-20])
    monkeypatch.setattr(Counting, "stop_after", None)
    results = run(SMALL, counting, tmp_path)
    assert Counting.claims == results.planned + 1, "four kept, one torn and done again"
    assert run(SMALL, counting, tmp_path).cells == results.cells
    assert Counting.claims == results.planned + 1, "nothing was left to do"
    fresh = run(SMALL, counting, tmp_path / "fresh")
    timeless = [
        [msgspec.structs.replace(c, seconds=0.0) for c in r.cells] for r in (fresh, results)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(
    "drawing", [Drawing, pytest.param(ModelMembership, marks=pytest.mark.slow)]
)
def test_processes_side_by_side_find_what_one_finds(
    drawing: type[Attack[Any]], tmp_path: Path
) -> None:
    attacks: dict[str, type[Attack[Any]]] = {**TINY, drawing.name: drawing}
    one = run(SMALL, attacks, tmp_path / "one")
    two = run(SMALL, attacks, tmp_path / "two", processes=2)
    kinds = [msgspec.structs.replace(cell, seconds=0.0) for cell in one.cells]
    assert [msgspec.structs.replace(cell, seconds=0.0) for cell in two.cells] == kinds
    assert two.planned == len(two.cells)
    # Nothing is left to do, for one process or several.
    assert run(SMALL, attacks, tmp_path / "two").cells == two.cells


@pytest.mark.slow
def test_side_by_side_what_is_done_is_kept(tmp_path: Path) -> None:
    """Cell by cell: a run takes minutes, and need not be whole."""

    def stop(what: str, done: int, total: int) -> None:
        if what == "cells" and done:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        run(SMALL, TINY, tmp_path, stop, processes=2)
    (first,) = stopped.value.results.cells
    results = run(SMALL, TINY, tmp_path, processes=2)
    assert first in results.cells
    assert len(results.cells) == results.planned


def test_an_attack_that_only_this_process_knows_is_named(tmp_path: Path) -> None:
    class Own(Leverage):
        name = "own"

    with pytest.raises(ConfigError, match=r"'own'.*define it in a module"):
        run(SMALL, {"own": Own}, tmp_path, processes=2)
    with pytest.raises(ConfigError, match=r"processes is 0, allowed: 1\.\.64"):
        run(SMALL, TINY, tmp_path, processes=0)


class Dying(Attack[Any]):
    """Takes its process with it, where a server attacks."""

    name = "dying"
    wants = "nothing"

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Any:
        if "server" in view.coalition:
            os._exit(9)

    def judge(self, claim: Any, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        return []


@pytest.mark.slow
def test_a_process_that_dies_is_said_with_its_cell_and_others_are_kept(tmp_path: Path) -> None:
    said = r"attack 'dying' by 'server' on afl under \w+, exact, 40 rows, repeat 0 has died"
    with pytest.raises(SecureAflError, match=said + r".*--processes 1"):
        run(SMALL, {"dying": Dying}, tmp_path, processes=2)
    assert '"adversary":"outsider"' in (tmp_path / CELLS).read_text(encoding="utf-8")


class Curved(Leverage):
    """Stumbles over its curve, after it has been judged."""

    name = "curved"

    def roc(self, claim: Any, truth: Truth) -> Any:
        raise ZeroDivisionError("no curve")


@pytest.mark.slow
def test_what_goes_wrong_in_a_curve_is_one_cell_s_error_in_any_process(tmp_path: Path) -> None:
    for processes in (1, 2):
        cells = run(SMALL, {"curved": Curved}, tmp_path / str(processes), processes=processes).cells
        assert {cell.error for cell in cells} == {"ZeroDivisionError: no curve"}


class Unspeakable(Exception):
    """An error whose words cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Wordless(Leverage):
    name = "wordless"

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Any:
        raise Unspeakable


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_that_is_no_cell_s_own_names_the_cell(tmp_path: Path, processes: int) -> None:
    said = r"attack 'wordless' by 'outsider' on afl under \w+, exact, 40 rows, repeat 0: ValueError"
    with pytest.raises(SecureAflError, match=said):
        run(SMALL, {"wordless": Wordless}, tmp_path, processes=processes)


class Threads(Counts):
    """Counts the threads that a library gets which only this attack loads."""

    name = "threads"

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Any:
        import torch

        raise ConfigError(f"{torch.get_num_threads()} threads")


@pytest.mark.slow
def test_what_an_attack_loads_has_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as cores in the first cell of a process would be other bits than in the later."""
    pytest.importorskip("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    cells = run(SMALL, {"threads": Threads}, tmp_path, processes=2).cells
    assert {cell.error for cell in cells} == {"1 threads"}
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_other_settings_or_data_are_other_cells(
    tmp_path: Path, counting: Mapping[str, type[Attack[Any]]]
) -> None:
    small = changed(SMALL, protocols=("plain",), adversaries=("server",))
    for done, config in enumerate(
        (
            small,
            changed(small, run=msgspec.structs.replace(DATA, seed=1)),
            changed(small, run=DATA.replaced(ridge=0.5)),
            changed(small, rows=(41,)),
            changed(small, candidates=50),
        ),
        1,
    ):
        run(config, counting, tmp_path)
        assert Counting.claims == done
    run(small, counting, tmp_path)
    assert Counting.claims == 5


def test_intervals_widen_with_the_number_of_cells_and_hold_together(tmp_path: Path) -> None:
    one = changed(SMALL, protocols=("plain",), adversaries=("server",))
    attacks = {"leverage": Leverage}
    alone = run(one, attacks, tmp_path).cells[0]
    among = by_place(run(SMALL, attacks, tmp_path))["leverage", "plain", "server"]
    assert alone.key == among.key
    narrow, wide = alone.measures[0], among.measures[0]
    assert wide.low < narrow.low
    assert wide.value == narrow.value
    # Bonferroni over 14 cells with three intervals each.
    planned = len(run(SMALL, attacks, tmp_path).cells)
    assert 1 - wide.confidence == pytest.approx(0.05 / (planned * 3))
    # Back to one cell: what is there is wide enough.
    assert run(one, attacks, tmp_path).cells[0].measures == among.measures


def test_what_goes_wrong_in_one_attack_is_written_into_its_cells_and_tried_again(
    tmp_path: Path,
) -> None:
    class Wanting(Counts):
        name = "wanting"

        def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Integers | None:
            raise ConfigError("no decoder; train one")

    attacks: dict[str, type[Attack[Any]]] = {
        "stumbling": Stumbling,
        "wanting": Wanting,
        "counts": Counts,
    }
    cells = by_place(run(changed(SMALL, protocols=("plain",)), attacks, tmp_path))
    failed = cells["stumbling", "plain", "server"]
    assert (failed.error, failed.refused) == ("ZeroDivisionError: stumbled", False)
    assert cells["counts", "plain", "server"].error is None
    wanting = cells["wanting", "plain", "server"]
    assert (wanting.error, wanting.refused) == ("no decoder; train one", True)
    journal = Journal(tmp_path / CELLS, Cell)
    assert not is_done(journal.find(failed.key), 0.5)
    done = journal.find(cells["counts", "plain", "server"].key)
    assert is_done(done, 0.5)
    assert not is_done(done, 0.999999)


def test_a_run_that_cannot_be_fails_in_its_own_cells_alone(tmp_path: Path) -> None:
    # A lying server cannot be withstood by four clients of which three may be corrupt.
    unable = DATA.replaced(corrupt_fraction=0.6)
    config = changed(SMALL, run=unable, protocols=("plain", "pairwise"))
    cells = run(config, {"counts": Counts}, tmp_path).cells
    assert {cell.error is None for cell in cells if cell.protocol == "plain"} == {True}
    assert all("the run failed" in str(c.error) for c in cells[-3:] if c.protocol == "pairwise")
    assert cells[-1].protocol == "pairwise"


def test_rows_out_of_the_sum_are_not_in_it_and_public_ones_in_neither() -> None:
    datasets, _ = load(DATA)
    pool = load_pool(DATA, make_method(DATA), datasets)
    chosen = draw(pool, 100, seed=3, repeat=0, most=60)
    known, truth = chosen.known, chosen.truth
    assert sum(len(client) for client in chosen.clients) == 100
    assert known.candidates is not None
    assert known.public is not None
    assert truth.members is not None
    assert (int(truth.members.sum()), len(truth.members)) == (60, 120)
    inside = {row.tobytes() for client in chosen.clients for row in client.features}
    for row, member, owner in zip(known.candidates, truth.members, truth.owners, strict=True):
        assert (row.astype(np.float32).tobytes() in inside or row.tobytes() in inside) == member
        assert (owner != "") == member
    everything = sum(len(client) for client in pool.rows)
    assert len(known.public) == len(known.extra["public_labels"])
    assert len(known.public) <= (everything - 100) // 2 + len(datasets)
    assert known.rows is not None
    assert len(known.rows) == 99
    name = chosen.clients[0].name
    assert truth.images[name].shape == (len(chosen.clients[0]), 8, 8, 1)
    pixels = truth.images[name].reshape(len(chosen.clients[0]), -1)
    np.testing.assert_allclose(pixels, chosen.clients[0].features, atol=1e-6)
    again = draw(pool, 100, seed=3, repeat=0, most=60)
    assert np.array_equal(again.clients[0].features, chosen.clients[0].features)
    other = draw(pool, 100, seed=3, repeat=1, most=60)
    assert not np.array_equal(other.clients[0].features, chosen.clients[0].features)
    row_less, client_less = sequel(chosen, "row"), sequel(chosen, "client")
    assert sum(len(client) for client in row_less) == 99
    assert [c.name for c in client_less] == [c.name for c in chosen.clients[1:]]
    assert available(datasets) == sum(len(dataset) // 2 for dataset in datasets)


def test_the_second_session_of_a_sequel_is_a_view_of_its_own(tmp_path: Path) -> None:
    class Difference(Counts):
        """The rows by which two sums differ."""

        name = "difference"
        two_sessions = True

        def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Integers | None:
            first, second = super().claim(view, known, rng), None
            if isinstance(other := known.extra.get("other"), RunView):
                second = super().claim(other, known, rng)
            if first is None or second is None:
                return None
            found.append(int((first - second).sum()))
            return first

    found: list[int] = []
    config = changed(SMALL, protocols=("plain",), adversaries=("server", "row-apart"))
    results = run(config, {"difference": Difference, "counts": Counts}, tmp_path)
    assert [(cell.attack, cell.adversary, cell.claimed) for cell in results.cells] == [
        ("counts", "server", True),
        ("difference", "row-apart", True),
    ]
    assert found == [1]


def test_gradient_methods_are_attacked_over_one_round_unless_more_are_asked_for(
    tmp_path: Path,
) -> None:
    class Rounds(Counts):
        name = "rounds"

        def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Integers | None:
            found.append((view.method.name, len(view.rounds)))
            return super().claim(view, known, rng)

    found: list[tuple[str, int]] = []
    config = changed(
        SMALL, methods=("fedsgd", "fedavg"), protocols=("plain",), adversaries=("server",)
    )
    cells = run(config, {"rounds": Rounds}, tmp_path).cells
    assert [cell.error for cell in cells] == [None, None]
    assert not any(cell.claimed for cell in cells), "an update holds no counts"
    three = DATA.replaced(rounds=3)
    run(changed(config, run=three, methods=("fedsgd",)), {"rounds": Rounds}, tmp_path)
    assert found == [("fedsgd", 1), ("fedavg", 1), ("fedsgd", 3)]


def test_costly_attacks_are_left_out_unless_named(tmp_path: Path) -> None:
    class Costly(Counts):
        name = "costly"
        costly = True

    config = changed(SMALL, protocols=("plain",), adversaries=("server",))
    attacks: dict[str, type[Attack[Any]]] = {"counts": Counts, "costly": Costly}
    assert [c.attack for c in run(config, attacks, tmp_path).cells] == ["counts"]
    named = changed(config, attacks=("costly",))
    assert [c.attack for c in run(named, attacks, tmp_path).cells] == ["costly"]


def test_fedhip_is_attacked_where_it_differs_from_afl(tmp_path: Path) -> None:
    config = changed(SMALL, protocols=("plain",))
    both = run(changed(config, methods=("afl", "fedhip")), {"counts": Counts}, tmp_path)
    assert [c.adversary for c in both.cells if c.method == "fedhip"] == ["client"]
    alone = run(changed(config, methods=("fedhip",)), {"counts": Counts}, tmp_path)
    assert "server" in [cell.adversary for cell in alone.cells]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": ("nothing",)}, "--attacks 'nothing'; allowed: counts"),
        (
            {"methods": ("fedprox",)},
            "--methods 'fedprox'; allowed: afl, class-means, fedacnnl, fedau, fedavg",
        ),
        ({"methods": ("regression",)}, "--methods regression predicts a number"),
        ({"protocols": ("none",)}, "--protocols 'none'; allowed: additive, bfv"),
        ({"adversaries": ("nobody",)}, "--adversaries 'nobody'; allowed: outsider"),
        ({"rows": (3,)}, "--rows 3: allowed for this data: 4 "),
        ({"sweep": (100_000,)}, "--sweep 100000: allowed for this data"),
        ({"adversaries": ("key-holder",), "protocols": ("plain",)}, "do not exist under plain"),
        ({"run": RunConfig(clients="/nowhere/*")}, "no path matches"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_run(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace("*", r"\*")):
        run(changed(SMALL, **changes), TINY, tmp_path)
    assert not (tmp_path / CELLS).exists()


def test_privacy_is_an_axis_and_membership_stays_below_its_bound(tmp_path: Path) -> None:
    config = changed(
        SMALL,
        protocols=("additive",),
        rows=(60,),
        epsilons=(8.0,),
        adversaries=(),
        confidence=0.99,
    )
    results = run(config, {"membership-leverage": LeverageMembership}, tmp_path)
    noisy = [cell for cell in results.cells if cell.epsilon is not None]
    assert len(noisy) == len(results.cells) / 2
    by_adversary = {cell.adversary: cell for cell in noisy}
    first = by_adversary["collector"]
    assert first.error is None
    assert first.mu is not None
    assert first.mu == pytest.approx(1 / 0.600, rel=5e-3)
    # Coalitions that open single vectors have less noise before them than the bound is about.
    assert by_adversary["all-aggregators"].mu is None
    area = first.measures[0]
    assert area.low <= gaussian_auc(first.mu)
    exact = next(c for c in results.cells if c.epsilon is None and c.adversary == first.adversary)
    assert exact.measures[0].value > 0.9 > area.value
    assert exact.mu is None


def test_epsilons_that_are_no_numbers_are_refused() -> None:
    for word in ("inf", "nan", "0"):
        with pytest.raises(ConfigError, match="epsilons"):
            make_config({}, {"epsilons": word})


def test_a_file_of_something_else_is_not_taken_for_cells(tmp_path: Path) -> None:
    (tmp_path / CELLS).write_text('{"key": 1}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1, is no finished work"):
        run(SMALL, TINY, tmp_path)


def test_flags_become_settings() -> None:
    config = make_config(
        {"seed": 4}, {"rows": "40,all", "sweep": "none", "epsilons": "0.5,8", "methods": "afl"}
    )
    assert (config.rows, config.sweep, config.epsilons) == ((40, 0), (), (0.5, 8.0))
    assert (config.run.seed, config.methods) == (4, ("afl",))
    assert make_config({}, {}, quick=True).protocols == ("plain", "additive")
    assert make_config({}, {"protocols": "ckks"}, quick=True).protocols == ("ckks",)
    for flag, value in (
        ("rows", "few"),
        ("rows", ","),
        ("rows", "-1"),
        ("epsilons", "-1"),
        ("epsilons", "much"),
        ("repeats", 0),
        ("confidence", 1.0),
    ):
        with pytest.raises(ConfigError, match=f"--{flag}"):
            make_config({}, {flag: value})


def test_success_is_measured_from_guessing_and_repeats_are_averaged(tmp_path: Path) -> None:
    config = changed(SMALL, protocols=("plain",), adversaries=("server",), rows=(300,), repeats=2)
    cells = run(config, {"leverage": Leverage}, tmp_path).cells
    assert [cell.repeat for cell in cells] == [0, 1]
    one, other = (cell.measures[0] for cell in cells)
    both = averaged([one, other])
    assert both.value == pytest.approx((one.value + other.value) / 2)
    assert both.low == pytest.approx((one.low + other.low) / 2)
    assert both.trials == one.trials + other.trials
    assert success(msgspec.structs.replace(one, value=0.75)) == pytest.approx(0.5)
    assert success(msgspec.structs.replace(one, value=0.3)) == 0.0
    lower_is_better = msgspec.structs.replace(one, chance=4.0, best=0.0, value=1.0, low=0.5, high=3)
    assert success(lower_is_better) == pytest.approx(0.75)
    assert above_chance(lower_is_better)
    assert not above_chance(msgspec.structs.replace(lower_is_better, high=4.5))


@pytest.mark.parametrize("kind", ["one row a client", "two rows a client", "zeros"])
def test_clients_with_next_to_nothing_give_no_bare_exceptions(tmp_path: Path, kind: str) -> None:
    rows = {"one row a client": 1, "two rows a client": 2, "zeros": 3}[kind]
    rng = np.random.default_rng(0)
    for name in "abcd":
        features = rng.standard_normal((rows, 4)) * (kind != "zeros")
        np.savez(tmp_path / f"{name}.npz", features=features, labels=np.arange(rows) % 2)
    config = AttackConfig(
        run=RunConfig(clients=str(tmp_path / "*.npz"), backbone="identity"),
        methods=("afl",),
        protocols=("plain",),
        rows=(0,),
        sweep=(),
    )
    chosen = {
        name: ATTACKS[name]
        for name in ("membership-model", "rows-lattice", "differencing", "membership-leverage")
    }
    results = run(config, chosen, tmp_path / "out")
    said = {cell.error: cell.refused for cell in results.cells if cell.error is not None}
    assert all(said.values()), said
    assert any("a second sum without it is empty" in words for words in said)
    assert ("no client has rows to spare" in " ".join(said)) == (kind != "zeros")
    # Nothing that was tried once is shown as certain.
    header, lines = compact(results, panels(results)[0])
    for cell in results.cells:
        if cell.claimed and cell.measures[0].trials == 1:
            assert not above_chance(cell.measures[0])
            place = header.index(cell.attack)
            assert any(line[place].endswith("?)") for line in lines)


def test_one_trial_is_never_certain() -> None:
    sure = Measure("exact rows", 1.0, 0.9, 1.0, 0.0, 1.0, 30)
    once = msgspec.structs.replace(sure, trials=1)
    assert (above_chance(sure), above_chance(once)) == (True, False)
    assert said(once).endswith("best 1, one trial, which shows nothing surely")
    assert said(sure).endswith("30 trials")
    assert said(msgspec.structs.replace(sure, trials=0)).endswith("no trial")
    assert above_chance(averaged([once, once]))
