import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from protocols import Additive
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import DataError
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL
from secure_afl.runs.estimator import FederatedClassifier
from tests.kit.samples import make_client

# scikit-learn's checks that cannot hold, and why.
CANNOT = {
    "check_fit2d_1sample": "one row is no federation; the error says so in other words",
    "check_classifiers_train": "rows have norm 1, so that two blobs in one direction are one",
    "check_methods_subset_invariance": "rows are scored by BLAS, whose last bit turns on how many",
}


@pytest.mark.slow
def test_the_checks_of_scikit_learn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(
            FederatedClassifier(protocol="plain"), expected_failed_checks=CANNOT, on_fail=None
        )
    failed = [(r["check_name"], r["exception"]) for r in results if r["status"] == "failed"]
    assert failed == []
    passed = sum(r["status"] == "passed" for r in results)
    assert passed > 35


def test_fit_is_a_federation_of_the_sites() -> None:
    data = make_client("all", 90)
    sites = np.repeat(["north", "south", "west"], 30)
    estimator = FederatedClassifier().fit(data.features, data.labels, sites=sites)
    parts = [
        ClientData(
            f"client_{i}", data.features[30 * i : 30 * i + 30], data.labels[30 * i : 30 * i + 30]
        )
        for i in range(3)
    ]
    model = Federation(AFL(), Additive()).run(parts, classes=("0", "1", "2")).model
    new = make_client("new", 40)
    assert np.array_equal(estimator.predict(new.features), model.predict(new.features))
    assert np.array_equal(estimator.model_.weights, model.weights)
    assert estimator.report_.exact
    shares = estimator.predict_proba(new.features)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert estimator.score(new.features, new.labels) > 0.8
    with pytest.raises(DataError, match="2 sites for 90 rows"):
        estimator.fit(data.features, data.labels, sites=["a", "b"])


def test_it_goes_where_classifiers_go() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), FederatedClassifier(protocol="plain"))
    assert cross_val_score(clone(model), X, y, cv=3).mean() > 0.9
    parameters = FederatedClassifier(ridge=0.3).get_params()
    assert parameters["ridge"] == 0.3
    with pytest.raises(DataError, match="no calibrated probabilities"):
        FederatedClassifier(ridge=0.3).fit(X, y).predict_proba(X)
