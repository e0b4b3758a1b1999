from dataclasses import replace

import numpy as np
import pytest

from protocols import Additive, Plain
from protocols.codec import decode, encode
from secure_afl.analytic.rows import pooled
from secure_afl.errors import ConfigError
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, AnyMethod, FedHiP
from secure_afl.methods.model import LinearModel
from secure_afl.methods.summed import SummedPublic
from secure_afl.privacy.mechanism import Privacy
from tests.kit.samples import make_client, make_clients

HEADS = (
    AFL(),
    AFL(prior="uniform"),
    AFL(head="lda", shrinkage=0.2, standardise=True),
    AFL(head="ridge"),
    AFL(ridge=0.3, intercept=True),
    AFL(head="ridge", standardise=True),
    AFL(head="means"),
    FedHiP(),
)


@pytest.mark.parametrize("method", HEADS, ids=repr)
def test_every_head_is_of_the_pooled_rows_bit_for_bit(method: AnyMethod) -> None:
    clients = make_clients((40, 13, 50))
    other = [pooled(clients[:2]), clients[2]]
    found = [Federation(method, Additive(), feature_bits=9).run(c) for c in (clients, other)]
    models = [result.model for result in found]
    assert np.array_equal(found[0].rounds[0].released.total, found[1].rounds[0].released.total)
    rows = make_client("new", 30).features
    assert np.array_equal(models[0].scores(rows), models[1].scores(rows))
    assert all(result.report.exact for result in found)


def test_the_report_has_what_was_chosen_and_the_curve_stays_with_the_receiver() -> None:
    result = Federation(AFL(), Plain()).run(make_clients((40, 30)))
    head = result.report.head
    assert head is not None
    assert (head.name, head.setting, head.chosen, head.instead_of) == ("lda", "shrinkage", True, "")
    assert head.prior == head.observed
    assert head.observed is not None
    assert sum(head.observed.values()) == pytest.approx(1)
    assert result.report.ridge is None
    assert len(result.curve) > 10
    public = result.public
    assert isinstance(public, SummedPublic)
    again = decode(encode(public), SummedPublic)
    assert encode(again) == encode(public)
    # No value of the curve but the chosen one is in what clients are given.
    data = encode(public)
    for point in result.curve:
        assert np.float64(point.estimate).tobytes() not in data or point.estimate == 0


def test_a_given_value_is_not_called_chosen() -> None:
    result = Federation(AFL(ridge=0.3), Plain()).run(make_clients((40, 30)))
    head = result.report.head
    assert head is not None
    assert (head.name, head.value, head.chosen, head.prior) == ("ridge", 0.3, False, None)
    assert result.curve == ()
    assert result.report.ridge == 0.3


def test_a_sum_of_too_few_rows_says_which_head_it_has_instead() -> None:
    clients = [
        replace(client, labels=np.array([label]))
        for label, client in enumerate(make_clients((1, 1)))
    ]
    report = Federation(AFL(), Plain()).run(clients, classes="abc").report
    assert report.head is not None
    assert (report.head.name, report.head.value, report.head.instead_of) == ("ridge", 0.1, "lda")
    assert any("too few rows for head 'lda'" in warning for warning in report.warnings)


def test_under_noise_the_head_follows_from_public_numbers() -> None:
    clients = make_clients((60, 50, 40))
    values = set()
    for seed in range(2):
        rows = make_clients((60 + seed, 50, 40), seed=seed)
        report = (
            Federation(AFL(), Additive(), privacy=Privacy(4.0))
            .run(rows, classes=("0", "1", "2"), max_rows=64)
            .report
        )
        assert report.head is not None
        values.add((report.head.name, report.head.value, report.head.chosen))
    assert len(values) == 1
    with pytest.raises(ConfigError, match="no form for sums with noise"):
        Federation(AFL(head="means"), Additive(), privacy=Privacy(4.0)).run(
            clients, classes=("0", "1", "2"), max_rows=64
        )
    with pytest.raises(ConfigError, match="no form for sums with noise"):
        AFL.configured({"head": "means"}, private=True, seed=0)


def test_a_prior_of_other_classes_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match="no share for class '2'"):
        Federation(AFL(prior=(("0", 1.0), ("1", 2.0))), Plain()).run(make_clients((20, 30)))


def test_the_model_brings_rows_to_the_norm_that_they_had_in_the_sum() -> None:
    clients = make_clients((80, 60))
    run = Federation(AFL(), Plain(), row_mode="clip", clip=2.0).run(clients)
    model = run.model
    assert isinstance(model, LinearModel)
    assert (model.rows.mode, model.rows.clip) == ("clip", 2.0)
    rows = make_client("new", 50).features
    clipped = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 2.0)
    assert model.offset is not None
    assert model.prior is not None
    expected = clipped @ model.weights - model.offset + np.log(model.prior)
    np.testing.assert_allclose(model.scores(rows), expected, rtol=1e-10, atol=1e-12)
