"""The discrete Gaussian sampler: its law, its bits, and the comparisons that floats cannot settle.

All draws of ours have fixed entropy, so that a test passes always or never.
"""

import hashlib
import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import stats

from protocols.layout import Integers
from secure_afl.errors import ConfigError
from secure_afl.privacy import discrete_gaussian as module
from secure_afl.privacy.discrete_gaussian import MAX_SIGMA, Sampler, discrete_gaussian, tail

ENTROPY = bytes(range(32))
MANY = 2_000_000
SMALL = [0.5, 0.77, 2.0, 10.0, 127.5, 128.0, 1000.0]
LARGE = [3e4, 1e6, 1e9, MAX_SIGMA]


def doubting(sigma: float) -> Sampler:
    """One that trusts no float and no word to decide."""
    return Sampler(sigma, ENTROPY, strip_margin=1 << 62, accept_margin=2.0)


def probabilities(sigma: float) -> dict[int, float]:
    """P(x) for |x| ≤ 13σ, from 40 digits: the rest is below 1e-36."""
    with localcontext() as context:
        context.prec = 40
        double_variance = 2 * Decimal(sigma) ** 2
        reach = math.ceil(13 * sigma)
        half = [(Decimal(-x * x) / double_variance).exp() for x in range(reach + 1)]
        total = 2 * sum(half) - 1
        return {x: float(half[abs(x)] / total) for x in range(-reach, reach + 1)}


def bins(sigma: float) -> Integers:
    """Upper ends of about 33 bins, of which the last goes to infinity."""
    reach = 4 if sigma > 1 else 6
    return np.unique(np.rint(np.linspace(-reach * sigma, reach * sigma, 33)).astype(np.int64))


def expected(sigma: float, ends: Integers) -> Any:
    """Probabilities of (−∞, e_0], (e_0, e_1], …, (e_last, ∞)."""
    if sigma > 1000:  # the sum is the integral but for a relative error of 1/24σ²
        below = stats.norm.cdf((ends + 0.5) / sigma)
    else:
        law = probabilities(sigma)
        cumulative = np.cumsum(list(law.values()))
        below = cumulative[ends - min(law)]
    return np.diff(below, prepend=0.0, append=1.0)


def observed(draws: Integers, ends: Integers) -> Any:
    return np.bincount(np.searchsorted(ends, draws), minlength=len(ends) + 1)


def p_value(counts: Any, chances: Any) -> float:
    """Of a chi-square test, rare bins put together."""
    rare = chances * counts.sum() < 10
    counts = np.append(counts[~rare], counts[rare].sum())
    chances = np.append(chances[~rare], chances[rare].sum())
    kept = chances > 0
    return float(stats.chisquare(counts[kept], counts.sum() * chances[kept]).pvalue)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", SMALL + LARGE)
def test_draws_follow_the_law_and_not_one_of_a_variance_one_percent_off(sigma: float) -> None:
    ends = bins(sigma)
    counts = observed(discrete_gaussian(sigma, MANY, ENTROPY), ends)
    assert counts.sum() == MANY
    assert p_value(counts, expected(sigma, ends)) > 0.001
    if sigma < 2**39:
        for wrong in (sigma * 1.005, sigma / 1.005):
            assert p_value(counts, expected(wrong, ends)) < 0.001


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_single_values_have_their_probabilities(sigma: float) -> None:
    draws = discrete_gaussian(sigma, MANY, ENTROPY)
    law = probabilities(sigma)
    assert law[0] == pytest.approx(
        1 / sum(math.exp(-((x / sigma) ** 2) / 2) for x in range(-30, 31))
    )
    for value in range(-3, 4):
        hits = int((draws == value).sum())
        assert stats.binomtest(hits, MANY, law[value]).pvalue > 0.001


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [256.0, 1024.0])
def test_offsets_in_strips_lean_towards_zero_as_they_should(sigma: float) -> None:
    # A sampler that accepted every proposal would have them uniform.
    step = Sampler(sigma, ENTROPY).step
    draws = discrete_gaussian(sigma, 4 * MANY, ENTROPY)
    chances = np.zeros(step)
    for value, chance in probabilities(sigma).items():
        chances[abs(value) % step] += chance
    counts = np.bincount(np.abs(draws) % step, minlength=step)
    assert p_value(counts, chances) > 0.001
    assert p_value(counts, np.full(step, 1 / step)) < 0.001


