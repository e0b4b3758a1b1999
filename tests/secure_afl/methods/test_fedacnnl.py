import csv
import dataclasses
import io
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from protocols import Additive, Bfv, Ckks, Pairwise, Plain
from protocols.codec import decode, encode
from protocols.layout import Integers
from protocols.protocol import Protocol
from secure_afl.analytic.layers.bank import FilterBank
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.methods import FedACnnL
from secure_afl.methods.fedacnnl import LayeredPublic
from secure_afl.methods.networks.layered import LayeredModel
from secure_afl.runs import inference
from secure_afl.runs import run as runs
from secure_afl.runs.config import RunConfig
from tests.kit.commands import Command
from tests.kit.samples import make_task
from tests.kit.stopped import stops_at_sum

CLASSES = ("across", "down", "both")
TWO = FedACnnL(layers=2, filter_count=3, kernel=3, regions=2)
ONE = FedACnnL(filter_count=6, regions=2)
METHODS = (
    ONE,
    TWO,
    FedACnnL(filters="code", filter_count=4),
    FedACnnL(filters="random", layers=2, filter_count=8, regions=2),
)
PROTOCOLS = (
    Plain(),
    Additive(2),
    Pairwise(corrupt_fraction=0.0, dropout_fraction=0.0, server_trust="lying"),
    Ckks(),
    Bfv(),
)


def striped(rows: int, seed: int = 0, side: int = 8, channels: int = 1) -> ClientData:
    """Images of stripes, whose direction is their class."""
    rng = np.random.default_rng([seed, rows])
    labels = rng.integers(0, 3, rows)
    y, x = np.mgrid[:side, :side]
    shift = rng.uniform(0, 6, rows)[:, None, None]
    across, down = np.sin(1.7 * x + shift), np.sin(1.7 * y + shift)
    images = np.where((labels == 0)[:, None, None], across, down)
    images = np.where((labels == 2)[:, None, None], np.sin(1.2 * (x + y) + shift), images)
    images = images[..., None] + 0.4 * rng.standard_normal((rows, side, side, channels))
    pixels = ((images - images.min()) / np.ptp(images)).reshape(rows, -1)
    return ClientData("all", pixels.astype(np.float32), labels)


def cut(whole: ClientData, edges: Sequence[int]) -> list[ClientData]:
    """Parts of the rows, as clients."""
    parts = zip(np.split(whole.features, edges), np.split(whole.labels, edges), strict=True)
    return [ClientData(f"c{i}", features, labels) for i, (features, labels) in enumerate(parts)]


def run(
    clients: Sequence[ClientData],
    method: FedACnnL = ONE,
    protocol: Protocol | None = None,
    **settings: object,
) -> Result:
    federation = Federation(method, protocol or Plain(), feature_bits=8, **settings)  # type: ignore[arg-type]
    return federation.run(clients, classes=CLASSES, max_rows=64)


def totals(result: Result) -> list[Integers]:
    return [round_.released.total for round_ in result.rounds]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("method", [ONE, TWO], ids=["one", "two"])
def test_every_sum_is_that_of_all_rows_in_one_place_under_every_protocol(
    protocol: Protocol, method: FedACnnL
) -> None:
    whole = striped(60)
    result = run(cut(whole, [11, 20, 41]), method, protocol)
    assert result.report.exact
    assert len(result.rounds) == method.layers + 1
    task = make_task([whole], bits=8, max_rows=64)
    public = method.begin(task)
    for total in totals(result):
        assert np.array_equal(total, method.contribute(public, whole, {}, b""))
        public = method.absorb(public, total, ("all",))
    assert isinstance(result.public, LayeredPublic)
    for bank, again in zip(result.public.banks, public.banks, strict=True):
        assert np.array_equal(bank.weights, again.weights)
    assert np.array_equal(result.model.weights, method.model(public).weights)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.filters}{m.layers}")
def test_no_partition_changes_a_bit_of_any_sum_or_of_the_model(method: FedACnnL) -> None:
    whole = striped(60)
    first = run(cut(whole, [30]), method)
    by_label = whole.labels.argsort(kind="stable")
    skewed = ClientData("all", whole.features[by_label], whole.labels[by_label])
    for clients in (cut(whole, [1, 2, 3, 59]), cut(skewed, [20, 40])):
        other = run(clients, method)
        for total, expected in zip(totals(other), totals(first), strict=True):
            assert np.array_equal(total, expected)
        assert np.array_equal(other.model.weights, first.model.weights)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.filters}{m.layers}")
