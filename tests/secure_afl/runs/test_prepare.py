"""A run's clients by clusters of its features."""

import numpy as np
import pytest

from secure_afl.analytic.rows import ClientData
from secure_afl.runs.choose import make_terms
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import load, prepare

SPEC = "embedding:4:0.1"


def rows(clients: list[ClientData]) -> list[list[bytes]]:
    return [sorted(row.tobytes() for row in client.features) for client in clients]


def prepared(config: RunConfig) -> list[ClientData]:
    return list(prepare(config, make_terms(config)).clients)


def test_clients_are_cut_by_the_features_of_the_runs_backbone() -> None:
    pixels = prepared(RunConfig(partition=SPEC, backbone="identity"))
    assert rows(prepared(RunConfig(partition=SPEC, backbone="identity"))) == rows(pixels)
    other = prepared(RunConfig(partition=SPEC, backbone="projection:16"))
    sizes = [[len(client) for client in clients] for clients in (pixels, other)]
    assert sum(sizes[0]) == sum(sizes[1])
    assert sizes[0] != sizes[1]
    # Rows of one cluster are alike: at most clients their mean is far from that of all.
    middle = np.concatenate([client.features for client in pixels]).mean(axis=0)
    spread = [np.linalg.norm(client.features.mean(axis=0) - middle) for client in pixels]
    even = prepared(RunConfig(partition="iid:4", backbone="identity"))
    least = [np.linalg.norm(client.features.mean(axis=0) - middle) for client in even]
    assert np.median(spread) > 3 * max(least)


def test_methods_that_take_images_cluster_their_pixels() -> None:
    images = prepared(RunConfig(partition=SPEC, method="fedacnnl"))
    assert rows(images) == rows(prepared(RunConfig(partition=SPEC, backbone="identity")))


@pytest.mark.parametrize("method", ["afl", "fedacnnl"])
def test_loading_alone_cuts_alike(method: str) -> None:
    config = RunConfig(partition=SPEC, method=method, backbone="identity")
    datasets, _ = load(config)
    cut = [client.labels.tolist() for client in prepared(config)]
    assert [dataset.labels.tolist() for dataset in datasets] == cut
