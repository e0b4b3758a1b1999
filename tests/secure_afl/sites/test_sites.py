"""Federations between sites, over a folder: every party with its own files, processes by hand."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protocols import Additive, Bfv, Ckks, Pairwise, Plain, Protocol
from protocols.errors import Busy, NotStored
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.result import report_pooled
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL
from secure_afl.methods.evaluated import Evaluated
from secure_afl.privacy.ledger import Ledger
from secure_afl.sites import process
from secure_afl.sites.mailroom import FolderMailroom, open_mailroom
from secure_afl.sites.settings import read_site
from tests.kit.samples import make_clients
from tests.kit.sites import PATIENT, Sites

CLIENTS = {client.name: client for client in make_clients((20, 25, 30, 18))}

PROTOCOLS = [
    Plain(),
    Additive(),
    Additive(3),
    Pairwise(dropout_fraction=0.25),
    pytest.param(Ckks(), marks=pytest.mark.slow),
    pytest.param(Bfv(), marks=pytest.mark.slow),
]


NOISY = "epsilon = 4.0\nrounds = 5\n"


def float32(clients: dict[str, ClientData]) -> list[ClientData]:
    """Rows as files and backbones give them."""
    return [ClientData(c.name, c.features.astype(np.float32), c.labels) for c in clients.values()]


def oracle(clients: dict[str, ClientData], bits: int) -> np.ndarray:
    """The weights of these clients' integers, added up in one place."""
    return (
        Federation(AFL(), Plain(), feature_bits=bits)
        .run(float32(clients), classes=("0", "1", "2"), max_rows=32)
        .model.weights
    )


def charges(sites: Sites, name: str) -> list[tuple[bool, bool]]:
    """Of each release in a client's ledger: whether it counts, and is known to be out."""
    ledger = Ledger.look(sites.folder / name / "ledger.json")
    return [(e.counts, e.released) for lineage in ledger.lineages for e in ledger.entries(lineage)]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
def test_sites_make_the_model_of_their_rows_in_one_place(
    protocol: Protocol, tmp_path: Path
) -> None:
    sites = Sites(tmp_path, protocol, CLIENTS)
    sites.run()
    report = sites.conventions[sites.convener].report(sites.conventions[sites.convener].model())
    assert np.array_equal(sites.weights(), oracle(CLIENTS, report.feature_bits))
    assert report.included == tuple(sorted(CLIENTS))
    for name in CLIENTS:
        model = sites.parties[name].model()
        assert model is not None
        assert np.array_equal(model.weights, sites.weights())
        assert charges(sites, name) == [(True, True)]
        # Said where the rows are, before any of them counted.
        assert any(t.startswith("warning: at most 128 rows") for t in sites.told[name])
    assert any(warning.startswith("at most 128 rows") for warning in report.warnings)
    for name in sites.roles:
        # Nothing of the session can be read any more.
        (seat,) = (tmp_path / name / "state" / "seats").iterdir()
        assert [path.name for path in seat.iterdir()] == ["ended"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("protocol", [Additive(), Pairwise(dropout_fraction=0.0)], ids=repr)
def test_processes_that_are_killed_again_and_again_make_one_sum(
    protocol: Protocol, seed: int, tmp_path: Path
) -> None:
    sites = Sites(tmp_path, protocol, CLIENTS, wait=PATIENT)
    chance = random.Random(seed)
    for name in sites.roles:
        sites.start(name)
    for _ in range(25):
        sites.turn()
        victim = chance.choice(list(sites.roles))
        if victim in sites.alive:
            sites.stop(victim)
        absent = [name for name in sites.roles if name not in sites.alive]
        if absent and chance.random() < 0.8:
            sites.start(chance.choice(absent))
    sites.run()
    bits = sites.conventions[sites.convener].convening.convener.server.public.task.quantiser.bits
    assert np.array_equal(sites.weights(), oracle(CLIENTS, bits))
    for name in CLIENTS:
        assert charges(sites, name) == [(True, True)]


def test_many_rounds_between_sites_with_memory_that_outlasts_processes(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS, method="fedavg", site="rounds = 3\n", wait=PATIENT)
    for name in sites.roles:
        sites.start(name)
    for turn in range(60):
        sites.turn()
        if turn % 4 == 3:
            for name in ("c1", "aggregator_1"):
                if not sites.alive[name].finished:
                    sites.stop(name)
                    sites.start(name)
    sites.run()
    server = sites.conventions[sites.convener].convening.convener.server
    assert len(server.history.links) == 3
    for name in CLIENTS:
        model = sites.parties[name].model()
        assert model is not None
        assert np.array_equal(model.weights, sites.weights())
        assert charges(sites, name) == [(True, True)] * 3


def test_a_session_without_a_sum_is_given_back_and_tried_again(tmp_path: Path) -> None:
    """One aggregator that vanished used up everybody's exact release for good."""
    sites = Sites(tmp_path, Additive(), CLIENTS)
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: "aggregator_1" in joined(sites))
    # It is away for longer than a step may take, and then comes back.
    sites.stop("aggregator_1")
    sites.until(lambda: any("asking for the session back" in t for t in sites.told["collector"]))
    sites.run()
    convener = sites.conventions["collector"].convening.convener
    (link,) = convener.server.history.links
    bits = convener.server.public.task.quantiser.bits
    assert np.array_equal(sites.weights(), oracle(CLIENTS, bits))
    for name in CLIENTS:
        assert charges(sites, name) == [(False, False), (True, True)]
        model = sites.parties[name].model()
        assert model is not None
        assert np.array_equal(model.weights, sites.weights())
    assert link.release.included == convener.session.header.participants  # type: ignore[union-attr]


