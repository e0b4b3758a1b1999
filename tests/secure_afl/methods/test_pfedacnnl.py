import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols import Additive, Plain
from protocols.codec import encode
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.methods import FedACnnL, PFedACnnL
from secure_afl.methods.groups import COUNTS
from secure_afl.methods.networks.layered import LayeredModel
from secure_afl.methods.pfedacnnl import GroupedPublic
from secure_afl.privacy.mechanism import Privacy
from secure_afl.runs import run as runs
from secure_afl.runs.config import RunConfig
from tests.kit.commands import Command
from tests.kit.stopped import stops_at_sum
from tests.secure_afl.methods.test_fedacnnl import CLASSES, striped

SMALL: dict[str, Any] = {"filter_count": 4, "regions": 2}
FIT = PFedACnnL(groups=3, regroupings=3, least_clients=2, personal="none", **SMALL)
ACROSS = {"across": 8.0, "down": 1.0, "both": 1.0}
DOWN = {"across": 1.0, "down": 8.0, "both": 1.0}


def turned(clients: int = 12, rows: int = 60) -> tuple[list[ClientData], list[ClientData]]:
    """Clients of which every second one calls stripes across what others call stripes down."""
    found: list[list[ClientData]] = [[], []]
    for k in range(clients):
        data = striped(rows, seed=k)
        labels = np.array([1, 0, 2])[data.labels] if k % 2 else data.labels
        own = ClientData(f"c{k:02d}", data.features, labels)
        for part, places in zip(found, (slice(10, None), slice(10)), strict=True):
            part.append(ClientData(own.name, own.features[places], own.labels[places]))
    return found[0], found[1]


def run(method: PFedACnnL, clients: list[ClientData], **settings: object) -> Result:
    federation = Federation(method, Plain(), feature_bits=8)
    return federation.run(clients, classes=CLASSES, max_rows=64, **settings)  # type: ignore[arg-type]


def picks(method: PFedACnnL, result: Result, clients: list[ClientData]) -> list[int]:
    """Which group each client is in at the end; only this test can know."""
    state = result.public
    assert isinstance(state, GroupedPublic)
    return [state.joins[method._group(state, client)] for client in clients]


def test_without_groups_it_is_fedacnnl_with_heads_of_clients_own() -> None:
    clients, kept = turned()
    method = PFedACnnL(personal="proximal", **SMALL)
    found = run(method, clients, holdout=kept)
    plain = Federation(FedACnnL(personal="proximal", **SMALL), Plain(), feature_bits=8).run(
        clients, classes=CLASSES, max_rows=64
    )
    assert found.report.exact
    assert np.array_equal(found.model.weights, plain.model.weights)
    for name, model in found.personal.items():
        assert np.array_equal(model.weights, plain.personal[name].weights)


@pytest.mark.slow
def test_clients_that_fit_together_find_each_other() -> None:
    clients, kept = turned()
    found = run(FIT, clients, holdout=kept)
    alone = run(PFedACnnL(personal="none", **SMALL), clients, holdout=kept)
    assert found.report.exact
    assert len(found.rounds) == FIT.sums == 1 + 2 * 4
    groups = picks(FIT, found, clients)
    assert len(set(groups[::2]) & set(groups[1::2])) == 0
    accuracy, before = found.report.accuracy, alone.report.accuracy
    assert accuracy.personal_mean is not None
    assert before.holdout_federated_mean is not None
    assert accuracy.personal_mean > before.holdout_federated_mean + 0.2
    # The global model is of all rows, as without groups.
    assert np.array_equal(found.model.weights, alone.model.weights)


def test_every_group_is_the_sum_of_its_clients_and_no_smaller_than_allowed() -> None:
    clients, _ = turned()
    found = run(FIT, clients)
    groups = picks(FIT, found, clients)
    last = found.rounds[-1]
    parts = last.released.total.reshape(len(set(groups)), -1)
    plain = FedACnnL(**SMALL)
    for group, part in enumerate(parts):
        own = [c for c, g in zip(clients, groups, strict=True) if g == group]
        assert len(own) >= 2
        vectors = [plain.contribute(last.public, client, {}, b"") for client in own]  # type: ignore[arg-type]
        assert np.array_equal(part, np.sum(vectors, axis=0))
    counted = [r for r in found.rounds if r.session.layout.blocks[0].name == COUNTS]
    assert len(counted) == 4
    assert all(r.released.total.sum() == len(clients) for r in counted)


def test_groups_by_profiles_take_one_pair_of_sums() -> None:
    rng = np.random.default_rng(5)
    whole = striped(300)
    clients = []
    for k in range(6):
        chance = np.where(whole.labels == k % 2, 0.2, 0.03)
        rows = rng.random(300) < chance
        clients.append(ClientData(f"c{k}", whole.features[rows], whole.labels[rows]))
    method = PFedACnnL(profiles=(ACROSS, DOWN), personal="none", **SMALL)  # type: ignore[arg-type]
    found = run(method, clients)
    assert found.report.exact
    assert len(found.rounds) == method.sums == 3
    assert picks(method, found, clients) == [0, 1] * 3
    first, second = found.personal["c0"], found.personal["c1"]
    assert not np.array_equal(first.weights, second.weights)
    assert np.array_equal(first.weights, found.personal["c2"].weights)