@pytest.mark.slow
@pytest.mark.parametrize("sigma", LARGE)
def test_moments(sigma: float) -> None:
    draws = discrete_gaussian(sigma, MANY, ENTROPY) / sigma
    assert abs(draws.mean()) < 3 / math.sqrt(MANY)
    assert abs(draws.var() - 1) < 3 * math.sqrt(2 / MANY) < 0.005
    assert abs((draws**4).mean() - 3) < 3 * math.sqrt(96 / MANY)
    assert 4.5 < np.abs(draws).max() < 6.5


@pytest.mark.parametrize("sigma", [1e6, MAX_SIGMA])
def test_every_low_bit_is_fair(sigma: float) -> None:
    draws = discrete_gaussian(sigma, 200_000, ENTROPY)
    for bit in range(int(math.log2(sigma)) - 2):
        ones = int((draws >> bit & 1).sum())
        assert stats.binomtest(ones, len(draws), 0.5).pvalue > 1e-4


@pytest.mark.parametrize("sigma", [0.5, 3.0, 1e6])
def test_signs_are_fair_and_successive_draws_independent(sigma: float) -> None:
    draws = discrete_gaussian(sigma, MANY, ENTROPY)
    positive, negative = int((draws > 0).sum()), int((draws < 0).sum())
    assert stats.binomtest(positive, positive + negative, 0.5).pvalue > 0.001
    scaled = draws / draws.std()
    for lag in (1, 2, 3):
        assert abs((scaled[lag:] * scaled[:-lag]).mean()) < 3.3 / math.sqrt(MANY)
        both = np.abs(scaled[lag:]) * np.abs(scaled[:-lag])
        spread = (scaled**2).mean()
        assert abs(both.mean() - np.abs(scaled).mean() ** 2) < 4 * spread / math.sqrt(MANY)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [2.0, 37.0])
def test_opendp_draws_from_the_same_law(sigma: float) -> None:
    # Its entropy is its own: this fails once in a million runs by chance.
    opendp = pytest.importorskip("opendp.prelude")
    opendp.enable_features("contrib")
    draws = 40_000
    space = opendp.vector_domain(opendp.atom_domain(T="i64")), opendp.l2_distance(T=float)
    peer = np.array(opendp.m.make_gaussian(*space, scale=sigma)([0] * draws))
    ends = bins(sigma)
    table = np.array(
        [observed(peer, ends), observed(discrete_gaussian(sigma, draws, ENTROPY), ends)]
    )
    table = table[:, table.sum(axis=0) > 10]
    assert stats.chi2_contingency(table).pvalue > 1e-6


@pytest.mark.parametrize("sigma", [0.5, 100.0, 1e6])
def test_fewer_draws_are_the_first_of_more(sigma: float) -> None:
    chunk = module._CHUNK
    many = discrete_gaussian(sigma, 3 * chunk + 5, ENTROPY)
    assert many.dtype == np.int64
    for count in (0, 1, 17, chunk - 1, chunk, chunk + 1, 3 * chunk + 5):
        assert np.array_equal(discrete_gaussian(sigma, count, ENTROPY), many[:count])


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = discrete_gaussian(1000.0, 5000, ENTROPY)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert np.array_equal(discrete_gaussian(1000.0, 5000, ENTROPY), whole)


