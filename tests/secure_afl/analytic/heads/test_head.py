import numpy as np
import pytest

from secure_afl.analytic.heads.head import HEADS, choose_heads, fit_first
from secure_afl.analytic.heads.lda import LDA
from secure_afl.analytic.heads.means import Means
from secure_afl.analytic.heads.ridge import Ridge
from secure_afl.analytic.moments import Moments
from secure_afl.errors import ConfigError
from tests.secure_afl.analytic.heads.samples import sample


def test_auto_is_lda_and_goes_by_the_settings_given() -> None:
    assert choose_heads("auto", {}, noise=False) == (LDA(), Ridge(), Ridge(ridge=0.1))
    assert choose_heads("auto", {"ridge": 2.0}, noise=False) == (Ridge(ridge=2.0),)
    assert choose_heads("auto", {"ridge": "auto"}, noise=False)[0] == Ridge()
    assert choose_heads("auto", {"prior": "uniform"}, noise=False) == (LDA(prior="uniform"),)
    assert choose_heads("auto", {"intercept": True}, noise=False)[0] == Ridge(intercept=True)
    with pytest.raises(ConfigError, match="no head takes all of prior, ridge"):
        choose_heads("auto", {"prior": "uniform", "ridge": 1.0}, noise=False)


def test_under_noise_without_counts_auto_is_ridge() -> None:
    assert choose_heads("auto", {}, noise=True, counts=False)[0] == Ridge()
    with pytest.raises(ConfigError, match="no form for sums with noise"):
        choose_heads("means", {}, noise=True, counts=True)
    with pytest.raises(ConfigError, match="head 'lda' needs class counts"):
        choose_heads("lda", {}, noise=True, counts=False)
    with pytest.raises(ConfigError, match="no head takes all of prior"):
        choose_heads("auto", {"prior": "uniform"}, noise=True, counts=False)


def test_under_noise_with_counts_auto_is_lda() -> None:
    assert choose_heads("auto", {}, noise=True, counts=True)[0] == LDA()
    assert choose_heads("auto", {"ridge": 1.0}, noise=True, counts=True)[0] == Ridge(ridge=1.0)
    assert choose_heads("lda", {"prior": "uniform"}, noise=True) == (LDA(prior="uniform"),)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("lda", "shrinkage"),
        ("lda", "standardise"),
        ("ridge", "intercept"),
        ("ridge", "standardise"),
    ],
)
def test_what_a_noisy_sum_cannot_give_is_refused_before_it_is_out(name: str, setting: str) -> None:
    value = 0.5 if setting == "shrinkage" else True
    assert choose_heads(name, {setting: value}, noise=False)
    with pytest.raises(ConfigError, match=f"--{setting} has no form for sums with noise"):
        choose_heads(name, {setting: value}, noise=True)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("ridge", {"shrinkage": 1.0}, "--shrinkage has no effect with head 'ridge'"),
        ("lda", {"ridge": 1.0}, "--ridge has no effect with head 'lda'"),
        ("lda", {"intercept": True}, "--intercept has no effect with head 'lda'"),
        ("means", {"standardise": True}, "--standardise has no effect with head 'means'"),
        ("bayes", {}, "head is 'bayes', allowed: auto, lda, means, ridge"),
    ],
)
def test_settings_without_effect_are_refused(
    name: str, settings: dict[str, float], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        choose_heads(name, settings, noise=False)


def test_a_sum_without_a_block_has_heads_that_need_none() -> None:
    with pytest.raises(ConfigError, match="needs a Gram matrix"):
        choose_heads("ridge", {}, gram=False, noise=False)
    with pytest.raises(ConfigError, match="needs class counts"):
        choose_heads("lda", {}, counts=False, noise=False)


def test_too_few_rows_fall_back_and_the_fit_says_to_what() -> None:
    heads = choose_heads("auto", {}, noise=False)
    for sizes, name in (((9, 9, 9), "lda"), ((1, 1, 1), "ridge")):
        made = sample(sizes)
        fitted = fit_first(heads, made.moments, made.classes).fitted
        assert fitted.head == name
    assert fitted.value == 0.1


def test_means_are_nearest_class_means() -> None:
    made = sample(empty=1)
    bare = Moments(None, made.moments.cross, made.moments.counts)
    fitted = Means().fit(bare, made.classes).fitted
    assert fitted.offset is not None
    found = (made.rows @ fitted.weights - fitted.offset).argmax(axis=1)
    means = made.moments.means.T[:3]
    distances = ((made.rows[:, None] - means[None]) ** 2).sum(axis=2)
    assert np.array_equal(found, distances.argmin(axis=1))


def test_every_head_of_the_project_is_found() -> None:
    assert {"lda", "ridge", "means"} <= set(HEADS)
