from dataclasses import replace

import numpy as np
import pytest

from protocols import Plain
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, FedHiP
from secure_afl.methods.model import LinearModel
from secure_afl.methods.personal.auto import FEWEST_KEPT
from secure_afl.methods.personal.personal import halves
from tests.kit.samples import make_client, make_clients


def skewed() -> list[ClientData]:
    """Two clients with two classes each, and one with all three."""
    clients = make_clients((300, 300, 200))
    for place, missing in ((0, 2), (1, 0)):
        kept = clients[place].labels != missing
        data = clients[place]
        clients[place] = replace(data, features=data.features[kept], labels=data.labels[kept])
    return clients


def linear(model: object) -> LinearModel:
    assert isinstance(model, LinearModel)
    return model


def test_a_clients_own_prior_is_bayes_rule() -> None:
    clients = skewed()
    result = Federation(AFL(personal="prior"), Plain()).run(clients)
    model = linear(result.model)
    assert model.observed is not None
    for client in clients:
        counts = np.bincount(client.labels, minlength=3)
        own = (counts + 0.5 * model.observed) / (counts.sum() + 0.5)
        personal = linear(result.personal[client.name])
        assert personal.prior is not None
        np.testing.assert_allclose(personal.prior, own, rtol=1e-12)
        uniform = model.with_prior(np.ones(3))
        expected = uniform.scores(client.features) - np.log(1 / 3) + np.log(own)
        np.testing.assert_allclose(personal.scores(client.features), expected, rtol=1e-9)


def test_ridge_gains_a_tenth_of_the_logarithm() -> None:
    clients = skewed()
    result = Federation(AFL(personal="prior", ridge=0.1), Plain()).run(clients)
    counts = np.bincount(clients[0].labels, minlength=3)
    gain = 0.1 * np.maximum(np.log((counts + 0.5 / 3) / (counts.sum() + 0.5)), -6)
    personal = linear(result.personal["c0"])
    assert personal.offset is not None
    np.testing.assert_allclose(personal.offset, -gain, rtol=1e-12)


def test_a_prior_helps_where_labels_are_skewed() -> None:
    clients = skewed()
    held = []
    for client in clients:
        new = make_client(f"{client.name}-new", 400)
        kept = np.isin(new.labels, client.labels)
        held.append(ClientData(client.name, new.features[kept], new.labels[kept]))
    report = Federation(AFL(personal="prior"), Plain()).run(clients, holdout=held).report
    assert report.personal is not None
    assert report.accuracy.personal_mean is not None
    assert report.accuracy.holdout_federated_mean is not None
    assert report.accuracy.personal_mean > report.accuracy.holdout_federated_mean
    assert [site.way for site in report.personal.sites] == ["prior"] * 3
    assert report.personal.hurt == tuple(
        site.name
        for site in report.personal.sites
        if site.personal is not None
        and site.federated is not None
        and site.personal < site.federated
    )


def test_auto_chooses_on_one_half_and_reports_on_the_other() -> None:
    clients = skewed()
    held = [make_client(client.name, 90, seed=0) for client in clients]
    method = AFL(personal="auto")
    result = Federation(method, Plain()).run(clients, holdout=held)
    assert result.report.personal is not None
    for site, kept in zip(result.report.personal.sites, held, strict=True):
        choose, reported = halves(kept)
        assert len(choose) + len(reported) == 90 == 2 * site.rows
        both = np.concatenate([choose.features, reported.features])
        assert np.array_equal(np.unique(both, axis=0), np.unique(kept.features, axis=0))
        model = result.personal[site.name]
        assert site.personal == model.accuracy(reported.features, reported.labels)
        # None of the candidates has more hits on the half that was chosen on.
        for way in ("none", "prior", "proximal"):
            other = Federation(AFL(personal=way, head="auto"), Plain()).run(clients)
            if way != "proximal":
                rival = other.personal[site.name].accuracy(choose.features, choose.labels)
                assert model.accuracy(choose.features, choose.labels) >= rival
    changed = [replace(kept, labels=kept.labels) for kept in held]
    for kept in changed:
        choose, reported = halves(kept)
        flipped = kept.labels.copy()
        flipped[np.isin(kept.features[:, 0], reported.features[:, 0])] = 0
        other = Federation(method, Plain()).run(clients, holdout=[replace(kept, labels=flipped)])
        assert other.report.personal is not None
        same = result.personal[kept.name]
        assert np.array_equal(other.personal[kept.name].weights, same.weights)


def test_with_few_rows_kept_out_auto_takes_the_prior() -> None:
    clients = skewed()
    few = [make_client(client.name, FEWEST_KEPT - 1) for client in clients]
    for holdout in ([], few):
        result = Federation(AFL(personal="auto"), Plain()).run(clients, holdout=holdout)
        prior = Federation(AFL(personal="prior"), Plain()).run(clients)
        for name, model in result.personal.items():
            assert np.array_equal(
                model.scores(clients[0].features),
                prior.personal[name].scores(clients[0].features),
            )


def test_what_auto_gives_away_is_two_classifiers_and_no_statistics() -> None:
    result = Federation(AFL(personal="auto"), Plain()).run(skewed())
    public = result.public
    assert public.broadcast is None
    fields = public.__struct_fields__
    assert fields == ("task", "fitted", "companion", "statistics")
    assert public.companion.head == "ridge"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"personal": "joint", "head": "lda"}, "joint is of head 'ridge' alone"),
        ({"personal": "proximal", "prior": "uniform"}, "proximal is of head 'ridge' alone"),
        ({"personal": "joint", "standardise": True}, "no form with --personal joint"),
        ({"personal": "prior", "alpha": 2.0}, "--alpha has no effect with --personal prior"),
        ({"alpha": 2.0}, "--alpha has no effect with --personal none"),
        ({"personal": "mine"}, "personal is 'mine', allowed: auto, joint, none, prior, proximal"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        AFL(**settings)  # type: ignore[arg-type]


def test_fedhip_is_afl_with_joint_models() -> None:
    clients = make_clients((30, 40, 50))
    one = Federation(FedHiP(alpha=3.0), Plain()).run(clients)
    other = Federation(AFL(personal="joint", alpha=3.0), Plain()).run(clients)
    for name in one.personal:
        assert np.array_equal(one.personal[name].weights, other.personal[name].weights)
    assert one.public.broadcast is not None
