"""What is remembered of a network: enough to build none, and never another network's rows."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from shutil import copy

import numpy as np
import pytest

from secure_afl.data.dataset import Dataset
from secure_afl.errors import DataError
from secure_afl.features.backbone import Backbone, parse_backbone
from secure_afl.features.cache import FeatureCache
from secure_afl.features.remembered import Remembered, network_key

TINY, SIZE = "timm:test_resnet", 32
KEY, KNOWN = b"k" * 32, Remembered(bytes(range(32)), 64)


def images(count: int = 3) -> Dataset:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return Dataset("noise", pixels, np.zeros(count, np.int64), ("a",))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    weights = timm.create_model("test_resnet", pretrained=False).state_dict()
    for name, value in weights.items():
        if name.endswith("weight") and value.ndim == 1:
            value.uniform_(0.5, 1.5)
    torch.save(weights, path)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features.sqlite")


def open_tiny(checkpoint: Path, cache: FeatureCache) -> Backbone:
    return parse_backbone(TINY, checkpoint, SIZE, 0, cache.path)


def own_key(checkpoint: Path) -> bytes:
    key = network_key("test_resnet", checkpoint, SIZE, 0)
    assert key is not None
    return key


def test_a_process_whose_features_are_cached_imports_no_torch(
    checkpoint: Path, cache: FeatureCache
) -> None:
    fresh = parse_backbone(TINY, checkpoint, SIZE)
    rows = open_tiny(checkpoint, cache).extract(images(), cache)
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.secure_afl.features.test_remembered import *\n"
        "checkpoint, cache = Path(sys.argv[1]), FeatureCache(sys.argv[2])\n"
        "tiny = open_tiny(checkpoint, cache)\n"
        "rows = tiny.extract(images(), cache)\n"
        "print(tiny.digest.hex(), tiny.width, rows.tobytes().hex() == sys.argv[3])\n"
        "print(sorted({'torch', 'timm'} & set(sys.modules)))"
    )
    given = (str(checkpoint), str(cache.path), rows.tobytes().hex())
    done = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{fresh.digest.hex()} {fresh.width} True", "[]"]
    # One image that the cache lacks, and the network is built.
    more = open_tiny(checkpoint, cache).extract(images(4), cache)
    np.testing.assert_array_equal(more[:3], rows)
    np.testing.assert_allclose(more, fresh.extract(images(4)), rtol=1e-4, atol=1e-5)


def test_the_key_follows_all_that_the_digest_follows_from(checkpoint: Path, tmp_path: Path) -> None:
    copied, renamed = Path(copy(checkpoint, tmp_path / "copy.pth")), tmp_path / "copy.pt"
    copy(checkpoint, renamed)
    changed = tmp_path / "changed.pth"
    changed.write_bytes(checkpoint.read_bytes()[:-1] + b"\x01")
    keys = [
        network_key("test_resnet", copied, SIZE, 0),
        network_key("test_resnet", changed, SIZE, 0),
        network_key("test_resnet", renamed, SIZE, 0),
        network_key("test_resnet,mean=0.4", copied, SIZE, 0),
        network_key("test_vit", copied, SIZE, 0),
        network_key("test_resnet", copied, None, 0),
        network_key("test_resnet", copied, SIZE, 1),
    ]
    assert keys[0] == own_key(checkpoint)
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_what_nobody_knows_the_bytes_of_has_no_key(checkpoint: Path, tmp_path: Path) -> None:
    assert network_key("test_resnet", None, SIZE, 0) is None
    assert network_key("test_resnet", tmp_path / "nowhere.pth", SIZE, 0) is None
    assert network_key("hf-hub:somebody/model", checkpoint, SIZE, 0) is None
    assert network_key("somebody/model", checkpoint, SIZE, 0) is None


def test_a_checkpoint_that_changed_is_another_network(
    checkpoint: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    import torch

    path = Path(copy(checkpoint, tmp_path / "mine.pth"))
    before = open_tiny(path, cache).digest
    weights = torch.load(path, weights_only=True)
    weights["conv1.0.weight"][0] += 1
    torch.save(weights, path)
    after = open_tiny(path, cache)
    assert after.digest != before
    assert after.digest == parse_backbone(TINY, path, SIZE).digest


def test_a_record_that_lies_is_found_out_before_a_row_is_kept(
    checkpoint: Path, cache: FeatureCache
) -> None:
    true = open_tiny(checkpoint, cache)
    lie = Remembered(bytes(32), true.width or 0)
    cache.remember(own_key(checkpoint), lie)
    deceived = open_tiny(checkpoint, cache)
    with pytest.raises(DataError, match=r"has digest .* remembered 00000000.* start again"):
        deceived.extract(images(), cache)
    site = images()
    assert cache.get(lie.digest, [site.image_digest(index) for index in range(3)]) == {}
    # It is forgotten, and the next start is right.
    assert cache.recall(own_key(checkpoint)) is None
    assert open_tiny(checkpoint, cache).digest == true.digest


def test_a_width_that_lies_is_found_out(checkpoint: Path, cache: FeatureCache) -> None:
    true = open_tiny(checkpoint, cache)
    known = cache.recall(own_key(checkpoint))
    assert known is not None
    assert known.width == true.width
    cache.remember(own_key(checkpoint), known._replace(width=known.width + 1))
    with pytest.raises(DataError, match="start again"):
        open_tiny(checkpoint, cache).extract(images(), cache)


def test_what_is_remembered_is_recalled_and_forgotten(cache: FeatureCache) -> None:
    assert cache.recall(KEY) is None
    cache.remember(KEY, KNOWN)
    assert FeatureCache(cache.path).recall(KEY) == KNOWN
    cache.remember(KEY, KNOWN._replace(width=7))
    assert cache.recall(KEY) == KNOWN._replace(width=7)
    cache.forget(KEY)
    assert cache.recall(KEY) is None


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE networks SET digest = zeroblob(32)",
        "UPDATE networks SET width = width + 1",
        "UPDATE networks SET digest = 'a'",
        "UPDATE networks SET checksum = zeroblob(32)",
        "INSERT INTO networks SELECT x'00', digest, width, checksum FROM networks",
    ],
)
def test_a_damaged_record_is_refused(cache: FeatureCache, damage: str) -> None:
    cache.remember(KEY, KNOWN)
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute(damage)
    with pytest.raises(DataError, match=r"checksum of a network's digest is wrong.* delete it"):
        cache.recall(b"\0" if damage.startswith("INSERT") else KEY)


def test_a_file_of_an_earlier_version_remembers_from_now_on(cache: FeatureCache) -> None:
    cache.put(b"backbone", {b"image": np.ones(3, np.float32)})
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute("DROP TABLE networks")
    again = FeatureCache(cache.path)
    assert again.recall(KEY) is None
    again.remember(KEY, KNOWN)
    assert again.recall(KEY) == KNOWN
    assert list(again.get(b"backbone", [b"image"])) == [b"image"]
