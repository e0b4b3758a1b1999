import pickle

import numpy as np
import pytest

from protocols import Plain
from secure_afl.errors import DataError
from secure_afl.features.reduction import random_reduction
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL
from secure_afl.methods.model import LinearModel
from secure_afl.runs.reduce import unfold
from tests.kit.samples import make_client, make_clients

ROWS = make_client("new", 60).features


def trained(method: AFL, classes: int = 3, clip: bool = False) -> LinearModel:
    mode = {"row_mode": "clip", "clip": 2.0} if clip else {}
    clients = make_clients((60, 50), classes=classes)
    model = Federation(method, Plain(), **mode).run(clients).model  # type: ignore[arg-type]
    assert isinstance(model, LinearModel)
    return model


MODELS = [
    trained(AFL()),
    trained(AFL(), classes=2),
    trained(AFL(), clip=True),
    trained(AFL(prior="uniform", standardise=True)),
    trained(AFL(ridge=0.1)),
    trained(AFL(ridge=0.1), classes=2),
    trained(AFL(head="ridge", intercept=True)),
    trained(AFL(head="means")),
]


@pytest.mark.parametrize("model", MODELS)
def test_scikit_learns_pipeline_is_the_model(model: LinearModel) -> None:
    pipeline = pickle.loads(pickle.dumps(model.to_sklearn()))
    names = np.array(model.classes)
    assert np.array_equal(pipeline.predict(ROWS), names[model.predict(ROWS)])
    if model.has_probabilities:
        shares = pipeline.predict_proba(ROWS)
        np.testing.assert_allclose(shares, model.probabilities(ROWS), rtol=1e-9, atol=1e-12)
    else:
        assert not hasattr(pipeline, "predict_proba")
        with pytest.raises(DataError, match="no calibrated probabilities"):
            model.probabilities(ROWS)


@pytest.mark.parametrize("model", MODELS)
def test_the_torch_module_is_the_model(model: LinearModel) -> None:
    torch = pytest.importorskip("torch")
    module = model.to_torch()
    with torch.inference_mode():
        scores = module(torch.from_numpy(ROWS))
    assert np.array_equal(scores.argmax(dim=1).numpy(), model.predict(ROWS))
    if model.has_probabilities:
        shares = torch.softmax(scores, dim=1).numpy()
        np.testing.assert_allclose(shares, model.probabilities(ROWS), rtol=1e-9, atol=1e-12)


def test_reduced_rows_go_through_their_map() -> None:
    torch = pytest.importorskip("torch")
    reduction = random_reduction(6, 4, seed=0)
    clients = make_clients((60, 50))
    reduced = [
        type(client)(client.name, reduction.apply(client.features), client.labels)
        for client in clients
    ]
    inner = Federation(AFL(), Plain()).run(reduced).model
    model = unfold(reduction, inner)
    assert isinstance(model, LinearModel)
    assert np.array_equal(model.scores(ROWS), inner.scores(reduction.apply(ROWS)))
    names = np.array(model.classes)
    assert np.array_equal(model.to_sklearn().predict(ROWS), names[model.predict(ROWS)])
    scores = model.to_torch()(torch.from_numpy(ROWS))
    assert np.array_equal(scores.argmax(dim=1).numpy(), model.predict(ROWS))


def test_a_class_that_is_never_predicted_stays_so() -> None:
    clients = make_clients((60, 50))
    model = Federation(AFL(), Plain()).run(clients, classes=("0", "1", "2", "none")).model
    assert isinstance(model, LinearModel)
    pipeline = model.to_sklearn()
    assert "none" not in pipeline.predict(ROWS)
    shares = pipeline.predict_proba(ROWS)
    assert np.isfinite(shares).all()
    assert not shares[:, 3].any()
