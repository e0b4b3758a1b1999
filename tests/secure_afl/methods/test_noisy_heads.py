"""Heads of one noisy sum: which is taken, by public numbers alone, and what it makes of the sum."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from protocols import Additive
from secure_afl.analytic.heads.lda import LDA
from secure_afl.analytic.heads.ridge import Ridge
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.features.reduction import random_reduction, reduction_at_random
from secure_afl.federation.simulation import Federation
from secure_afl.federation.sums import calibrated, this_noisy_sum
from secure_afl.federation.task import Terms
from secure_afl.methods import AFL, FedACnnL, FedHiP, Task
from secure_afl.methods.model import LinearModel
from secure_afl.methods.summed import Summed
from secure_afl.methods.task_sums import Promised, task_noise
from secure_afl.privacy.mechanism import Mechanism, Privacy
from secure_afl.runs.config import RunConfig
from secure_afl.runs.reduce import suggested_dimension
from secure_afl.runs.run import run
from tests.kit.samples import make_client, make_clients, make_task

CLASSES = ("0", "1", "2")


def noisy_task(privacy: Privacy, method: Summed | None = None, max_rows: int = 64) -> Task:
    clients = make_clients([60] * 5)
    task = structs.replace(make_task(clients, bits=12, max_rows=max_rows))
    mechanism = Mechanism(privacy, 1, clients=5, dropouts=1, colluders=1)
    return calibrated(method or AFL(), structs.replace(task, mechanism=mechanism))


def head_of(privacy: Privacy, method: Summed | None = None, max_rows: int = 64) -> Any:
    return (method or AFL()).heads(noisy_task(privacy, method, max_rows))[0]


@pytest.mark.parametrize(
    ("privacy", "head"),
    [
        (Privacy(4.0), LDA(prior="uniform")),
        (Privacy(0.2), Ridge()),
        (Privacy(4.0, neighbours="replace-one"), LDA(prior="uniform")),
        (Privacy(4.0, neighbours="replace-one", cross_weight=2.0), Ridge()),
        (Privacy(4.0, unit="patient"), LDA(prior="uniform")),
        (Privacy(4.0, unit="client"), Ridge()),
    ],
    ids=repr,
)
def test_auto_goes_by_noise_against_declared_rows(privacy: Privacy, head: Any) -> None:
    assert head_of(privacy) == head
    blocks = {block.name for block in this_layout(privacy).blocks}
    assert ("counts" in blocks) == isinstance(head, LDA)


def this_layout(privacy: Privacy) -> Any:
    return this_noisy_sum(AFL(), AFL().begin(noisy_task(privacy))).layout


def test_the_rule_is_at_its_limit_where_the_formula_has_it() -> None:
    promised = Promised(Privacy(1.0), 1, 1000, 100)
    most = next(dim for dim in range(1, 10_000) if promised.relative_noise(dim, 10) >= 0.45)
    assert promised.suits_lda(most - 1, 10)
    assert not promised.suits_lda(most, 10)
    # σ_Q = z·√(1 + w² + v²)/w with w = 1.2 and v = 0.3; z of ε = 1 at δ = 1e-5 is 3.73.
    sigma = 3.73063 * math.sqrt(1 + 1.2**2 + 0.3**2) / 1.2
    assert promised.relative_noise(100, 10) == pytest.approx(sigma * 10 / 100, rel=1e-4)


def test_settings_of_ridge_and_ways_that_are_of_it_keep_it() -> None:
    privacy = Privacy(4.0)
    for method in (AFL(head="ridge"), AFL(ridge=0.5), AFL(personal="proximal"), FedHiP()):
        assert isinstance(head_of(privacy, method), Ridge)
    for method in (AFL(personal="prior"), FedHiP(personal="auto"), AFL(prior="uniform")):
        assert isinstance(head_of(privacy, method), LDA)
    assert head_of(Privacy(0.2), AFL(head="lda")) == LDA(prior="uniform")
    assert head_of(privacy, AFL(prior="observed")) == LDA(prior="observed")
    network = FedACnnL(image_shape=(6, 6, 1))
    assert not network.head_method.rows_as_given


def test_a_prior_without_lda_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match="too large for lda: raise --epsilon or --max-rows"):
        noisy_task(Privacy(0.2), AFL(prior="uniform"))
    with pytest.raises(ConfigError, match=r"cross_weight is 2\.0, allowed: ≤ √2 with counts"):
        noisy_task(Privacy(4.0, neighbours="replace-one", cross_weight=2.0), AFL(head="lda"))


def test_weights_that_are_given_are_kept() -> None:
    assert AFL().weights(noisy_task(Privacy(4.0))) == (1.2, 0.3)
    assert AFL().weights(noisy_task(Privacy(4.0, cross_weight=0.7, counts_weight=0.1))) == (
        0.7,
        0.1,
    )
    ridge = AFL(head="ridge")
    assert ridge.weights(noisy_task(Privacy(4.0), ridge)) == (0.8, None)
    assert ridge.weights(make_task(make_clients([9, 9]))) is None


def test_the_noise_that_is_corrected_for_is_that_of_everybody_who_is_there() -> None:
    task = noisy_task(Privacy(4.0))
    weights = AFL().weights(task)
    noisy = this_noisy_sum(AFL(), AFL().begin(task))
    scale = task.quantiser.scale
    floor, there = task_noise(task, weights, 5)
    # K = 5, D = 1, T = 1: a share has a third of the variance, and five are there.
    assert there.gram == pytest.approx(math.sqrt(5 / 3) * noisy.stds["gram_diagonal"] / scale**2)
    assert there.cross == pytest.approx(math.sqrt(5 / 3) * noisy.stds["cross"] / scale)
    assert there.counts == pytest.approx(math.sqrt(5 / 3) * noisy.stds["counts"] / scale)
    assert floor == pytest.approx(0.7 * math.sqrt(6) * noisy.stds["gram_diagonal"] / scale**2)
    assert noisy.share_stds["counts"] > 2


@pytest.mark.parametrize("unit", ["example", "patient"])
def test_lda_learns_from_a_noisy_sum_and_its_prior_is_a_switch(unit: Any) -> None:
    clients = [
        replace(client, patients=[str(i) for i in range(len(client))])
        for client in make_clients([400, 380, 420])
    ]
    test = make_client("test", 300)
    federation = Federation(AFL(), Additive(), privacy=Privacy(8.0, unit=unit))
    result = federation.run(clients, classes=CLASSES, max_rows=512)
    assert result.report.exact
    model = result.model
    assert isinstance(model, LinearModel)
    assert model.accuracy(test.features, test.labels) > 0.9
    assert model.prior is not None
    assert model.observed is not None
    assert np.array_equal(np.asarray(model.prior), np.full(3, 1 / 3))
    shares = np.bincount(np.concatenate([c.labels for c in clients])) / 1200
    np.testing.assert_allclose(np.asarray(model.observed, dtype=float), shares, atol=0.03)
    switched = model.with_prior(np.array([1.0, 1e-9, 1e-9]))
    assert switched.prior is not None
    np.testing.assert_allclose(
        switched.scores(test.features) - model.scores(test.features),
        np.broadcast_to(np.log(switched.prior) - np.log(model.prior), (300, 3)),
        rtol=1e-9,
    )
    assert not model.has_probabilities
    # Counts come back in rows, whatever they were multiplied by.
    if unit == "example":
        assert abs(result.statistics.counts.sum() - 1200) < 100


def test_a_class_of_few_rows_is_not_lost_in_the_noise_of_its_mean() -> None:
    def skewed(name: str, seed: int) -> ClientData:
        data = make_client(name, 500, seed=seed)
        rare = np.flatnonzero(data.labels == 2)
        return data.take(np.sort(np.concatenate([np.flatnonzero(data.labels < 2), rare[:25]])))

    clients = [skewed(f"c{i}", 0) for i in range(4)]
    test = make_client("test", 900)
    recalls = []
    for _ in range(4):
        result = Federation(AFL(), Additive(), privacy=Privacy(2.0)).run(
            clients, classes=CLASSES, max_rows=512
        )
        said = result.model.predict(test.features)
        recalls.append([float((said[test.labels == c] == c).mean()) for c in range(3)])
    assert min(np.mean(recalls, axis=0)) > 0.7


def test_dimensions_are_at_least_128_for_lda() -> None:
    terms = Terms(AFL(), Additive(), Privacy(0.1))
    many = [512] * 10
    assert suggested_dimension(terms, many, 1024) == 64
    assert suggested_dimension(terms, many, 1024, 2) == 128
    assert suggested_dimension(terms, many, 100, 2) == 100
    # Ten classes have too few rows each, and ridge keeps what noise suggests.
    assert suggested_dimension(terms, many, 1024, 10) == 64
    assert suggested_dimension(Terms(AFL(), Additive()), many, 1024, 2) is None


def test_rows_less_their_own_mean_are_a_public_map() -> None:
    rows = np.abs(make_client("c", 20, dim=128).features)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    less = unit - unit.mean(axis=1, keepdims=True)
    signs = random_reduction(128, 5, 3).basis
    found = random_reduction(128, 5, 3, centred=True)
    np.testing.assert_allclose(found.apply(rows), less @ signs, rtol=1e-11, atol=1e-13)
    kept = reduction_at_random(128, 128, 3, centred=True)
    assert kept is not None
    np.testing.assert_allclose(kept.apply(rows), less, rtol=1e-11, atol=1e-13)
    assert reduction_at_random(128, 128, 3, centred=False) is None
    # A table of few columns stays as it is.
    assert reduction_at_random(127, 127, 3, centred=True) is None
    few = reduction_at_random(127, 5, 3, centred=True)
    assert few is not None
    assert np.array_equal(few.basis, random_reduction(127, 5, 3).basis)


def test_a_saved_model_predicts_as_the_run_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "cache"))
    config = RunConfig(
        method="afl",
        partition="iid:5",
        backbone="projection:256",
        epsilon=8.0,
        max_rows=512,
        min_cohort=5,
        out=str(tmp_path / "out"),
    )
    result = run(config)
    assert result.report.head is not None
    assert (result.report.head.name, result.report.head.setting) == ("lda", "floor")
    saved, _ = LinearModel.load(tmp_path / "out" / "model.safetensors")
    rows = np.random.default_rng(0).uniform(0, 1, (50, 256))
    assert np.array_equal(saved.scores(rows), result.model.scores(rows))
    assert saved.has_prior
    assert result.report.results[0].accuracy.value > 0.6