# SHA-256 of 100,000 draws, as a search of every word found them.
SEARCHED = {
    0.5: "f1f8252fe7bb7c71d437021bb8ccdd798aec77a25d1dde92b02b63af95e2db19",
    0.77: "68c249185bd3b9ec38bcd48ab09df25a9f4c9bbcff7cadb8896fbe5ccf27b628",
    1.0: "17d97bc34ce16d9dd42fde224cfa2f0bb300176bae04aa2ddb0082f9fc9e3389",
    2.0: "a6d0b88ea6b4b871aec7f26cb4d32927ba7aa65beab71fcc9554980773c29d9b",
    3.7: "b169306b4875d0837bfa191f1e0e39ad984fb2ca954cf614efd1840efbadb04f",
    10.0: "b6aacc65e892a641ea7a12fc6e7fbab8a7a959b2aabaffd82ac0527aa85920fe",
    37.0: "b7f760f0fc66fe5fee19c3beef68546348d0d99d18d64f48dc4e2b7154774d8a",
    64.5: "9b373a06fec098a7a413f618f9c3c51a012b2b664cea8d15335be0c59247ca7f",
    127.5: "dac07bde7e5022030143a75b4fddd9e5e15bc2329d43f357233892bd8798d3a3",
    128.0: "8780f5a8a7c015c9d98e47be94fc7263665507a682fcadafd6c7fb7e03d1979d",
    129.0: "61a123c562f166dda3f2a0d9fc2133ed201a9b32695791b98a2e08ce1512c8ab",
    1000.0: "59b1d0618398ca13da1bc381584b5d583fe3ebaa7b582a7b4dac18c32d6b4412",
    30000.0: "9a1630b683cbfb06e2f21e411740a7e4b876a9b345715d15b14de68c471747ba",
    123456.789: "952149ea94583907d308b27efcc3ff12ec80dfa8e21d32d20ef7c9d2f8bc178e",
    1000000.0: "4c79210edb826ef0ee639a3ecc7aa6ad1d74c2d7f61a9e8942321ece54464663",
    1000000000.0: "c420ccb049b618ca0b02edd7abffb08f1e8d65926b6d925c73d186931bf0ebb8",
    330000000000.0: "4576dc2a182536249222debaaa7938457c212e61d650ac77da37d45189f4e803",
    1099511627776.0: "ad4542fbdf46bd78c355b60b4cdf67178a49f3138991ac6bc704788ef6c69193",
}


@pytest.mark.parametrize("sigma", SEARCHED)
def test_draws_are_those_of_a_search_of_every_word(sigma: float) -> None:
    draws = discrete_gaussian(sigma, 100_000, ENTROPY).astype("<i8")
    assert hashlib.sha256(draws.tobytes()).hexdigest() == SEARCHED[sigma]


