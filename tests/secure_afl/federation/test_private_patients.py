"""Unit patient in real sums: weighted integers and recorded noise, to the last bit."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from protocols import Additive, Pairwise, Plain
from protocols.layout import Integers
from protocols.network import FaultPlan
from protocols.protocol import Protocol
from protocols.schemes.encrypted.protocol import Bfv, Ckks
from secure_afl.analytic.layers.patches import PATIENT_WEIGHT
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.client import FederationClient
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.federation.sums import calibrated
from secure_afl.federation.task import Declared, Terms, plan_task
from secure_afl.methods import AFL, AnyMethod, FedACnnL, FedAvg, FedHiP, PrivateGradient
from secure_afl.methods.class_means import ClassMeans
from secure_afl.methods.evaluated import evaluated
from secure_afl.methods.method import Method
from secure_afl.privacy.mechanism import Mechanism, Privacy
from secure_afl.privacy.sensitivity import Neighbours, Unit
from secure_afl.runs.page.write import render_run
from tests.kit.samples import make_client, make_task
from tests.secure_afl.methods.test_fedacnnl import CLASSES as STRIPES
from tests.secure_afl.methods.test_fedacnnl import striped

PAIRWISE = Pairwise(corrupt_fraction=0.0, dropout_fraction=0.2)
PROTOCOLS = (
    Plain(),
    Additive(),
    pytest.param(PAIRWISE, marks=pytest.mark.slow),
    pytest.param(Ckks(), marks=pytest.mark.slow),
    pytest.param(Bfv(), marks=pytest.mark.slow),
)
CLASSES = ("0", "1", "2")
EPSILON = 2.0


def of_patients(name: str, rows: int, people: int) -> ClientData:
    """Rows of patients with one to several each, the last two of nobody who is named."""
    whose = [f"p{min(place, place * place % people)}" for place in range(rows - 2)]
    return replace(make_client(name, rows), patients=[*whose, "", ""])


# The same names at all clients: they are other patients, or the same ones elsewhere.
CLIENTS = [of_patients(f"c{i}", rows, 5) for i, rows in enumerate([17, 5, 19, 16, 28])]


def run(
    protocol: Protocol | None = None,
    method: AnyMethod | None = None,
    privacy: Privacy | None = None,
    clients: Sequence[ClientData] = CLIENTS,
    drop: Sequence[str] = (),
    plan: FaultPlan | None = None,
    max_rows: int = 8,
) -> Result:
    privacy = privacy or Privacy(EPSILON, unit="patient")
    federation = Federation(method or AFL(), protocol or Plain(), privacy=privacy, min_cohort=4)
    return federation.run(
        clients, classes=CLASSES, max_rows=max_rows, drop=drop, plan=plan, record=True
    )


def rows_each(data: ClientData) -> list[int]:
    assert data.patients is not None
    names = list(data.patients)
    return [names.count(name) if name else 1 for name in names]


def by_hand(data: ClientData, counts: bool) -> Integers:
    """A client's statistics, row by row, in Python's own integers."""
    several, label = rows_each(data), 4096
    integers = Quantiser(12).integers(data.features, rows_each=np.array(several)).astype(np.int64)
    gram, cross, number = np.zeros((6, 6), object), np.zeros((6, 3), object), np.zeros(3, object)
    for row, y, m in zip(integers.tolist(), data.labels.tolist(), several, strict=True):
        assert m * sum(x * x for x in row) <= 4096**2
        mark = math.isqrt(label**2 // m)
        gram += np.outer(row, row)
        cross[:, y] += np.array(row, object) * mark
        number[y] += mark**2
    upper = gram[np.triu_indices(6, 1)]
    parts = [gram.diagonal(), upper, cross.ravel(), *([number] if counts else [])]
    found: Integers = np.concatenate(parts).astype(np.int64)
    return found


def check_sums(result: Result, counts: bool = False) -> None:
    for round_ in result.rounds:
        names = round_.released.included
        clear = np.sum([by_hand(c, counts) for c in CLIENTS if c.name in names], axis=0)
        noise = np.sum([round_.noise[name] for name in names], axis=0)
        assert noise.any()
        assert np.array_equal(round_.released.total, clear + noise)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
def test_the_sum_is_weighted_rows_and_noise_to_the_last_bit(protocol: Protocol) -> None:
    result = run(protocol)
    check_sums(result)
    assert result.report.exact
    assert result.report.privacy is not None
    assert result.report.privacy.unit == "patient"
    assert result.report.examples is None


@pytest.mark.parametrize("protocol", PROTOCOLS[1:], ids=repr)
def test_also_with_counts_when_a_client_drops_out_and_all_restart(protocol: Protocol) -> None:
    privacy = Privacy(EPSILON, unit="patient", neighbours="replace-one", counts_weight=0.3)
    result = run(protocol, privacy=privacy, drop=["c2"], plan=FaultPlan(reload=True))
    check_sums(result, counts=True)
    assert result.report.exact
    assert result.report.clients.dropped == 1


def test_patients_of_other_names_are_those_of_the_pooled_rows() -> None:
    named = [
        replace(c, patients=[f"{c.name} {name}" if name else "" for name in c.patients or ()])
        for c in CLIENTS
    ]
    assert run(clients=named).report.exact


def test_counts_of_patients_are_called_so() -> None:
    clients = [of_patients(f"c{i}", 60, 12) for i in range(5)]
    words: dict[Unit, str] = {"patient": "patients", "example": "rows"}
    for unit, what in words.items():
        privacy = Privacy(20.0, unit=unit, placement="central")
        result = run(method=evaluated(AFL(), 0.5), privacy=privacy, clients=clients, max_rows=64)
        assert result.report.pooled is not None
        assert f"<dt>{what} that all sites kept out</dt>" in render_run(result.report)


def test_methods_that_do_not_know_patients_are_refused() -> None:
    class Forgetful(AFL, frozen=True, tag="forgetful"):
        name = "forgetful"
        hides_patients = False

    with pytest.raises(ConfigError, match="unit patient with forgetful, which does not weigh"):
        run(method=Forgetful())
    with pytest.raises(ConfigError, match="unit patient with forgetful"):
        run(method=evaluated(Forgetful(), 0.3))
    assert run(method=Forgetful(), privacy=Privacy(2.0), max_rows=32).report.exact
    # By default a method knows of none.
    assert not Method.hides_patients


@pytest.mark.parametrize(
    "method",
    [ClassMeans(), FedHiP(), FedAvg(rounds=2, weighted=False), evaluated(AFL(), 0.3)],
    ids=lambda m: m.name,
)
def test_every_method_runs_for_patients(method: AnyMethod) -> None:
    # Little noise: that of ε = 2 may leave no class of these few patients with a positive count.
    result = run(method=method, privacy=Privacy(20.0, unit="patient"))
    assert result.report.exact
    assert result.report.privacy is not None
    assert result.report.privacy.rounds == method.sums


def test_an_alone_patients_rows_weigh_as_one_example() -> None:
    """Of patients with a row each, sums are those of unit example, in units of the labels."""
    alone = [replace(c, patients=[f"p{i}" for i in range(len(c))]) for c in CLIENTS]
    vectors = []
    for unit in ("example", "patient"):
        privacy = Privacy(EPSILON, unit=unit, placement="central")
        (round_,) = run(clients=alone, privacy=privacy, max_rows=32).rounds
        vectors.append(round_.session.layout.split(round_.released.total))
    example, patient = vectors
    assert np.array_equal(example["gram_diagonal"], patient["gram_diagonal"])
    assert np.array_equal(example["gram_upper"], patient["gram_upper"])
    assert np.array_equal(4096 * example["cross"], patient["cross"])


def test_the_bound_is_on_patients() -> None:
    # Clients have up to 28 rows, of five patients with a name at most, and two without.
    assert run(max_rows=7).report.exact
    with pytest.raises(DataError, match="'c0' has more patients than 6"):
        run(max_rows=6)
    privacy = Privacy(1.0, unit="patient", neighbours="replace-one")
    with pytest.raises(ConfigError, match="unit patient, replace-one"):
        Federation(AFL(), Plain(), privacy=privacy).run(CLIENTS, classes=CLASSES)


def test_rows_that_do_not_say_whose_they_are_are_refused() -> None:
    bare = [*CLIENTS[:-1], replace(CLIENTS[-1], patients=None)]
    with pytest.raises(DataError, match="client 'c4' does not say whose its rows are"):
        run(clients=bare)
    terms = Terms(FedAvg(weighted=False), Plain(), Privacy(1.0, unit="patient"))
    with pytest.raises(DataError, match="does not say whose"):
        FederationClient(terms, bare[-1], 8)
    # Without noise, or for other units, nobody has to.
    assert run(clients=bare, privacy=Privacy(1.0, unit="client"), max_rows=32).report.exact


def striped_clients() -> list[ClientData]:
    """Images of patients, or of nobody who is named."""
    whole = striped(90)
    names = [f"p{place % 11}" for place in range(90)]
    names[30:60] = [""] * 30
    parts = [whole.take(np.arange(start, start + 30)) for start in (0, 30, 60)]
    return [
        replace(part, name=f"c{i}", patients=names[30 * i :][:30]) for i, part in enumerate(parts)
    ]


@pytest.mark.parametrize("filters", ["canonical", "random"])
def test_layers_weigh_images_by_patient(filters: str) -> None:
    clients = striped_clients()
    method = FedACnnL(filters=filters, filter_count=4, regions=2)
    federation = Federation(method, Additive(), privacy=Privacy(8.0, unit="patient"))
    result = federation.run(clients, classes=STRIPES, max_rows=32, record=True)
    assert result.report.exact
    assert len(result.rounds) == method.sums
    if filters == "random":
        return
    # The layer's sum, image by image.
    first, begun = result.rounds[0], method.begin(make_task(clients))
    clear = np.sum(list(first.noise.values()), axis=0)
    for data in clients:
        for place, several in enumerate(rows_each(data)):
            image = data.take(np.array([place]))
            clear += PATIENT_WEIGHT // several * method.contribute(begun, image, {}, b"")
    assert np.array_equal(first.released.total, clear)


@pytest.mark.parametrize("neighbours", ["add-remove", "replace-one"])
def test_no_patient_moves_a_layers_sum_further_than_its_sensitivity(neighbours: Neighbours) -> None:
    """Beside patients that stay; a patient's images in one class or in several."""
    method = FedACnnL(filter_count=4, regions=2)
    privacy = Privacy(8.0, unit="patient", neighbours=neighbours)
    mechanism = Mechanism(privacy, method.sums, 3, 0, 1)
    images, rng = striped(60), np.random.default_rng(3)
    task = calibrated(method, structs.replace(make_task([images] * 3), mechanism=mechanism))
    public = method.begin(task)
    layout, found = method.layout(public), method.sensitivity(public, privacy)
    assert layout is not None
    relative = np.concatenate(
        [np.full(block.length, dict(found.relative)[block.name]) for block in layout.blocks]
    )

    def with_patient(several: int) -> Integers:
        places = rng.permutation(50)[:several] + 10
        if several > 4:  # all alike
            places[:] = places[0]
        data = images.take(np.concatenate([np.arange(10), places]))
        whose = ["a", "b"] * 5 + ["x"] * several
        vector = method.contribute(public, replace(data, patients=whose), {}, b"")
        layout.check(vector)
        return vector

    distances = []
    for _ in range(30):
        end = 0 if neighbours == "add-remove" else int(rng.choice([1, 2, 7]))
        difference = with_patient(int(rng.choice([1, 2, 3, 7]))) - with_patient(end)
        distances.append(float(np.linalg.norm(difference / relative)))
    # Standardised images are not the worst that the bound allows for.
    assert 0.2 * found.joint < max(distances) <= found.joint


