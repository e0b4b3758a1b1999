import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from protocols import Additive, Plain
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.rows import pooled
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.simulation import Federation
from secure_afl.methods import Softmax
from secure_afl.methods.model import LinearModel
from secure_afl.methods.softmax import SoftmaxPublic
from secure_afl.privacy.mechanism import Privacy
from tests.kit.samples import make_client, make_clients, make_task

CLIENTS = make_clients((60, 30, 50))


def test_steps_lead_to_the_maximum_of_the_penalised_likelihood() -> None:
    data = pooled(CLIENTS)
    rows = Quantiser(12).integers(data.features) / 4096
    targets = np.eye(3)[data.labels]

    def loss(flat: Floats) -> float:
        weights = flat.reshape(6, 3)
        fit = -(targets * log_softmax(rows @ weights, axis=1)).sum()
        return float(fit + 0.5 * 0.5 * (weights**2).sum())

    least = minimize(loss, np.zeros(18), options={"maxiter": 2000}).fun
    gaps = []
    for steps in (1, 4, 40):
        result = Federation(Softmax(steps=steps, penalty=0.5), Plain(), feature_bits=12).run(
            CLIENTS
        )
        assert result.report.rounds == 1 + steps
        gaps.append(loss(result.model.weights.ravel()) - least)
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-4 * least


def test_sums_are_those_of_the_pooled_rows_bit_for_bit() -> None:
    method = Softmax(steps=2)
    several = Federation(method, Additive(), feature_bits=8).run(CLIENTS)
    fewer = Federation(method, Additive(), feature_bits=8).run([pooled(CLIENTS[:2]), CLIENTS[2]])
    assert several.report.exact
    for one, other in zip(several.rounds, fewer.rounds, strict=True):
        assert np.array_equal(one.released.total, other.released.total)
    assert np.array_equal(several.model.weights, fewer.model.weights)


def test_the_gram_matrix_is_in_no_state_that_clients_see() -> None:
    result = Federation(Softmax(steps=2), Plain(), feature_bits=8).run(CLIENTS)
    assert result.statistics.rows == 140
    for state in [*(round_.public for round_ in result.rounds), result.public]:
        assert state.broadcast is None
        assert state.__struct_fields__ == ("task", "done", "weights", "point")


def test_scores_are_log_odds() -> None:
    result = Federation(Softmax(), Plain()).run(CLIENTS, test=make_client("test", 200))
    model = result.model
    assert isinstance(model, LinearModel)
    rows = make_client("new", 20).features
    np.testing.assert_allclose(model.probabilities(rows).sum(axis=1), 1)
    assert np.array_equal(model.predict(9 * rows), model.predict(rows))
    assert result.report.accuracy.federated is not None
    assert result.report.accuracy.federated > 0.8
    assert result.report.head is None


def test_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"softmax promises nothing|no form for sums with noise"):
        Federation(Softmax(), Additive(), privacy=Privacy(2.0)).run(
            CLIENTS, classes=("0", "1", "2"), max_rows=64
        )


def test_a_state_of_another_round_or_shape_is_refused() -> None:
    method, task = Softmax(steps=2), make_task(CLIENTS)
    zeros, wide = np.zeros((6, 3)), np.zeros((7, 3))
    method.check(SoftmaxPublic(task, 1, zeros, zeros), 2)
    for state, round_ in (
        (SoftmaxPublic(task), 2),
        (SoftmaxPublic(task, 1, zeros, zeros), 1),
        (SoftmaxPublic(task, 1, zeros, zeros), 3),
        (SoftmaxPublic(task, 1, wide, wide), 2),
        (SoftmaxPublic(task, 1, zeros, np.full((6, 3), np.inf)), 2),
        (SoftmaxPublic(task, 1, zeros, np.full((6, 3), np.nan)), 2),
        (SoftmaxPublic(task, 1, zeros, np.full((6, 3), 1e5)), 2),
    ):
        with pytest.raises(DataError):
            method.check(state, round_)
