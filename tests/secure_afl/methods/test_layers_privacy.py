"""Layers under noise: sensitivity by brute force, budgets, floors, and what a promise rests on."""

import math

import numpy as np
import pytest
from msgspec.structs import replace

from protocols import Additive, Plain
from secure_afl.analytic.filters.kind import LayerMoments
from secure_afl.analytic.layers.maps import MapShape, whole
from secure_afl.analytic.layers.patches import LayerShape, LayerStatistics, layer_layout
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError
from secure_afl.federation.simulation import Federation
from secure_afl.federation.sums import calibrated, check_spending, noisy_sum, this_noisy_sum
from secure_afl.methods import FedACnnL
from secure_afl.methods.fedacnnl import LAYER_SHARE
from secure_afl.methods.method import Task
from secure_afl.privacy import accounting
from secure_afl.privacy.mechanism import Mechanism, Privacy
from secure_afl.privacy.sensitivity import Neighbours, Sensitivity, layer_sensitivity
from tests.kit.samples import make_task
from tests.secure_afl.methods.test_fedacnnl import CLASSES, cut, striped

STEPS = 4
# Equal regions, unequal ones, and one for all.
SHAPES = [
    LayerShape(MapShape(4, 4, 1), 1, 1, STEPS),
    LayerShape(MapShape(4, 4, 1), 1, 2, STEPS),
    LayerShape(MapShape(5, 7, 1), 3, 2, STEPS),
    LayerShape(MapShape(5, 5, 2), 3, 3, STEPS),
]
TWO = FedACnnL(layers=2, filter_count=3, kernel=3, regions=2)


def sensitivity(shape: LayerShape, neighbours: Neighbours = "add-remove") -> Sensitivity:
    largest = int(shape.region_sizes.max())
    return layer_sensitivity(shape.patch_energy, largest, "example", neighbours, 1)


def blocks(shape: LayerShape, image: Floats, label: int) -> dict[str, Floats]:
    """What a whole-number image adds to a layer's sum, block by block."""
    maps = image.reshape(1, *shape.maps)
    statistics = LayerStatistics.of(iter([(maps, np.array([label]))]), 2, shape)
    split = layer_layout(shape, 2, 4, 4).split(statistics.pack())
    return {name: block.astype(np.float64) for name, block in split.items()}


def apart(
    found: Sensitivity, first: dict[str, Floats], second: dict[str, Floats] | None = None
) -> float:
    squared = 0.0
    for name, relative in found.relative:
        if name not in first:
            continue  # a patch of one number has no pairs of them
        block = first[name] - (0.0 if second is None else second[name])
        squared += float(block @ block) / relative**2
    return math.sqrt(squared)


def images(shape: LayerShape, rng: np.random.Generator) -> list[Floats]:
    """Images that make much of a sum: flat ones, stripes, a point, and random ones."""
    rows, columns = np.indices(shape.maps[:2])
    kinds = [np.ones(shape.maps[:2]), (-1.0) ** columns, (-1.0) ** (rows + columns)]
    kinds += [np.where(rows < 3, 1.0, 0.0), np.where((rows == 2) & (columns == 2), 1.0, 0.0)]
    kinds += [np.where(rows * columns == 0, 1.0, 0.1)]
    found = [np.repeat(kind[..., None], shape.maps.channels, axis=2) for kind in kinds]
    found += [rng.standard_normal(shape.maps) + rng.uniform(-3, 3) for _ in range(300)]
    flat = np.array([image.ravel() for image in found])
    return list(whole(np.concatenate([flat, -flat]), shape.steps))


@pytest.mark.slow
@pytest.mark.parametrize("neighbours", ["add-remove", "replace-one"])
@pytest.mark.parametrize(
    "shape", SHAPES, ids=lambda s: f"{s.maps.height}x{s.maps.width}k{s.kernel}"
)
def test_no_image_moves_a_layers_sum_further(shape: LayerShape, neighbours: Neighbours) -> None:
    rng = np.random.default_rng(0)
    found = sensitivity(shape, neighbours)
    parts = [blocks(shape, image, 0) for image in images(shape, rng)]
    others: list[dict[str, Floats] | None]
    others = [None] if neighbours == "add-remove" else [*parts[:6], *parts[306:312]]
    if neighbours == "replace-one":
        others += [blocks(shape, image, 1) for image in images(shape, rng)[:6]]
    distances = [apart(found, part, other) for part in parts for other in others]
    assert max(distances) <= found.joint * (1 + 1e-12)
    # Where patches are single pixels, a flat image reaches the bound: nothing smaller would do.
    if shape.kernel == 1 and neighbours == "add-remove":
        assert max(distances) >= 0.999 * found.joint
    assert max(distances) >= 0.55 * found.joint


def test_a_run_of_many_images_less_one_is_within_the_bound() -> None:
    data = striped(20)
    task = make_task([data])
    public = TWO.begin(task)
    while (layout := TWO.layout(public)) is not None:
        found = TWO.sensitivity(public, Privacy(1.0))
        vectors = [TWO.contribute(public, cut(data, [k])[0], {}, b"") for k in (9, 10)]
        first, second = (
            {name: block.astype(np.float64) for name, block in layout.split(vector).items()}
            for vector in vectors
        )
        distance = apart(found, second, first)
        assert 0.2 * found.joint < distance <= found.joint
        public = TWO.absorb(public, TWO.contribute(public, data, {}, b""), ("all",))