def test_an_aggregator_that_never_comes_back_ends_the_run_in_words(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS)
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: "aggregator_1" in joined(sites))
    sites.stop("aggregator_1")
    sites.until(lambda: all(driver.finished for driver in sites.alive.values()))
    problem = sites.conventions["collector"].convening.problem
    assert "no void of aggregator_1" in problem
    for name in CLIENTS:
        # Nobody can say that its half of the sum is not out.
        assert charges(sites, name) == [(True, False)]
        assert sites.parties[name].attending.failed


def test_a_run_for_which_no_client_enrols_ends_in_words(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS)
    for name, role in sites.roles.items():
        if role != "client":
            sites.start(name)
    sites.until(lambda: all(driver.finished for driver in sites.alive.values()))
    assert "no client has enrolled" in sites.conventions["collector"].convening.problem


def test_a_run_that_too_many_decline_ends_without_waiting_for_them(tmp_path: Path) -> None:
    """Steps may take 10,000 seconds here, and all is over within 400."""
    sites = Sites(tmp_path, Additive(), CLIENTS, run="min_cohort = 2\n", wait=(50, 10_000))
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: all(driver.finished for driver in sites.alive.values()))
    assert any("0 clients are fewer than the minimum" in t for t in sites.told["collector"])
    assert "no sum came out in 2 attempts" in sites.conventions["collector"].convening.problem


def test_a_client_whose_vector_was_never_sent_gives_its_own_entry_back(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Pairwise(dropout_fraction=0.0), CLIENTS)
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: "c0" in joined(sites))
    # Too few are left to sign that nothing was opened.
    for name in ("c1", "c2", "c3"):
        sites.stop(name)
    sites.until(lambda: all(driver.finished for driver in sites.alive.values()))
    assert sites.conventions["server"].convening.problem
    assert charges(sites, "c0") == [(False, False)]


def joined(sites: Sites) -> set[str]:
    return {name for name, told in sites.told.items() if any("joined" in what for what in told)}


def test_a_client_that_never_answers_is_left_out(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS)
    for name in sites.roles:
        if name != "c2":
            sites.start(name)
    sites.until(lambda: all(driver.finished for driver in sites.alive.values()))
    rest = {name: client for name, client in CLIENTS.items() if name != "c2"}
    bits = sites.conventions["collector"].convening.convener.server.public.task.quantiser.bits
    assert np.array_equal(sites.weights(), oracle(rest, bits))


def test_one_site_may_be_carried_by_hand(tmp_path: Path) -> None:
    """It has a folder of its own, and somebody copies files between the two."""
    sites = Sites(tmp_path, Additive(), CLIENTS)
    own = tmp_path / "stick"
    own.mkdir()
    sites.mailrooms["c3"] = FolderMailroom(own)
    for name in sites.roles:
        sites.start(name)

    def carried() -> bool:
        for one, other in ((tmp_path / "post", own), (own, tmp_path / "post")):
            shutil.copytree(one, other, dirs_exist_ok=True)
        return all(driver.finished for driver in sites.alive.values())

    sites.until(carried)
    bits = sites.conventions["collector"].convening.convener.server.public.task.quantiser.bits
    assert np.array_equal(sites.weights(), oracle(CLIENTS, bits))


def test_two_processes_of_one_site_are_one_too_many(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS)
    sites.start("c0")
    with pytest.raises(Busy):
        sites.start("c0")
    sites.stop("c0")
    sites.start("c0")