@pytest.mark.slow
@pytest.mark.parametrize("neighbours", ["add-remove", "replace-one"])
@pytest.mark.parametrize("method", [ClassMeans(), evaluated(AFL(), 0.5)], ids=lambda m: m.name)
def test_no_patient_moves_means_or_counts_further(
    method: AnyMethod, neighbours: Neighbours
) -> None:
    privacy = Privacy(8.0, unit="patient", neighbours=neighbours)
    declared = Declared(6, CLASSES, (("a", 8), ("b", 8), ("c", 8)), bytes(32), 2)
    task = plan_task(Terms(method, Additive(), privacy), declared)
    public = method.begin(task)
    if method.name != ClassMeans.name:
        exact = AFL().begin(make_task([CLIENTS[0]]))
        fitted = AFL().absorb(exact, AFL().contribute(exact, CLIENTS[0], {}, b""), ())
        learned = structs.replace(fitted, task=task)
        public = structs.replace(public, learned=learned, evaluating=True)
    layout, found = method.layout(public), method.sensitivity(public, privacy)
    assert layout is not None
    relative = np.concatenate(
        [np.full(block.length, dict(found.relative)[block.name]) for block in layout.blocks]
    )
    rng, distances = np.random.default_rng(0), []
    for trial in range(200):
        vectors = []
        for side in range(2):
            several = int(rng.choice([1, 2, 3, 4, 7, 30]))
            if neighbours == "add-remove" and side:
                several = 0
            rows, labels = rng.standard_normal((several, 6)), rng.integers(0, 3, several)
            if trial % 3 == 0:  # all of a patient's rows alike, and opposite to the other's
                rows, labels = np.tile((1.0 - 2 * side) * np.eye(6)[0], (several, 1)), 0 * labels
            data = ClientData(
                "a",
                np.concatenate([CLIENTS[0].features, rows]),
                np.concatenate([CLIENTS[0].labels, labels]),
                # Another name, so that it is kept out in some of these trials.
                [*(CLIENTS[0].patients or ()), *[f"x{trial}"] * several],
            )
            vectors.append(method.contribute(public, data, {}, b""))
            layout.check(vectors[-1])
        distances.append(float(np.linalg.norm((vectors[0] - vectors[1]) / relative)))
    assert 0.99 * found.joint <= max(distances) <= found.joint * (1 + 1e-12)


