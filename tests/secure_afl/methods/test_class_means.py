import itertools

import numpy as np
import pytest

from protocols import Additive, Plain
from secure_afl.analytic.rows import pooled
from secure_afl.federation.simulation import Federation
from secure_afl.methods import ClassMeans
from secure_afl.methods.class_means import _COUNTS_WEIGHT, ClassMeansPublic
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Neighbours
from tests.kit.samples import make_client, make_clients, make_task

CLIENTS = make_clients((60, 30, 50))


def test_predictions_are_those_of_the_nearest_class_mean() -> None:
    result = Federation(ClassMeans(), Additive(), feature_bits=12).run(CLIENTS)
    assert result.report.exact
    data, new = pooled(CLIENTS), make_client("new", 80).features
    units = data.features / np.linalg.norm(data.features, axis=1, keepdims=True)
    means = np.stack([units[data.labels == c].mean(axis=0) for c in range(3)])
    asked = new / np.linalg.norm(new, axis=1, keepdims=True)
    nearest = ((asked[:, None] - means[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert (result.model.predict(new) == nearest).mean() > 0.97
    assert result.report.head is not None
    assert result.report.head.name == "means"


def test_no_gram_matrix_is_summed() -> None:
    result = Federation(ClassMeans(), Plain()).run(CLIENTS)
    (round_,) = result.rounds
    assert [block.name for block in round_.session.layout.blocks] == ["cross", "counts"]
    assert round_.session.layout.length == 6 * 3 + 3


@pytest.mark.parametrize("neighbours", ["add-remove", "replace-one"])
def test_no_pair_of_rows_moves_the_sum_by_more_than_the_bound(neighbours: Neighbours) -> None:
    task = make_task(CLIENTS)
    public = ClassMeansPublic(task)
    found = ClassMeans().sensitivity(public, Privacy(1.0, neighbours=neighbours))
    relative = dict(found.relative)
    bound, v = task.quantiser.scale, _COUNTS_WEIGHT
    assert relative["counts"] == pytest.approx(1 / (bound * v))
    worst = 0.0
    rng = np.random.default_rng(0)
    rows = [np.zeros(2), *(bound * np.array([np.cos(a), np.sin(a)]) for a in rng.uniform(0, 7, 60))]
    for one, other in itertools.product(rows, rows):
        for classes in ((0, 0), (0, 1)):
            sums, counts = np.zeros((2, 2)), np.zeros(2)
            sums[classes[0]] += one
            counts[classes[0]] += 1
            if neighbours == "replace-one":
                sums[classes[1]] -= other
                counts[classes[1]] -= 1
            moved = np.sqrt((sums**2).sum() + ((counts / relative["counts"]) ** 2).sum())
            worst = max(worst, float(moved))
    assert worst <= found.joint * (1 + 1e-12)
    assert worst > 0.98 * found.joint


def test_it_runs_with_noise() -> None:
    clients = make_clients((900, 800, 700))
    result = Federation(ClassMeans(), Additive(), privacy=Privacy(2.0)).run(
        clients, classes=("0", "1", "2"), max_rows=1024, test=make_client("test", 300)
    )
    assert result.report.exact
    assert result.report.accuracy.federated is not None
    assert result.report.accuracy.federated > 0.7