def test_letters_that_nobody_on_the_roster_signed_change_nothing(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS)
    for name in sites.roles:
        sites.start(name)
    sites.turn()
    letters = sites.mailrooms["c0"].letters()
    kept = [mail for _, mail in sites.mailrooms["c0"].letters().collect(["c0"])]
    assert kept
    for mail in kept:
        for place in range(0, len(mail), 7):
            bent = bytearray(mail)
            bent[place] ^= 1
            letters.send("c0", bytes(bent))
    letters.send("c0", b"")
    letters.send("c0", b"\xff" * 1000)
    sites.run()
    bits = sites.conventions["collector"].convening.convener.server.public.task.quantiser.bits
    assert np.array_equal(sites.weights(), oracle(CLIENTS, bits))


def test_a_second_run_between_the_same_sites_needs_a_ledger_that_allows_it(
    tmp_path: Path,
) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS)
    sites.run()
    for name in sites.roles:
        sites.parties[name].forget()
        sites.stop(name)
    for name in sites.roles:
        sites.start(name)
    # Letters of the run before lie there still.
    sites.until(lambda: sites.conventions["collector"].convening.finished)
    assert any("not joined" in what for what in sites.told["c0"])
    assert charges(sites, "c0") == [(True, True)]
    problem = sites.conventions["collector"].convening.problem
    assert problem


def test_terms_that_a_site_does_not_want_are_refused_there(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS, run="min_cohort = 2\n")
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: sites.conventions["collector"].convening.finished)
    for name in CLIENTS:
        assert any("minimum cohort 2 with 0 declared corrupt" in t for t in sites.told[name])
        assert not (sites.folder / name / "ledger.json").exists()


def test_other_classes_than_a_sites_own_are_refused_at_home(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS)
    path = sites.folder / "collector" / "run.toml"
    path.write_text(path.read_text().replace("['0', '1', '2']", "['0', '1']"))
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: sites.conventions["collector"].convening.finished)
    assert any("has examples of class '2'" in told for told in sites.told["c0"])
    # The convener learns that there was an error, and not which.
    assert all("class '2'" not in told for told in sites.told["collector"])
    assert any("'c0' declined; its people know why" in told for told in sites.told["collector"])


def test_with_noise_classes_are_the_sites_own_and_none_of_its_rows_shows_in_a_refusal(
    tmp_path: Path,
) -> None:
    """A convener that leaves a class out asks who has an example of it."""
    few = {
        name: replace(data, labels=data.labels % 2) if name == "c0" else data
        for name, data in CLIENTS.items()
    }
    sites = Sites(tmp_path, Additive(), few, site=NOISY, method="private-gradient")
    path = sites.folder / "collector" / "run.toml"
    path.write_text(path.read_text().replace("['0', '1', '2']", "['0', '1']"))
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: sites.conventions["collector"].convening.finished)
    # With an example of class 2 or without: the same refusal, by their own settings.
    for name in few:
        assert any("the task's classes are not this client's" in t for t in sites.told[name])
    own = sites.folder / "c1" / "site.toml"
    own.write_text(own.read_text().replace("['0', '1', '2']", "['0', '1']"))
    sites.stop("c1")
    with pytest.raises(DataError, match="has examples of class '2'"):
        sites.start("c1")
    own.write_text(own.read_text().replace("classes", "# classes"))
    with pytest.raises(ConfigError, match="'epsilon' and no 'classes'"):
        read_site(own)
    other = sites.folder / "collector" / "site.toml"
    other.write_text(other.read_text() + "classes = ['0']\n")
    with pytest.raises(ConfigError, match="'classes' has no effect for a collector"):
        read_site(other)