BROKEN = {
    # What is patched, by what, and the methods that it breaks.
    "patients not weighted": (
        "secure_afl.methods.method.PatientGroups.rows_each",
        property(lambda groups: np.ones(len(groups.order), dtype=np.int64)),
        ("afl", "class-means", "layers", "counts"),
    ),
    "labels not weighted": (
        "secure_afl.analytic.statistics.rooted",
        lambda whole, rows: np.full(len(rows), whole),
        ("afl",),
    ),
    "sums not cut": (
        "secure_afl.methods.private_gradient.within",
        lambda vectors, longest: np.rint(vectors),
        ("first sum", "gradients"),
    ),
}


def one_patient(kind: str, several: int) -> float:
    """How far a patient of equal rows moves a sum, in units of what it may."""
    privacy = Privacy(8.0, unit="patient")
    methods: dict[str, AnyMethod] = {
        "class-means": ClassMeans(),
        "layers": FedACnnL(filter_count=4, regions=1, kernel=1),
        "counts": evaluated(AFL(), 0.9),
        "first sum": PrivateGradient(rounds=5, centre=True),
        "gradients": PrivateGradient(rounds=5, centre=True),
    }
    method = methods.get(kind, AFL())
    dim, classes = (64, STRIPES) if kind == "layers" else (6, CLASSES)
    declared = Declared(dim, classes, (("a", 8), ("b", 8), ("c", 8)), bytes(32), 2)
    task = plan_task(Terms(method, Additive(), privacy), declared, b"0" * 16)
    public = method.begin(task)
    if kind == "counts":
        exact = AFL().begin(make_task([CLIENTS[0]]))
        fitted = AFL().absorb(exact, AFL().contribute(exact, CLIENTS[0], {}, b""), ())
        learned = structs.replace(fitted, task=task)
        public = structs.replace(public, learned=learned, evaluating=True)
    if kind == "gradients":
        public = method.absorb(public, np.arange(9), ("a",))
    # An image of two halves, which has a mean and a deviation.
    row = np.repeat([0.0, 1.0], dim // 2)
    data = ClientData(
        "a", np.tile(row, (several, 1)), np.zeros(several, dtype=np.int64), ["x"] * several
    )
    layout, found = method.layout(public), method.sensitivity(public, privacy)
    assert layout is not None
    relative = np.concatenate(
        [np.full(block.length, dict(found.relative)[block.name]) for block in layout.blocks]
    )
    vector = method.contribute(public, data, {}, b"")
    return float(np.linalg.norm(vector / relative)) / found.joint


@pytest.mark.parametrize("broken", [None, *BROKEN])
def test_weights_that_are_missing_break_the_bound(
    broken: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = [kind for _, _, those in BROKEN.values() for kind in those]
    if broken is not None:
        where, what, kinds_broken = BROKEN[broken]
        monkeypatch.setattr(where, what)
        kinds = list(kinds_broken)
    for kind in dict.fromkeys(kinds):
        moved = one_patient(kind, 9)
        assert (moved <= 1) if broken is None else (moved > 1.5), (kind, moved)