def test_batches_are_irrelevant(method: FedACnnL, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = striped(30)
    expected = totals(run(cut(whole, [9, 20]), method))
    for numbers, rows in ((1, 1), (2000, 7)):
        monkeypatch.setattr("secure_afl.analytic.layers.patches._BLOCK_NUMBERS", numbers)
        monkeypatch.setattr("secure_afl.methods.networks.layered._ROWS", rows)
        for total, wanted in zip(totals(run(cut(whole, [9, 20]), method)), expected, strict=True):
            assert np.array_equal(total, wanted)


def test_who_drops_out_only_is_not_in_the_sum() -> None:
    clients = cut(striped(60), [20, 40])
    federation = Federation(ONE, Additive(2), feature_bits=8, min_cohort=2)
    result = federation.run(clients, classes=CLASSES, max_rows=64, drop=["c2"])
    assert result.report.exact
    for total, expected in zip(totals(result), totals(run(clients[:2])), strict=True):
        assert np.array_equal(total, expected)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.filters}{m.layers}")
def test_it_learns_what_ridge_on_pixels_cannot(method: FedACnnL) -> None:
    from secure_afl.methods import AFL

    clients, test = cut(striped(150), [50, 100]), striped(200, seed=1)
    federation = Federation(method, Plain())
    found = federation.run(clients, classes=CLASSES, test=test).report.accuracy.federated
    plain = Federation(AFL(), Plain()).run(clients, classes=CLASSES, test=test).report.accuracy
    assert found is not None
    assert plain.federated is not None
    assert found > 0.9
    assert found > plain.federated + 0.2


def test_colour_and_other_shapes() -> None:
    colour = striped(30, side=9, channels=3)
    result = run(cut(colour, [10, 20]))
    assert isinstance(result.model, LayeredModel)
    assert result.model.network.image == (9, 9, 3)
    wide = ClientData("all", colour.features[:, :240], colour.labels)
    method = FedACnnL(image_shape=(5, 16, 3), filter_count=4, regions=2)
    result = run(cut(wide, [10, 20]), method)
    assert result.report.exact
    assert result.model.scores(wide.features).shape == (30, 3)


def test_sums_take_as_many_rounds_as_kinds_say() -> None:
    assert [method.sums for method in METHODS] == [2, 3, 2, 1]
    result = run(cut(striped(30), [10]), METHODS[3])
    assert next(b.name for b in result.rounds[0].session.layout.blocks) == "gram_diagonal"


def test_the_server_alone_makes_filters_and_clients_take_them_as_they_are() -> None:
    clients = cut(striped(40), [20])
    task = make_task(clients, max_rows=64)
    public = TWO.begin(task)
    total = np.sum([TWO.contribute(public, c, {}, b"") for c in clients], axis=0)
    after = TWO.absorb(public, total, ("c0", "c1"))
    sent = decode(encode(after), LayeredPublic)
    assert [(bank.weights.dtype.kind, bank.count) for bank in sent.banks] == [("i", 3)]
    TWO.check(sent, 2)
    assert np.array_equal(
        TWO.contribute(sent, clients[0], {}, b""), TWO.contribute(after, clients[0], {}, b"")
    )


def test_states_that_are_none_of_the_round_are_refused() -> None:
    task = make_task([striped(20)], max_rows=64)
    zeros = np.zeros((9, 3), dtype=np.int64)
    bank = FilterBank(zeros, zeros[0])
    TWO.check(TWO.begin(task), 1)
    for banks, round_ in (((bank,), 1), ((), 2), ((bank, bank), 2)):
        with pytest.raises(DataError, match="a state of"):
            TWO.check(LayeredPublic(task, banks), round_)
    wrong = FilterBank(zeros[:, :2], zeros[0, :2])
    with pytest.raises(DataError, match="filters are"):
        TWO.check(LayeredPublic(task, (wrong,)), 2)


