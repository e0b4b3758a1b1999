import pickle
import subprocess
import sys
from pathlib import Path

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


# A place where this project is not installed.
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("secure_afl", "protocols"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
"""


def alone(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", WITHOUT + code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_pickled_pipeline_needs_this_package(tmp_path: Path) -> None:
    (tmp_path / "pipeline").write_bytes(pickle.dumps(MODELS[0].to_sklearn()))
    done = alone("import pickle; pickle.load(open('pipeline', 'rb'))", tmp_path)
    assert "No module named 'secure_afl'" in done.stderr


@pytest.mark.slow
def test_an_exported_torch_module_needs_torch_alone(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    rows = torch.from_numpy(ROWS)
    batch = ({0: torch.export.Dim("rows")},)
    exported = torch.export.export(MODELS[0].to_torch(), (rows[:2],), dynamic_shapes=batch)
    torch.export.save(exported, tmp_path / "model.pt2")
    np.save(tmp_path / "rows.npy", ROWS)
    code = (
        "import numpy, torch; rows = torch.from_numpy(numpy.load('rows.npy'));"
        "print(*torch.export.load('model.pt2').module()(rows).argmax(1).tolist())"
    )
    done = alone(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(one) for one in MODELS[0].predict(ROWS)]