def private_task(method: FedACnnL, epsilon: float = 2.0) -> Task:
    task = replace(make_task([striped(20)], bits=12), clients=6, total_rows=120)
    mechanism = Mechanism(Privacy(epsilon), method.sums, 6, 1, 1)
    return calibrated(method, replace(task, mechanism=mechanism))


@pytest.mark.parametrize("method", [FedACnnL(), TWO, FedACnnL(filters="random", layers=2)])
def test_all_sums_together_cost_what_is_promised(method: FedACnnL) -> None:
    task = private_task(method)
    noisy = [this_noisy_sum(method, public) for public in method.foreseen(task)]
    if method.filters == "random":
        noisy = noisy[-1:]
    for one in noisy:
        one.check()
    mus = [one.mu for one in noisy]
    total = accounting.compose(mus)
    assert 0.97 * 2.0 <= accounting.epsilon_of(1e-5, total) <= 2.0
    shares = np.square(mus) / total**2
    assert np.allclose(shares[:-1], LAYER_SHARE, rtol=1e-3)
    # The head is told the noise that is really in its sum.
    head = method.head_task(task)
    inner = noisy_sum(method.head_method, method.head_method.begin(head))
    assert inner is not None
    assert inner.stds == pytest.approx(noisy[-1].stds)


def test_whoever_spends_more_than_there_is_is_refused() -> None:
    class Greedy(FedACnnL, frozen=True):
        name = "greedy"

        def _spend(self, *, head: bool) -> float:
            return 1.2

    task = private_task(FedACnnL())
    with pytest.raises(ConfigError, match=r"spend 2\.88 shares of μ²; allowed: ≤ 2"):
        check_spending(Greedy(), task)

    class Hiding(FedACnnL, frozen=True):
        name = "hiding"

        def foreseen(self, task: Task):  # type: ignore[no-untyped-def]
            return super().foreseen(task)[1:]

    with pytest.raises(ConfigError, match="every sum foreseen"):
        check_spending(Hiding(), task)


def test_every_client_checks_what_a_run_spends(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = cut(striped(60), [15, 30, 45])
    federation = Federation(FedACnnL(filter_count=4), Additive(2), privacy=Privacy(8.0))
    assert federation.run(clients, classes=CLASSES, max_rows=32).report.exact
    monkeypatch.setattr("secure_afl.federation.sums.check_spending", lambda method, task: None)
    monkeypatch.setattr(FedACnnL, "_spend", lambda self, head: 1.5)
    with pytest.raises(Exception, match=r"spend 4\.5 shares"):
        federation.run(clients, classes=CLASSES, max_rows=32)


def test_a_private_run_learns_and_says_its_noise_by_round() -> None:
    clients, test = cut(striped(1800), [600, 1200]), striped(200, seed=1)
    method = FedACnnL(filter_count=4, regions=2)
    federation = Federation(method, Plain(), privacy=Privacy(20.0, placement="central"))
    report = federation.run(clients, classes=CLASSES, max_rows=600, test=test).report
    assert report.exact
    assert report.examples is None
    assert report.accuracy.federated is not None
    # Noise moves it between 0.7 and 0.95; a guess is right in a third of 200 rows.
    assert report.accuracy.federated > 0.5
    assert report.privacy is not None
    first, last = report.privacy.noise_std_by_round
    assert first["patch_diagonal"] > first["region_sums"] > 0
    assert set(last) == {"gram_diagonal", "gram_upper", "cross"}


def test_the_unit_client_counts_all_of_its_images() -> None:
    task = make_task([striped(20)], max_rows=20)
    public = TWO.begin(task)
    one = TWO.sensitivity(public, Privacy(1.0))
    many = TWO.sensitivity(public, Privacy(1.0, unit="client"))
    assert many.joint == 20 * one.joint


def test_noise_below_the_floor_makes_no_filter_of_its_own() -> None:
    # Of a sum of nothing but noise every eigenvalue is raised to one floor, and no mean is taken.
    shape = SHAPES[2]
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((10, 10))
    gram = np.rint(1000 * (noise + noise.T)).astype(np.int64)
    gram[-1, -1] = 100
    cross = np.rint(100 * rng.standard_normal((10, 2, 4))).astype(np.int64)
    statistics = LayerStatistics(gram, cross)
    moments = LayerMoments.of(statistics, shape, 1e5, 1e3)
    assert not moments.mean.any()
    assert np.allclose(moments.spectrum[0], 1e5)


def test_with_noise_random_filters_are_the_default_of_a_run() -> None:
    assert FedACnnL.configured({}, private=True, seed=3).filters == "random"
    assert FedACnnL.configured({}, private=True, seed=3).sums == 1
    assert FedACnnL.configured({}, private=False, seed=3).sums == 2
    given = FedACnnL.configured({"filters": "code"}, private=True, seed=3)
    assert given.filters == "code"
