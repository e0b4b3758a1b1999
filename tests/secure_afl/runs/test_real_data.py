import os
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from secure_afl.runs.config import RunConfig
from secure_afl.runs.run import run

Protocol: TypeAlias = Literal["additive", "pairwise", "ckks", "bfv", "plain"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = os.environ.get("SECURE_AFL_DATA")
    if not folder:
        pytest.skip("SECURE_AFL_DATA is not set to the folder of real data")
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "features.sqlite"))
    return Path(folder)


@pytest.mark.slow
def test_hand_signs_of_three_sites(data: Path, tmp_path: Path) -> None:
    # The test images of unseen people are many; one more site stands in for them.
    (tmp_path / "sites").mkdir()
    for number in (1, 2, 3):
        name = f"site_{number:02d}"
        (tmp_path / "sites" / name).symlink_to(data / "sign_digits" / "train" / name)
    config = RunConfig(
        clients=str(tmp_path / "sites" / "*"),
        test=str(data / "sign_digits" / "train" / "site_04"),
        backbone="timm:mobilenetv1_100,pad_type=same",
        checkpoint=str(data / "backbones" / "mobilenetv1_100.safetensors"),
        image_size=128,
    )
    report = run(config).report
    assert report.exact
    assert (report.clients.included, report.classes, report.feature_dim) == (3, 10, 1024)
    assert (report.feature_bits, report.ring_bits) == (11, 32)
    assert report.bytes.upload_per_client <= 0.27 * report.bytes.plain_float64_per_client
    accuracy = report.accuracy
    assert accuracy.federated is not None
    assert accuracy.centralised_float is not None
    assert accuracy.local_mean is not None
    assert accuracy.federated > max(0.6, accuracy.local_mean)
    assert abs(accuracy.federated - accuracy.centralised_float) <= 0.03
    again = run(config).report
    assert again.accuracy == report.accuracy
    assert again.seconds.features < 0.5 * report.seconds.features


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "protocol"),
    [
        ("identity", "additive"),
        ("projection:256", "additive"),
        ("projection:256", "pairwise"),
        ("projection:256", "ckks"),
        ("projection:256", "bfv"),
    ],
)
def test_pneumonia_cut_up_with_a_skew(data: Path, backbone: str, protocol: Protocol) -> None:
    config = RunConfig(
        clients=str(data / "pneumoniamnist.npz"),
        partition="dirichlet:10:0.1",
        backbone=backbone,
        protocol=protocol,
    )
    report = run(config).report
    assert report.exact
    assert (report.clients.total, report.examples, report.classes) == (10, 4708, 2)
    assert report.ring_bits == 32
    accuracy = report.accuracy
    assert accuracy.federated is not None
    assert accuracy.centralised_float is not None
    assert accuracy.local_mean is not None
    assert accuracy.federated > max(0.8, accuracy.local_mean)
    assert abs(accuracy.federated - accuracy.centralised_float) <= 0.01