def test_settings_that_say_nothing_or_two_things_are_refused(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS)
    client = sites.folder / "c0" / "site.toml"
    text = client.read_text()
    for change, message in [
        (("max-rows = 32\n", ""), "no 'max_rows', the public bound"),
        (('ledger = "ledger.json"\n', ""), "no 'ledger'"),
        (('data = "data.npz"\n', ""), "no 'data'"),
        (('role = "client"', 'role = "aggregator"'), "'data' has no effect for a aggregator"),
        (("max-rows = 32", "max-rows = 0"), "'max_rows': 0 is not allowed"),
        (('method = "afl"', 'method = "afk"'), "'afk' is not allowed"),
        (('method = "afl"', 'method = "afl"\ndrop = 2'), "'drop' has no effect for a client"),
        (("max-rows = 32", "max-rows = '32'"), "site.toml: field 'max_rows': '32' is not allowed"),
        (("backbone", "backbones"), "'backbones' has no effect for a client; did you mean backb"),
        (("identity", "identities"), "no 'identity'"),
    ]:
        client.write_text(text.replace(*change))
        with pytest.raises(ConfigError, match=message):
            process.take_part(client, f"folder:{tmp_path / 'post'}", print)
    client.write_text(text)
    with pytest.raises(ConfigError, match="--config has no effect for 'c0'"):
        process.take_part(
            client, f"folder:{tmp_path / 'post'}", print, config=client, new_ledger=True
        )
    collector = sites.folder / "collector"
    with pytest.raises(ConfigError, match="name the run's settings, --config"):
        process.take_part(collector / "site.toml", f"folder:{tmp_path / 'post'}", print)
    with pytest.raises(ConfigError, match="allowed: folder:PATH"):
        open_mailroom("post:there")
    run = collector / "run.toml"
    given = run.read_text()
    for change, message in [
        (("classes", "klasses"), "no 'classes'"),
        (("['0', '1', '2']", "['0', '1', '0']"), "a name twice"),
        (("width = 6\n", ""), "no 'width'"),
        (('method = "afl"', 'method = "fedhip"'), "has method fedhip, this site's site.toml afl"),
        (('method = "afl"', 'method = "afl"\nridge = 2.0'), "with ridge 2.0, .* with ridge None"),
        (("width", "max-rows = 3\nwidth"), "'max_rows' is no setting of a run between sites"),
    ]:
        run.write_text(given.replace(*change))
        with pytest.raises(ConfigError, match=message):
            sites.start("collector")
        sites.parties.clear()


def test_sites_sum_counts_of_the_rows_that_all_keep_out(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS, site="evaluate = 0.4\n")
    sites.run()
    convention = sites.conventions[sites.convener]
    report = convention.report(convention.model())
    method = sites.parties["c0"].terms.method
    assert isinstance(method, Evaluated)
    task = convention.convening.convener.server.public.task
    kept = [method.kept(task, data) for data in float32(CLIENTS)]
    rows = pooled([data for data in kept if data is not None])
    truth = np.zeros((3, 3), dtype=np.int64)
    np.add.at(truth, (rows.labels, convention.model().predict(rows.features)), 1)
    assert report.pooled is not None
    for shown, counts in zip(report.pooled.confusion, truth, strict=True):
        assert shown == (tuple(counts.tolist()) if counts.sum() >= 10 else None)
    assert report.rounds == 2
    for name in CLIENTS:
        assert charges(sites, name) == [(True, True)] * 2
        public = sites.parties[name].attending.public
        assert public is not None
        assert report_pooled(method, public) == report.pooled


def test_sites_take_noisy_gradients_and_report_the_noise_of_every_kind_of_sum(
    tmp_path: Path,
) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS, site=NOISY, method="private-gradient")
    sites.run()
    convention = sites.conventions[sites.convener]
    report = convention.report(convention.model())
    assert report.rounds == 5
    for name in CLIENTS:
        assert charges(sites, name) == [(True, True)] * 5
    assert report.privacy is not None
    assert report.privacy.rounds == 5
    first, gradient = report.privacy.noise_std_by_round
    # Of rows as narrow as these no mean is taken off.
    assert ([*first], [*gradient]) == (["counts"], ["gradient"])
    assert report.privacy.noise_std == gradient


def test_sites_keep_the_model_where_its_evaluation_comes_to_nothing(tmp_path: Path) -> None:
    sites = Sites(tmp_path, Additive(), CLIENTS, site="evaluate = 0.4\n")
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: "the sum over 4 clients is out" in sites.told[sites.convener])
    sites.stop("aggregator_1")
    sites.until(lambda: sites.alive[sites.convener].finished)
    assert any("stands without" in line for line in sites.told[sites.convener])
    report = sites.conventions[sites.convener].report(sites.conventions[sites.convener].model())
    assert (report.rounds, report.pooled) == (1, None)
    sites.until(lambda: all(sites.alive[name].finished for name in CLIENTS))
    for name in CLIENTS:
        model = sites.parties[name].model()
        assert model is not None
        assert np.array_equal(model.weights, sites.weights())


def test_a_post_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    own, shared = tmp_path / "own", tmp_path / "shared"
    own.mkdir()
    shared.mkdir()
    (shared / "letters").symlink_to(own)
    with pytest.raises(NotStored, match=r"letters cannot be made: a link or a file"):
        FolderMailroom(shared).letters()
