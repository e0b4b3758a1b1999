import numpy as np
import pytest

from protocols.layout import Integers
from secure_afl.analytic.layers.maps import MapShape, standardised, whole
from secure_afl.analytic.layers.patches import (
    LayerShape,
    LayerStatistics,
    layer_layout,
    patches,
    region_sums,
    starts,
)
from secure_afl.analytic.quantise import Floats

SHAPE = LayerShape(MapShape(5, 7, 2), kernel=3, regions=2, steps=16)
CLASSES = 3


def drawn(rows: int, shape: MapShape = SHAPE.maps, seed: int = 0) -> tuple[Floats, Integers]:
    rng = np.random.default_rng(seed)
    maps = whole(standardised(rng.random((rows, shape.size))), SHAPE.steps)
    return maps.reshape(-1, *shape), rng.integers(0, CLASSES, rows)


def by_hand(maps: Floats, labels: Integers) -> tuple[Integers, Integers]:
    """Sums over patches, one number at a time, in Python's integers."""
    height, width, channels = SHAPE.maps
    size = 9 * channels + 1
    gram = np.zeros((size, size), dtype=object)
    cross = np.zeros((size, CLASSES, 4), dtype=object)
    for image, label in zip(maps, labels, strict=True):
        for row in range(height):
            for column in range(width):
                patch = []
                for y in (row - 1, row, row + 1):
                    for x in (column - 1, column, column + 1):
                        inside = 0 <= y < height and 0 <= x < width
                        patch += [int(v) if inside else 0 for v in image[y % height, x % width]]
                patch.append(SHAPE.steps)
                region = 2 * (row >= height // 2) + (column >= width // 2)
                gram += np.outer(np.array(patch, dtype=object), patch)
                cross[:, label, region] += patch
    return gram, cross


def summed(maps: Floats, labels: Integers, batch: int = 2) -> LayerStatistics:
    blocks = ((maps[at : at + batch], labels[at : at + batch]) for at in range(0, len(maps), batch))
    return LayerStatistics.of(blocks, CLASSES, SHAPE)


def test_sums_are_those_by_hand() -> None:
    maps, labels = drawn(6)
    statistics, (gram, cross) = summed(maps, labels), by_hand(maps, labels)
    assert np.array_equal(statistics.gram, gram)
    assert np.array_equal(statistics.cross, cross)


def test_sums_do_not_depend_on_batches_or_parts() -> None:
    maps, labels = drawn(11)
    expected = summed(maps, labels, 11).pack()
    for batch in (1, 3, 4):
        assert np.array_equal(summed(maps, labels, batch).pack(), expected)
    parts = summed(maps[:4], labels[:4]) + summed(maps[4:], labels[4:])
    assert np.array_equal(parts.pack(), expected)


def test_pack_and_unpack_are_inverses() -> None:
    layout = layer_layout(SHAPE, CLASSES, 50, 50)
    statistics = summed(*drawn(9))
    again = LayerStatistics.unpack(statistics.pack(), layout, CLASSES)
    assert np.array_equal(again.gram, statistics.gram)
    assert np.array_equal(again.cross, statistics.cross)
    assert repr(statistics) == "<LayerStatistics>"


def spiked(kind: str) -> Floats:
    """Maps of all the energy that there may be, in one place or in all."""
    values = np.zeros((1, SHAPE.maps.size))
    if kind == "one":
        values[0, 20] = 1
    elif kind == "flat":
        values[:] = 1
    else:
        values[:] = np.random.default_rng(3).standard_normal(values.shape)
    return whole(values, SHAPE.steps).reshape(-1, *SHAPE.maps)


@pytest.mark.parametrize("kind", ["one", "flat", "noise"])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_map_keeps_within_the_ranges_of_its_layout(kind: str, sign: int) -> None:
    layout = layer_layout(SHAPE, CLASSES, 1, 1)
    statistics = summed(sign * spiked(kind), np.array([1]))
    layout.check(statistics.pack())
    assert layout.holds(statistics.pack())


def test_the_ranges_are_reached() -> None:
    layout = layer_layout(SHAPE, CLASSES, 1, 1)
    blocks = layout.split(summed(spiked("one"), np.array([1])).pack())
    highs = {block.name: block.high for block in layout.blocks}
    assert blocks["patch_diagonal"].max() >= 0.97 * highs["patch_diagonal"]
    assert blocks["positions"].max() == highs["positions"]
    assert blocks["region_masses"].max() == highs["region_masses"]


@pytest.mark.parametrize("kind", ["one", "flat", "noise"])
def test_the_energy_of_all_patches_is_bounded(kind: str) -> None:
    formed = patches(spiked(kind), SHAPE.kernel, SHAPE.steps)
    assert np.square(formed).sum() <= SHAPE.patch_energy
    largest = int(SHAPE.region_sizes.max())
    regions = region_sums(formed, SHAPE.regions)
    assert np.square(regions).sum() <= largest * SHAPE.patch_energy


def test_regions_cut_maps_that_do_not_divide() -> None:
    assert starts(30, 4) == [0, 7, 15, 22]
    shape = LayerShape(MapShape(30, 30, 1), 5, 4, 1)
    assert shape.region_sizes.sum() == 900
    assert shape.region_sizes.max() == 64
    assert len(shape.region_sizes) == 16


def test_memory_is_flat_in_the_number_of_maps() -> None:
    import tracemalloc

    shape = LayerShape(MapShape(16, 16, 1), 5, 4, 16)
    block = whole(np.random.default_rng(0).standard_normal((32, 256)), 16).reshape(-1, 16, 16, 1)
    labels = np.zeros(32, dtype=np.int64)

    def peak(blocks: int) -> int:
        tracemalloc.start()
        LayerStatistics.of(((block, labels) for _ in range(blocks)), CLASSES, shape)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(40) < 1.1 * peak(2)
