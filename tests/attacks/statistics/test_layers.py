"""Images out of a layer's sums, from real runs under real protocols."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attacks.attack import ATTACKS, Known, Truth
from attacks.statistics.layers import LayerImages, LayerMembership, class_images, layer_targets
from attacks.suite import run as suite
from attacks.suite.config import AttackConfig
from attacks.views.run import Record, RunView
from protocols import Additive, Plain
from protocols.protocol import Protocol
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, AnyMethod, FedACnnL
from secure_afl.privacy.mechanism import Privacy
from secure_afl.runs.config import RunConfig
from tests.secure_afl.methods.test_fedacnnl import CLASSES, cut, striped

RNG = np.random.default_rng(0)


def clients_of(*labels: list[int], side: int = 8, channels: int = 1) -> list[ClientData]:
    """A client for each list of labels."""
    pool = striped(300, side=side, channels=channels)
    left = {label: iter(np.flatnonzero(pool.labels == label)) for label in range(3)}
    found = []
    for k, wanted in enumerate(labels):
        rows = [int(next(left[label])) for label in wanted]
        found.append(ClientData(f"c{k}", pool.features[rows], pool.labels[rows]))
    return found


def record_of(
    clients: list[ClientData],
    protocol: Protocol,
    method: AnyMethod | None = None,
    privacy: Privacy | None = None,
) -> Record:
    method = method or FedACnnL(kernel=3, filter_count=3)
    federation = Federation(method, protocol, min_cohort=2, privacy=privacy)
    result = federation.run(clients, classes=CLASSES, max_rows=64, record=True)
    return Record(method, protocol, result)


def receiver(record: Record) -> RunView:
    return record.view([record.protocol.receiver])


def truth_of(clients: list[ClientData], side: int = 8, channels: int = 1) -> Truth:
    images = {c.name: c.features.reshape(-1, side, side, channels) for c in clients}
    return Truth({c.name: c for c in clients}, images=images)


def measured(view: RunView, truth: Truth) -> tuple[float, float]:
    attack = LayerImages()
    first, second = attack.judge(attack.claim(view, Known(), RNG), truth)
    return first.value, second.value


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_alone_in_its_class_is_rebuilt_whole_from_a_blind_sum(channels: int) -> None:
    clients = clients_of([0], [1], [2], channels=channels)
    truth = truth_of(clients, channels=channels)
    collector = receiver(record_of(clients, Additive(2)))
    correlation, recovered = measured(collector, truth)
    assert correlation > 0.999
    assert recovered == 1.0
    (target,) = layer_targets(collector)
    assert np.allclose(target.counts, 1.0)
    for picture in LayerImages().pictures(class_images(target), truth):
        assert np.abs(picture.true - picture.rebuilt).max() < 0.05


def test_of_several_images_it_rebuilds_the_mean_of_a_class() -> None:
    clients = clients_of([0] * 8 + [1] * 8, [0] * 8 + [2] * 8)
    view = receiver(record_of(clients, Additive(2)))
    (target,) = layer_targets(view)
    mean = class_images(target)[0]
    assert mean.count == pytest.approx(16)
    own = np.concatenate([c.features[c.labels == 0] for c in clients]).astype(np.float64)
    own = own - own.mean(axis=1, keepdims=True)
    own /= own.std(axis=1, keepdims=True)
    assert np.corrcoef(mean.image.ravel(), own.mean(axis=0))[0, 1] > 0.99
    correlation, recovered = measured(view, truth_of(clients))
    assert correlation < 0.8
    assert recovered < 0.2


def test_who_has_no_sum_has_no_image() -> None:
    clients = clients_of([0], [1], [2])
    record = record_of(clients, Additive(2))
    for nobody in ([], ["c0"]):
        view = record.view(nobody)
        assert layer_targets(view) == []
        assert LayerImages().claim(view, Known(), RNG) is None
    # The server of `plain` has each client's own.
    assert len(layer_targets(record_of(clients, Plain()).view(["server"]))) == 3
    # Other methods, and filters of a seed, sum no patches.
    for method in (AFL(), FedACnnL(filters="random")):
        assert layer_targets(record_of(clients, Plain(), method).view(["server"])) == []


def test_noise_hides_what_few_images_give_away() -> None:
    clients = clients_of([0, 1, 2], [1], [2], [0])
    exact = receiver(record_of(clients, Additive(2)))
    noisy = receiver(record_of(clients, Additive(2), privacy=Privacy(8.0)))
    truth = truth_of(clients)
    assert measured(exact, truth)[0] > 0.7
    correlation, recovered = measured(noisy, truth)
    assert correlation < 0.4
    assert recovered == 0.0


def test_membership_of_few_images_is_certain_and_of_many_is_not() -> None:
    others, public = striped(60, seed=4), striped(200, seed=5).features

    def auc(rows: int) -> float:
        clients = cut(striped(rows, seed=6), [rows // 2])
        members = np.concatenate([c.features for c in clients])
        labels = np.concatenate([c.labels for c in clients])
        candidates = np.concatenate([members, others.features])
        known = Known(
            candidate_labels=np.concatenate([labels, others.labels]),
            extra={"raw_candidates": candidates, "raw_public": public},
        )
        truth = Truth(
            {c.name: c for c in clients},
            members=np.arange(len(candidates)) < len(members),
            owners=("c0",) * len(members) + ("",) * len(others),
        )
        attack = LayerMembership()
        claim = attack.claim(receiver(record_of(clients, Additive(2))), known, RNG)
        return attack.judge(claim, truth)[0].value

    few, many = auc(4), auc(60)
    assert few > 0.95
    assert 0.5 < many < 0.9


def test_membership_needs_candidates_and_public_images() -> None:
    record = record_of(clients_of([0, 1], [1, 2]), Plain())
    with pytest.raises(ConfigError, match="as they come"):
        LayerMembership().claim(record.view(["server"]), Known(), RNG)


def test_images_of_another_size_are_not_judged() -> None:
    clients = clients_of([0], [1])
    attack = LayerImages()
    claim = attack.claim(record_of(clients, Plain()).view(["server"]), Known(), RNG)
    with pytest.raises(ConfigError, match="--image-size"):
        attack.judge(claim, truth_of(clients_of([0], [1], side=9), side=9))
    with pytest.raises(ConfigError, match="missing"):
        attack.judge(claim, replace(truth_of(clients), images={}))


@pytest.mark.slow
def test_the_suite_attacks_layers_and_what_comes_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "features.sqlite"))
    config = AttackConfig(
        run=RunConfig(partition="iid:5"),
        attacks=("layer-images", "layer-membership", "membership-subspace", "single-rows"),
        methods=("fedacnnl",),
        protocols=("additive",),
        adversaries=("collector", "outsider"),
        rows=(5,),
        sweep=(),
    )
    cells = suite.run(config, ATTACKS, tmp_path / "out", None, "").cells
    assert [cell.error for cell in cells] == [None] * 8
    found = {(cell.attack, cell.adversary): cell for cell in cells}
    assert found["layer-images", "collector"].measures[0].value > 0.95
    assert len(found["layer-images", "collector"].images) > 0
    # Behind the layers the head's rows are attacked, not the pixels.
    assert found["membership-subspace", "collector"].measures[0].value == 1.0
    for attack in config.attacks:
        assert not found[attack, "outsider"].claimed
