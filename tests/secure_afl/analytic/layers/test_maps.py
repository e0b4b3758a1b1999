import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from secure_afl.analytic.layers.maps import MapShape, image_shape, standardised, whole
from secure_afl.errors import ConfigError, DataError

IMAGES = arrays(np.float32, (5, 12), elements=st.floats(-(2.0**99), 2.0**99, width=32))


@given(IMAGES)
def test_standardised_images_have_mean_0_and_mean_square_1_or_are_zeros(
    images: np.ndarray,
) -> None:
    rows = standardised(images)
    np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-9)
    energy = np.square(rows).mean(axis=1)
    assert ((np.abs(energy - 1) < 1e-9) | (energy == 0)).all()


def test_brightness_and_contrast_are_irrelevant() -> None:
    images = np.random.default_rng(0).random((4, 12))
    np.testing.assert_allclose(standardised(3 * images + 7), standardised(images), atol=1e-12)
    assert not standardised(np.full((2, 12), 0.1)).any()


@given(IMAGES, st.integers(1, 256))
def test_whole_maps_never_break_their_energy(images: np.ndarray, steps: int) -> None:
    maps = whole(standardised(images), steps)
    assert np.array_equal(maps, np.rint(maps))
    assert (np.square(maps).sum(axis=1) <= 12 * steps**2).all()


def test_whole_maps_are_near_to_what_they_stand_for() -> None:
    rows = standardised(np.random.default_rng(0).random((200, 300)))
    maps = whole(rows, 64)
    assert np.abs(maps / 64 - rows).max() <= 1 / 64
    too_long = np.square(np.rint(64 * rows)).sum(axis=1) > 300 * 64**2
    # Some rows are truncated, and they are near too.
    assert too_long.any()
    assert not too_long.all()


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    images = np.random.default_rng(0).random((40, 300)).astype(np.float32)
    together = whole(standardised(images), 32)
    for row in range(40):
        alone = whole(standardised(images[row : row + 1]), 32)
        assert np.array_equal(alone[0], together[row])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_a_value_that_is_no_number_names_its_row(bad: float) -> None:
    images = np.zeros((3, 4))
    images[1, 2] = bad
    with pytest.raises(DataError, match="row 8"):
        standardised(images, 7)


def test_shapes_of_images() -> None:
    assert image_shape(784, None, 4) == MapShape(28, 28, 1)
    assert image_shape(3072, None, 4) == MapShape(32, 32, 3)
    assert image_shape(60, (5, 6, 2), 4) == MapShape(5, 6, 2)
    for values, given_shape in ((785, None), (9, None), (61, (5, 6, 2)), (12, (3, 4, 1))):
        with pytest.raises(ConfigError, match="no images"):
            image_shape(values, given_shape, 4)