def test_memory_is_flat_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secure_afl.analytic.layers.patches._BLOCK_NUMBERS", 20_000)
    monkeypatch.setattr("secure_afl.methods.networks.layered._ROWS", 32)

    def peak(rows: int, layers: int) -> int:
        data = striped(rows)
        public = ONE.foreseen(make_task([data]))[layers]
        tracemalloc.start()
        ONE.contribute(public, data, {}, b"")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    for layers in (0, 1):
        assert peak(1200, layers) < 1.2 * peak(60, layers)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"kernel": 4}, "kernel is 4, allowed: odd"),
        ({"kernel": 17}, "kernel is 17"),
        ({"layers": 0}, "layers is 0"),
        ({"regions": 17}, "regions is 17"),
        ({"layer_bits": 9}, "layer_bits is 9"),
        ({"filter_count": 0}, "filter_count is 0"),
        ({"filter_ridge": 0.0}, "filter_ridge is 0"),
        ({"filters": "best"}, "filters is 'best', allowed: canonical, code, random"),
        ({"ridge": -1.0}, "ridge is -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        FedACnnL(**settings)  # type: ignore[arg-type]


def test_rows_that_are_no_images_are_refused_before_anything_is_sent() -> None:
    data = striped(20)
    odd = ClientData("all", data.features[:, :60], data.labels)
    with pytest.raises(ConfigError, match="60 values are no images"):
        run(cut(odd, [10]))
    with pytest.raises(ConfigError, match="sides ≥ 16"):
        run(cut(data, [10]), FedACnnL(layers=3))


def test_defaults_follow_the_size_of_the_image() -> None:
    method = FedACnnL()
    small = method.network(make_task([striped(20)]))
    assert (small.kernel, small.counts) == (3, (9,))
    large = method.network(make_task([striped(20, side=16)]))
    assert (large.kernel, large.counts) == (5, (25,))
    colour = method.network(make_task([striped(20, side=16, channels=3)]))
    assert colour.counts == (32,)


def test_a_saved_model_predicts_from_images(command: Command, tmp_path: Path) -> None:
    data = striped(120, side=16)
    pixels = (255 * data.features).astype(np.uint8).reshape(-1, 16, 16)
    for row, (image, label) in enumerate(zip(pixels, data.labels, strict=True)):
        where = "test" if row >= 90 else f"sites/{'abc'[row % 3]}"
        folder = tmp_path / where / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{row:03}.png")
    command.well(
        *("run", "--clients", str(tmp_path / "sites/*"), "--test", str(tmp_path / "test")),
        *("--method", "fedacnnl", "--filter-count", "8", "--out", str(tmp_path / "out")),
    )
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["exact"]
    assert report["rounds"] == 2
    model = tmp_path / "out/model.safetensors"
    loaded, card = LayeredModel.load(model)
    assert card["layers"]["image"] == [16, 16, 3]
    assert loaded.network.counts == (8,)
    found = command.well("evaluate", str(model), str(tmp_path / "test"), "--json", "-").out
    assert json.loads(found)["accuracy"] == report["accuracy"]["federated"] >= 0.8
    rows = list(
        csv.DictReader(io.StringIO(command.well("predict", str(model), str(tmp_path / "test")).out))
    )
    right = [Path(row["example"]).parent.name == row["class"] for row in rows]
    assert sum(right) / len(right) == report["accuracy"]["federated"]


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    result = run(cut(striped(40), [20]))
    path = tmp_path / "model.safetensors"
    result.model.save(path, {})
    loaded, card = LayeredModel.load(path)
    images = striped(9, seed=2).features
    assert np.array_equal(loaded.scores(images), result.model.scores(images))
    with pytest.raises(DataError, match="wants"):
        loaded.scores(images[:, :50])
    assert "LayeredModel of 1 layers" in repr(loaded)
    for change in ({"counts": [5]}, {"kernel": 5}, {"regions": 3}, {"image": [8, 8, 3]}):
        altered = card | {"layers": card["layers"] | change}
        path.with_suffix(".json").write_text(json.dumps(altered))
        with pytest.raises(DataError, match="damaged"):
            LayeredModel.load(path)


def test_a_configured_run_learns_from_pixels_alone() -> None:
    config = RunConfig(method="fedacnnl").replaced(filters="random", filter_count=4, ridge=0.5)
    result = runs.run(config)
    assert result.report.exact
    assert result.report.ridge == 0.5
    assert isinstance(result.model, LayeredModel)
    with pytest.raises(ConfigError, match=r"learns from pixels, .* allowed: identity"):
        runs.run(config.replaced(backbone="projection:64"))
    assert inference._KINDS["layers"] is LayeredModel


def test_the_vector_of_pooled_rows_is_the_sum_of_vectors() -> None:
    clients = cut(striped(40), [7, 19])
    task = make_task(clients, max_rows=64)
    for method in METHODS:
        for public in method.foreseen(task):
            vectors = [method.contribute(public, client, {}, b"") for client in clients]
            expected = method.contribute(public, pooled(clients), {}, b"")
            assert np.array_equal(np.sum(vectors, axis=0), expected)
            layout = method.layout(public)
            assert layout is not None
            for vector in vectors:
                layout.check(vector)


@pytest.mark.parametrize("head", ["lda", "ridge", "means"])
def test_every_head_may_follow_the_layers(head: str) -> None:
    clients, test = cut(striped(150), [50, 100]), striped(200, seed=1)
    federation = Federation(FedACnnL(filter_count=6, regions=2, head=head), Plain())
    result = federation.run(clients, classes=CLASSES, test=test)
    report = result.report
    assert report.head is not None
    assert report.head.name == head
    assert report.accuracy.federated is not None
    assert report.accuracy.federated > (0.75 if head == "means" else 0.9)
    # One place has the floats that the integers stand for.
    assert report.accuracy.agreement is not None
    assert report.accuracy.agreement > 0.98
    assert bool(result.curve) == (head != "means")


def test_a_prior_can_be_exchanged_and_probabilities_are_those_of_the_head() -> None:
    clients, test = cut(striped(150), [50, 100]), striped(40, seed=1)
    result = Federation(FedACnnL(head="lda", filter_count=4, regions=2), Plain()).run(
        clients, classes=CLASSES, test=test
    )
    model = result.model
    assert isinstance(model, LayeredModel)
    assert [figures.prior for figures in result.report.results] == ["observed", "uniform"]
    shares = model.probabilities(test.features)
    assert np.allclose(shares.sum(axis=1), 1.0)
    assert np.array_equal(shares.argmax(axis=1), model.predict(test.features))
    certain = model.with_prior(np.array([1.0, 0.0, 0.0]))
    assert set(certain.predict(test.features).tolist()) == {0}
    assert np.allclose(model.comparable(7 * test.features), model.comparable(test.features))
    milder = dataclasses.replace(model, head=dataclasses.replace(model.head, temperature=50.0))
    assert milder.probabilities(test.features).max() < shares.max()
    flat = milder.uncalibrated().probabilities(test.features)
    assert np.array_equal(flat, model.uncalibrated().probabilities(test.features))
    ridge = (
        Federation(FedACnnL(head="ridge", filter_count=4, regions=2), Plain())
        .run(clients, classes=CLASSES)
        .model
    )
    with pytest.raises(DataError, match="no prior"):
        ridge.with_prior(np.ones(3))
    with pytest.raises(DataError, match="no log-odds"):
        ridge.probabilities(test.features)


@pytest.mark.parametrize("way", ["prior", pytest.param("auto", marks=pytest.mark.slow)])
def test_clients_may_have_heads_of_their_own_behind_the_layers_of_all(
    way: str, tmp_path: Path
) -> None:
    whole = striped(90)
    clients, kept = cut(whole, [30, 60]), cut(striped(120, seed=3), [40, 80])
    result = Federation(FedACnnL(personal=way, filter_count=4, regions=2), Plain()).run(
        clients, classes=CLASSES, holdout=kept
    )
    assert result.report.personal is not None
    for name, model in result.personal.items():
        assert isinstance(model, LayeredModel)
        assert model.banks is result.public.banks  # type: ignore[attr-defined]
        model.save(tmp_path / f"{name}.safetensors", {})
        loaded, _ = LayeredModel.load(tmp_path / f"{name}.safetensors")
        assert np.array_equal(loaded.scores(whole.features), model.scores(whole.features))
    with pytest.raises(ConfigError, match="allowed with fedacnnl: none, prior, proximal, auto"):
        FedACnnL(personal="joint")


@pytest.mark.slow
def test_a_run_that_was_stopped_is_finished_from_its_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    config = RunConfig(method="fedacnnl", out=str(tmp_path / "out")).replaced(filter_count=3)
    whole = runs.run(config.replaced(out=str(tmp_path / "whole")))
    with stops_at_sum(2, monkeypatch):
        runs.run(config)
    result = runs.resume(tmp_path / "out")
    assert result.report.exact
    assert np.array_equal(result.model.weights, whole.model.weights)
    assert (tmp_path / "out/model.safetensors").exists()


def test_a_report_warns_of_what_few_images_give_away() -> None:
    few = run(cut(striped(30), [10, 20])).report.warnings
    assert any("an image alone in its class comes out whole" in words for words in few)
    seeded = run(cut(striped(30), [10, 20]), METHODS[3]).report.warnings
    assert not any("comes out whole" in words for words in seeded)


def test_flags_are_of_the_method_and_refused_with_others(command: Command) -> None:
    assert "no effect with afl" in command.badly("run", "--filters", "code")
    assert "no effect with fedacnnl" in command.badly(
        "run", "--method", "fedacnnl", "--groups", "3"
    )
    assert "kernel is 4, allowed: odd" in command.badly(
        *("run", "--method", "fedacnnl", "--kernel", "4")
    )
    refused = command.badly("run", "--method", "fedacnnl", "--accept-outside")
    assert "accept_outside with 2 sums" in refused