def test_too_small_a_group_is_joined_and_nobody_stands_alone() -> None:
    clients, _ = turned(clients=4)
    method = PFedACnnL(groups=4, regroupings=1, least_clients=3, personal="none", **SMALL)
    found = run(method, clients)
    assert found.report.exact
    assert set(picks(method, found, clients)) == {0}
    for model in found.personal.values():
        assert np.array_equal(model.weights, found.model.weights)


def test_a_group_is_never_shown_for_a_client(tmp_path: Path) -> None:
    clients, kept = turned()
    federation = Federation(FIT, Additive(2), feature_bits=8)
    found = federation.run(clients, classes=CLASSES, max_rows=64, holdout=kept)
    # What goes out is as long for everybody, and what comes back names no client.
    for round_ in found.rounds:
        assert len({round_.sent_bytes[client.name] for client in clients}) == 1
        state = encode(round_.public)
        assert not any(client.name.encode() in state for client in clients)
    told = json.loads(json.dumps(repr(found.report)))
    assert "group" not in told
    assert found.report.personal is not None
    assert {site.way for site in found.report.personal.sites} == {"none"}
    for name, model in found.personal.items():
        model.save(tmp_path / f"{name}.safetensors", {"client": name})
        assert "group" not in (tmp_path / f"{name}.json").read_text()
        loaded, _ = LayeredModel.load(tmp_path / f"{name}.safetensors")
        assert np.array_equal(loaded.weights, model.weights)


@pytest.mark.parametrize("method", [FIT, PFedACnnL(profiles=(ACROSS, DOWN))])  # type: ignore[arg-type]
def test_groups_that_follow_from_rows_are_refused_with_noise(method: PFedACnnL) -> None:
    clients, _ = turned()
    with pytest.raises(ConfigError, match=r"groups with --epsilon; .* follows from its rows"):
        Federation(method, Plain(), privacy=Privacy(8.0, placement="central")).run(
            clients, classes=CLASSES, max_rows=64
        )
    # Without groups a client's own head costs nothing.
    private = Federation(
        PFedACnnL(**SMALL), Plain(), privacy=Privacy(8.0, placement="central")
    ).run(clients, classes=CLASSES, max_rows=64)
    assert private.report.exact


def test_states_that_contradict_themselves_are_refused() -> None:
    clients, _ = turned()
    found = run(FIT, clients)
    states = [round_.public for round_ in found.rounds]
    for place, state in enumerate(states):
        assert isinstance(state, GroupedPublic)
        FIT.check(state, place + 1)
        for other in range(len(states)):
            if other != place:
                with pytest.raises(DataError):
                    FIT.check(state, other + 1)
    counted = states[2]
    assert isinstance(counted, GroupedPublic)
    for joins in ((0, 2, 0), (0, 1), (1, 1, 1)):
        with pytest.raises(DataError, match="contradict"):
            FIT.check(GroupedPublic(counted.task, counted.banks, left=3, joins=joins), 3)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"groups": 1}, "groups is 1"),
        ({"groups": 2, "profiles": (ACROSS, DOWN)}, "one of the two"),
        ({"profiles": (ACROSS,)}, "1 profiles"),
        ({"profiles": "file.json"}, "profiles is a path"),
        ({"regroupings": 2}, "--regroupings has no effect without --groups"),
        ({"least_clients": 2}, "--least-clients has no effect without --groups"),
        ({"groups": 2, "least_clients": 1}, "least_clients is 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        PFedACnnL(**settings)  # type: ignore[arg-type]


def test_profiles_of_other_classes_are_refused() -> None:
    clients, _ = turned()
    with pytest.raises(ConfigError, match="no share for class 'both'"):
        run(PFedACnnL(profiles=({"across": 1}, {"down": 1})), clients)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_from_the_command_line(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "profiles.json"
    low = {str(c): 1 if c < 5 else 0 for c in range(10)}
    path.write_text(json.dumps([low, {name: 1 - share for name, share in low.items()}]))
    command.well(
        *("run", "--method", "pfedacnnl", "--profiles", str(path), "--holdout", "0.3"),
        *("--filter-count", "3", "--out", str(tmp_path / "out")),
    )
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["exact"]
    assert report["rounds"] == 3
    assert len(list((tmp_path / "out/personal").glob("*.safetensors"))) == 10
    assert "group" not in json.dumps(report["personal"])


@pytest.mark.slow
def test_a_configured_run_finds_groups_and_goes_on_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    config = RunConfig(method="pfedacnnl", out=str(tmp_path / "out"), holdout=0.3).replaced(
        groups=2, regroupings=1, filter_count=3
    )
    with stops_at_sum(4, monkeypatch):
        runs.run(config)
    result = runs.resume(tmp_path / "out")
    assert result.report.exact
    assert len(result.rounds) == 5
