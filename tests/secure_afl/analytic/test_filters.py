import numpy as np
import pytest

from protocols.layout import Integers
from secure_afl.analytic.filters.kind import FILTERS, LayerMoments, of_variance_one
from secure_afl.analytic.layers.maps import MapShape, standardised, whole
from secure_afl.analytic.layers.patches import LayerShape, LayerStatistics, patches
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError

SHAPE = LayerShape(MapShape(6, 6, 1), kernel=3, regions=2, steps=64)
CLASSES = 3
RIDGE = 0.01


def drawn(rows: int = 60, seed: int = 0) -> tuple[Floats, Integers]:
    """Images whose classes are stripes of other directions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    y, x = np.mgrid[:6, :6]
    stripes = np.stack([np.sin(2 * x), np.sin(2 * y), np.sin(1.4 * (x + y))])
    images = stripes[labels] + 0.5 * rng.standard_normal((rows, 6, 6))
    return whole(standardised(images.reshape(rows, -1)), 64).reshape(-1, 6, 6, 1), labels


def moments_of(maps: Floats, labels: Integers, floor: float = 0.0) -> LayerMoments:
    statistics = LayerStatistics.of(iter([(maps, labels)]), CLASSES, SHAPE)
    return LayerMoments.of(statistics, SHAPE, floor)


def rows_of(maps: Floats) -> Floats:
    """All patches, in units of the maps."""
    return patches(maps, 3).reshape(-1, 9) / 64


@pytest.mark.parametrize("name", ["canonical", "code"])
def test_responses_have_mean_0_and_variance_1(name: str) -> None:
    maps, labels = drawn()
    moments = moments_of(maps, labels)
    rng = np.random.default_rng(0)
    filters = FILTERS[name].filters(SHAPE, moments, 5, RIDGE, rng)
    responses = (rows_of(maps) - moments.mean) @ filters
    np.testing.assert_allclose(responses.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(responses.var(axis=0), 1, rtol=1e-9)


def test_the_moments_are_those_of_the_patches() -> None:
    maps, labels = drawn()
    moments = moments_of(maps, labels)
    rows = rows_of(maps)
    assert moments.count == len(rows)
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), atol=1e-12)
    centred = rows - rows.mean(axis=0)
    np.testing.assert_allclose(moments.centred[0], centred.T @ centred, atol=1e-9)
    assert np.array_equal(moments.masses.sum(axis=1), 36 * np.bincount(labels, minlength=3))


def test_canonical_filters_are_canonical_correlations_with_class_and_region() -> None:
    """The squared correlations are the eigenvalues of between over total scatter."""
    from scipy.linalg import eigh

    maps, labels = drawn()
    moments = moments_of(maps, labels)
    filters = FILTERS["canonical"].filters(SHAPE, moments, 4, 1e-9, np.random.default_rng(0))
    rows = rows_of(maps) - moments.mean
    y, x = np.mgrid[:6, :6]
    region = (2 * (y >= 3) + (x >= 3)).ravel()
    cells = (labels[:, None] * 4 + region[None, :]).ravel()
    by_region = np.stack([rows[cells % 4 == r].mean(axis=0) for r in range(4)])
    between = np.zeros((9, 9))
    for cell in range(12):
        inside = rows[cells == cell]
        shift = inside.mean(axis=0) - by_region[cell % 4]
        between += len(inside) * np.outer(shift, shift)
    expected = eigh(between, rows.T @ rows, eigvals_only=True)[::-1][:4]
    turned = filters.T @ between @ filters / len(rows)
    np.testing.assert_allclose(turned, np.diag(expected), atol=1e-6)


def test_there_are_no_more_canonical_filters_than_directions() -> None:
    assert FILTERS["canonical"].most(SHAPE, CLASSES) == 8
    assert FILTERS["canonical"].most(SHAPE, 30) == 9
    assert FILTERS["code"].most(SHAPE, CLASSES) is None


def test_random_filters_are_of_the_seed_alone() -> None:
    kind = FILTERS["random"]
    assert not kind.needs_sum
    first, again, other = (
        kind.filters(SHAPE, None, 7, RIDGE, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_signs_and_scales_are_settled() -> None:
    moments = moments_of(*drawn())
    filters = np.random.default_rng(0).standard_normal((9, 4))
    expected = of_variance_one(filters, moments)
    np.testing.assert_allclose(of_variance_one(-3 * filters, moments), expected, rtol=1e-12)


def test_images_of_one_colour_are_refused() -> None:
    moments = moments_of(np.zeros((4, 6, 6, 1)), np.zeros(4, dtype=np.int64))
    with pytest.raises(ConfigError, match="do not vary"):
        FILTERS["canonical"].filters(SHAPE, moments, 4, RIDGE, np.random.default_rng(0))


def test_a_class_without_images_does_no_harm() -> None:
    maps, labels = drawn()
    filters = FILTERS["canonical"].filters(
        SHAPE, moments_of(maps, np.minimum(labels, 1)), 8, RIDGE, np.random.default_rng(0)
    )
    assert np.isfinite(filters).all()


def test_a_floor_holds_directions_without_energy_down() -> None:
    maps, labels = drawn()
    moments = moments_of(maps, labels, floor=1e6)
    assert (moments.spectrum[0] == 1e6).all()
