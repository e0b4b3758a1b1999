import numpy as np
import pytest

from secure_afl.analytic.layers.bank import MAX_WEIGHT, UNIT, FilterBank
from secure_afl.analytic.layers.maps import MapShape, standardised, whole
from secure_afl.analytic.layers.patches import LayerShape
from secure_afl.errors import DataError

SHAPE = LayerShape(MapShape(7, 6, 2), kernel=3, regions=2, steps=32)


def bank(filters: int = 4, seed: int = 0) -> FilterBank:
    rng = np.random.default_rng(seed)
    return FilterBank.of(rng.standard_normal((SHAPE.patch, filters)), rng.standard_normal(filters))


def maps(rows: int, seed: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(seed).random((rows, SHAPE.maps.size))
    return whole(standardised(drawn), SHAPE.steps).reshape(-1, *SHAPE.maps)


def test_a_bank_is_a_convolution_with_both_signs_and_pooling() -> None:
    torch = pytest.importorskip("torch")
    filters, images = bank(), maps(3)
    kernel = filters.weights.reshape(3, 3, 2, 4).transpose(3, 2, 0, 1).astype(np.float64)
    responses = torch.nn.functional.conv2d(
        torch.from_numpy(images.transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(kernel.copy()),
        torch.from_numpy(filters.bias * float(SHAPE.steps)),
        padding=1,
    )
    both = torch.cat([responses.relu(), (-responses).relu()], dim=1)
    expected = torch.nn.functional.max_pool2d(both, 2).numpy().transpose(0, 2, 3, 1)
    assert np.array_equal(filters.apply(images, SHAPE), expected)
    assert filters.shape_after(SHAPE.maps) == expected.shape[1:]


def test_responses_are_whole_numbers_that_no_neighbour_moves() -> None:
    filters, images = bank(), maps(20)
    together = filters.apply(images, SHAPE)
    assert np.array_equal(together, np.rint(together))
    for row in range(20):
        assert np.array_equal(filters.apply(images[row : row + 1], SHAPE)[0], together[row])


def test_the_greatest_weights_still_give_exact_responses() -> None:
    weights = np.full((SHAPE.patch, 1), MAX_WEIGHT, dtype=np.int64)
    filters = FilterBank(weights, weights[0])
    images = maps(2)
    found = filters.apply(images, SHAPE)
    # In Python's own integers.
    exact = max(
        sum(int(v) for v in images[0, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].ravel())
        for y in (0, 1)
        for x in (0, 1)
    )
    assert found[0, 0, 0, 0] == max(0, MAX_WEIGHT * (exact + SHAPE.steps))


def test_filters_are_rounded_and_cut_off() -> None:
    filters = FilterBank.of(np.array([[1.0, 1e9]]), np.array([-0.5, 0.0]))
    assert filters.weights.tolist() == [[UNIT, MAX_WEIGHT]]
    assert filters.bias.tolist() == [-UNIT // 2, 0]


def test_filters_that_somebody_sent_are_checked() -> None:
    filters = bank()
    filters.check(SHAPE, 4)
    with pytest.raises(DataError, match="wanted"):
        filters.check(SHAPE, 5)
    with pytest.raises(DataError, match="wanted"):
        FilterBank(filters.weights, filters.bias[:2]).check(SHAPE, 4)
    with pytest.raises(DataError, match="beyond"):
        FilterBank(filters.weights * MAX_WEIGHT, filters.bias).check(SHAPE, 4)
    assert repr(filters) == "<FilterBank of 4 filters>"