@pytest.mark.parametrize("sigma", [0.5, 3.0, 37.0, 127.5, 128.0, 1000.0, 1e9, MAX_SIGMA])
def test_the_guide_settles_what_a_search_would_find(sigma: float) -> None:
    """At both ends of every cell, and inside; where it settles nothing, a boundary is near."""
    sampler = Sampler(sigma, ENTROPY)
    low, high = sampler._low, sampler._high
    cells = np.arange(len(sampler._guide), dtype=np.int64)
    size = 1 << 49
    assert len(cells) * size == 2**63
    settled = sampler._guide >= 0
    for offset in (0, 1, size // 3, size - 2, size - 1):
        uniform = cells * size + offset
        searched = np.searchsorted(low, uniform, side="right")
        assert np.array_equal(sampler._guide[settled], searched[settled])
        assert (uniform > high[searched])[settled].all()
        words = 2 * uniform.astype(np.uint64)
        assert np.array_equal(sampler._strips(0, words)[settled], searched[settled])
    near = set((np.concatenate([low, high[1:]]) // size).tolist())
    assert set(cells[~settled].tolist()) <= near
    assert (~settled).sum() <= 2 * len(low)
    assert sigma == 0.5 or not (doubting(sigma)._guide >= 0).any()


def test_other_entropy_gives_other_draws() -> None:
    draws = discrete_gaussian(1e6, 1000, ENTROPY)
    other = discrete_gaussian(1e6, 1000, ENTROPY[:-1] + b"\xff")
    assert (draws == other).sum() < 3
    assert abs(np.corrcoef(draws, other)[0, 1]) < 0.15


@pytest.mark.parametrize("sigma", [0.5, 3.0, 128.0, 1000.0, 1e9, MAX_SIGMA])
def test_exact_comparisons_decide_as_fast_ones(
    sigma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 3000
    fast = Sampler(sigma, ENTROPY).draw(count)
    strips, kept = [], []
    exact_strip, exact_keep = Sampler._exact_strip, module._exact_keep

    def find(sampler: Sampler, number: Any) -> int:
        strips.append(number)
        return exact_strip(sampler, number)

    def keep(number: Any, exponent: Fraction) -> bool:
        kept.append(number)
        return exact_keep(number, exponent)

    monkeypatch.setattr(Sampler, "_exact_strip", find)
    monkeypatch.setattr(module, "_exact_keep", keep)
    slow = doubting(sigma).draw(count)
    assert np.array_equal(slow, fast)
    assert len(strips) >= count
    assert len(kept) >= (count if sigma >= 128 else 0)


def test_exact_comparisons_follow_the_law() -> None:
    ends = bins(200.0)
    draws = doubting(200.0).draw(20_000)
    assert p_value(observed(draws, ends), expected(200.0, ends)) > 0.001
    assert p_value(observed(draws, ends), expected(214.0, ends)) < 0.001


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.5, 20.0, 1000.0, 1e9])
def test_a_word_on_a_boundary_between_strips_takes_more_bits(sigma: float) -> None:
    sampler = Sampler(sigma, ENTROPY)
    low, _ = module._cumulative(sigma, sampler.step, 63)
    inner = [bound for bound in low if bound < 2**63 - 2**20]
    words = np.array([2 * bound + 1 for bound in inner], dtype=np.uint64)
    found = sampler._strips(5, words)
    with localcontext() as context:
        context.prec = 60
        unit = Decimal(sampler.step) ** 2 / (2 * Decimal(sigma) ** 2)
        weights = [(-(strip**2) * unit).exp() for strip in range(math.ceil(20 / unit.sqrt()))]
        cumulative = Decimal(0)
        for index, bound in enumerate(inner):
            cumulative += weights[index]
            number = sampler._uniform(bound, 63, 2 * (5 + index))
            number.extend()
            above = Decimal(number.value) / 2**number.bits >= cumulative / sum(weights)
            assert found[index] == index + above
    assert sigma == 0.5 or 0.2 < (found == np.arange(len(inner))).mean() < 0.8
    assert np.array_equal(sampler._strips(5, words - np.uint64(2)), np.arange(len(inner)))
    assert np.array_equal(sampler._strips(5, words + np.uint64(2)), np.arange(1, len(inner) + 1))


@pytest.mark.parametrize("sigma", [0.5, 20.0, 1e9])
def test_the_tail_has_no_end(sigma: float) -> None:
    sampler = Sampler(sigma, ENTROPY)
    words = np.full(200, 2**64 - 1, dtype=np.uint64)
    strips = sampler._strips(0, words)
    magnitudes = strips * sampler.step / sigma
    # What the last 2^−63 of the mass holds begins near 9σ, where also most of it is.
    assert (strips >= len(sampler._low) - 1).all()
    assert magnitudes.min() >= 8
    assert magnitudes.max() < 11
    assert len(set(strips.tolist())) > 1 or sigma == 0.5
    draws = sampler.accepted(0, np.full((200, sampler._words), 2**64 - 1, dtype=np.uint64))
    assert len(draws) == 0 or draws.max() <= -8 * sigma


@pytest.mark.parametrize("start", [0, 2**24, 2**31])
def test_a_word_next_to_the_probability_takes_more_bits(start: int) -> None:
    sigma, size = 1e9, 400
    sampler = Sampler(sigma, ENTROPY)
    offsets = np.arange(size, dtype=np.int64) * 20_011 + 1
    starts = np.full(size, start, dtype=np.int64)
    with localcontext() as context:
        context.prec = 60
        exact = [
            (-Decimal(u * (2 * start + u)) / (2 * Decimal(sigma) ** 2)).exp()
            for u in offsets.tolist()
        ]
        for away in (-20, -2, -1, 0, 1, 2, 20):
            uniform = [min(2**30 - 1, int(chance * 2**30) + away) for chance in exact]
            words = np.array([value << 34 for value in uniform], dtype=np.uint64)
            kept = sampler._keep(9, words, starts, offsets)
            for index, value in enumerate(uniform):
                number = sampler._uniform(value, 30, 2 * (9 + index) + 1)
                number.extend()
                below = Decimal(number.value) / 2**number.bits < exact[index]
                assert kept[index] == below


def test_numpy_exp_is_far_better_than_the_margin_asks() -> None:
    exponents = np.concatenate([np.linspace(0, 0.2, 1000), np.linspace(0.2, 60, 1000)])
    floats = np.exp(-exponents)
    with localcontext() as context:
        context.prec = 30
        for exponent, value in zip(exponents.tolist(), floats.tolist(), strict=True):
            assert abs(Decimal(value) - (-Decimal(exponent)).exp()) < Decimal(2) ** -45


@pytest.mark.parametrize("bits", [30, 63, 127, 255])
def test_bounds_enclose_exp(bits: int) -> None:
    for exponent in (
        Fraction(0),
        Fraction(1, 7),
        Fraction(3, 2**90),
        Fraction(355, 2),
        Fraction(99),
    ):
        low, high = module._exp_bounds(exponent, bits)
        assert high - low <= 3
        with localcontext() as context:
            context.prec = 200
            quotient = Decimal(exponent.numerator) / Decimal(exponent.denominator)
            assert low <= (-quotient).exp() * 2**bits <= high


def test_no_number_shares_bits_with_another_or_with_the_words() -> None:
    sampler = Sampler(2.0, ENTROPY)
    main = module._key_stream(ENTROPY, 0).update(bytes(16 * 200))
    seen = {int.from_bytes(main[at : at + 8], "little") for at in range(0, len(main), 8)}
    assert len(seen) == 400
    for name in range(100):
        number = sampler._uniform(1, 63, name)
        number.extend()
        number.extend()
        assert number.bits == 63 + 128
        assert number.value >> 128 == 1
        seen |= {number.value % 2**64, (number.value >> 64) % 2**64}
    assert len(seen) == 600


def test_every_number_of_every_chunk_has_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    make = Sampler._uniform

    def recorded(sampler: Sampler, value: int, bits: int, name: int) -> Any:
        names.append(name)
        return make(sampler, value, bits, name)

    monkeypatch.setattr(module, "_CHUNK", 50)
    monkeypatch.setattr(Sampler, "_uniform", recorded)
    doubting(1000.0).draw(500)
    assert len(names) >= 1000
    assert sorted(names) == list(range(len(names)))


def test_the_tail_bound_is_the_formula_rounded_up() -> None:
    for sigma, shares, entries, bits in [(2.0, 1, 1, 64), (1e6, 100, 10**6, 64), (0.5, 7, 3, 1)]:
        bound = tail(sigma, shares, entries, bits)
        exact = sigma * math.sqrt(2 * shares * math.log(2 * entries * 2**bits))
        assert 0 <= bound - exact <= 1 + exact * 1e-9
    assert isinstance(tail(2.0, 1, 1), int)
    assert tail(2.0, 1, 1) == tail(2.0, 1, 1, 64)


def test_the_tail_bound_holds_for_the_law_and_is_not_loose() -> None:
    for sigma in (0.5, 2.0, 10.0):
        law = probabilities(sigma)
        for bits in (1, 5, 20, 60):
            bound = tail(sigma, 1, 1, bits)
            assert sum(chance for x, chance in law.items() if abs(x) > bound) <= 2.0**-bits
    sums = discrete_gaussian(1000.0, 400_000, ENTROPY).reshape(8, -1).sum(axis=0)
    beyond = (np.abs(sums) > tail(1000.0, 8, 1, 5)).mean()
    assert 2.0**-9 < beyond < 2.0**-5


@pytest.mark.parametrize("sigma", [0.0, -1.0, 0.49, MAX_SIGMA * 1.01, math.nan, math.inf])
def test_a_sigma_out_of_range_is_refused(sigma: float) -> None:
    with pytest.raises(ConfigError, match=r"sigma is .* allowed: 0\.5 to 2\^40"):
        discrete_gaussian(sigma, 1, ENTROPY)
    with pytest.raises(ConfigError, match="sigma is"):
        tail(sigma, 1, 1)


def test_other_values_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="count is -1"):
        discrete_gaussian(1.0, -1, ENTROPY)
    with pytest.raises(ConfigError, match="entropy has 31 bytes; allowed: 32"):
        discrete_gaussian(1.0, 1, ENTROPY[1:])
    with pytest.raises(ConfigError, match="shares is 0"):
        tail(1.0, 0, 1)
    with pytest.raises(ConfigError, match="entries is 0"):
        tail(1.0, 1, 0)
    with pytest.raises(ConfigError, match="security_bits is 0"):
        tail(1.0, 1, 1, 0)
