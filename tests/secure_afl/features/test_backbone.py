import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from secure_afl.data.dataset import Dataset, align
from secure_afl.data.files import embedded_digits, load, load_clients
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.backbone import Backbone, parse_backbone
from secure_afl.features.cache import FeatureCache
from secure_afl.features.timm import TimmNetwork

TINY = "timm:test_resnet"
SIZE = 32


def features(rows: Any) -> Dataset:
    labels = np.zeros(len(rows), np.int64)
    return Dataset("site", np.asarray(rows), labels, ("a",))


def noise_images(count: int = 5, size: int = 20) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Dataset("noise", images, np.zeros(count, np.int64), ("a",))


# Without weights


def test_importing_the_package_does_not_import_torch() -> None:
    code = (
        "import sys; import secure_afl.features.backbone, secure_afl.data.files, "
        "secure_afl.features.cache, secure_afl.data.partition; "
        "sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_identity_passes_features_and_flattens_images() -> None:
    identity = parse_backbone("identity")
    given_rows = np.array([[1.5, -2.0], [0.0, 3.0]])
    rows = identity.extract(features(given_rows))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, given_rows)
    digits = embedded_digits()
    pixels = identity.extract(digits)
    assert pixels.shape == (1797, 64)
    assert isinstance(digits.examples, np.ndarray)
    expected = digits.examples.reshape(1797, 64).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(pixels, expected)


def test_identity_does_not_hand_out_the_datasets_own_array() -> None:
    site = features(np.ones((2, 2), np.float32))
    parse_backbone("identity").extract(site)[:] = 0
    assert np.asarray(site.examples).all()


def test_pixels_of_different_sizes_need_an_image_size(tmp_path: Path) -> None:
    paths = (tmp_path / "a.png", tmp_path / "b.png")
    for path, size in zip(paths, (4, 6), strict=True):
        Image.new("L", (size, size), 255).save(path)
    site = Dataset("site", paths, np.zeros(2, np.int64), ("a",))
    with pytest.raises(DataError, match=r"b\.png has the size \(6, 6, 3\), but .*a\.png"):
        parse_backbone("identity").extract(site)
    rows = parse_backbone("identity", image_size=5).extract(site)
    np.testing.assert_array_equal(rows, np.ones((2, 75), np.float32))


def test_features_cannot_be_resized() -> None:
    with pytest.raises(DataError, match=r"site holds features of width 2, .* 8 pixels"):
        parse_backbone("identity", image_size=8).extract(features(np.ones((1, 2))))


def test_features_that_float32_cannot_hold_are_refused() -> None:
    rows = np.ones((3, 2))
    rows[1, 0] = 1e300
    with pytest.raises(DataError, match="NaN or infinity of example 1 of site"):
        parse_backbone("identity").extract(features(rows))
    with pytest.raises(DataError, match="NaN or infinity of example 1 of site"):
        parse_backbone("projection:4").extract(features(rows))


@settings(max_examples=25, deadline=None)
@given(dim=st.integers(1, 50), seed=st.integers(0, 2**32), width=st.integers(1, 20))
def test_a_projection_is_its_formula(dim: int, seed: int, width: int) -> None:
    given_rows = np.random.default_rng(1).standard_normal((7, width))
    rows = parse_backbone(f"projection:{dim}", seed=seed).extract(features(given_rows))
    matrix = np.random.default_rng(seed).standard_normal((width, dim), np.float32)
    expected = np.maximum(given_rows @ matrix.astype(float) / np.sqrt(width), 0)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


def test_digests_name_what_changes_the_rows() -> None:
    same = parse_backbone("projection:8", seed=1).digest
    assert len(same) == 32
    assert parse_backbone("identity+projection:8", seed=1).digest == same
    others = [
        parse_backbone("identity"),
        parse_backbone("identity", image_size=8),
        parse_backbone("projection:8"),
        parse_backbone("projection:9", seed=1),
    ]
    assert len({same, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "not one of identity"),
        ("resnet18", "not one of identity"),
        ("identity+", "not one of identity"),
        ("projection:8+identity", "not one of identity"),
        ("projection:8+projection:8", "not one of identity"),
        ("projection:", "dim '' is not a whole number"),
        ("projection:0", "dim '0' is not a whole number"),
        ("projection:99999", "dim '99999' is not a whole number"),
        ("identity+projection:x", "dim 'x' is not a whole number"),
        ("timm:test_resnet+projection:0", "dim '0' is not a whole number"),
    ],
)
def test_specs_that_cannot_be_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_backbone(spec)


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for size in (0, 5000):
        with pytest.raises(ConfigError, match=f"image size {size} is not in 1..4096"):
            parse_backbone("identity", image_size=size)
    with pytest.raises(ConfigError, match="seed -1"):
        parse_backbone("projection:2", seed=-1)
    with pytest.raises(ConfigError, match="no weights to take from"):
        parse_backbone("identity", checkpoint=tmp_path / "weights.pth")


# timm, with random weights


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    """The state dict of a tiny model with its classifier, as people save it."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.manual_seed(0)
    weights: dict[str, Any] = timm.create_model("test_resnet", pretrained=False).state_dict()
    # timm starts its normalisation with weights 0 at the end of a block, which would make all rows
    # 0; statistics away from their defaults tell evaluation mode from training mode.
    for name, value in weights.items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("weight") and value.ndim == 1:
            value.uniform_(0.5, 1.5)
    return weights


@pytest.fixture(scope="module")
def checkpoint(state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Backbone:
    return parse_backbone(TINY, checkpoint, image_size=SIZE)


def test_rows_are_those_of_timm(tiny: Backbone, state: dict[str, Any]) -> None:
    import timm
    import torch

    model = timm.create_model("test_resnet", pretrained=False, num_classes=0).eval()
    model.load_state_dict({key: value for key, value in state.items() if "fc." not in key})
    site = noise_images(size=SIZE)
    inputs = torch.from_numpy(np.asarray(site.examples)).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        expected = model((inputs - 0.5) / 0.5).numpy()
    rows = tiny.extract(site)
    assert rows.dtype == np.float32
    assert rows.std() > 0
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


def test_a_row_does_not_depend_on_the_other_images(tiny: Backbone) -> None:
    # More than one batch, the last one short.
    site = noise_images(70)
    together = tiny.extract(site)
    for index in (0, 63, 64, 69):
        alone = tiny.extract(site.take(np.array([index])))[0]
        np.testing.assert_allclose(alone, together[index], rtol=1e-4, atol=1e-5)
    backwards = tiny.extract(site.take(np.arange(70)[::-1]))
    np.testing.assert_allclose(backwards[::-1], together, rtol=1e-4, atol=1e-5)


def test_grey_is_replicated(tiny: Backbone) -> None:
    digits = embedded_digits().take(np.arange(4))
    grey = np.asarray(digits.examples)
    colour = Dataset("rgb", np.stack([grey] * 3, axis=-1), digits.labels, digits.classes)
    np.testing.assert_array_equal(tiny.extract(digits), tiny.extract(colour))


def test_features_are_refused_by_a_network(tiny: Backbone) -> None:
    with pytest.raises(DataError, match="site holds features of width 2, not images"):
        tiny.extract(features(np.ones((1, 2))))


def test_a_damaged_image_is_named(tiny: Backbone, tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(b"no image")
    site = Dataset("site", (tmp_path / "damaged.png",), np.zeros(1, np.int64), ("a",))
    with pytest.raises(DataError, match=r"damaged\.png cannot be read"):
        tiny.extract(site)


def test_what_is_cached_is_not_computed_again(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path / "features.sqlite")
    site = noise_images(70)
    seen: list[tuple[int, int]] = []
    rows = tiny.extract(site, cache, lambda _, done, total: seen.append((done, total)))
    assert seen == [(0, 70), (64, 70), (70, 70)]

    def fail(self: object, images: object) -> None:
        raise AssertionError("the network ran")

    monkeypatch.setattr("secure_afl.features.timm.TimmNetwork._forward", fail)
    order = np.array([69, 3, 3, 0])
    seen.clear()
    again = tiny.extract(site.take(order), cache, lambda _, done, total: seen.append((done, total)))
    np.testing.assert_array_equal(again, rows[order])
    assert seen == [(4, 4)]
    with pytest.raises(AssertionError, match="the network ran"):
        tiny.extract(noise_images(1, size=21), cache)


def test_an_interrupted_extraction_keeps_its_batches(tiny: Backbone, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features.sqlite")

    def stop(what: str, done: int, total: int) -> None:
        if done == 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.extract(noise_images(70), cache, stop)
    seen: list[int] = []
    tiny.extract(noise_images(70), cache, lambda _, done, total: seen.append(done))
    assert seen == [64, 70]


def test_a_projection_follows_a_network(tiny: Backbone, checkpoint: Path) -> None:
    spec = f"{TINY}+projection:10"
    both = parse_backbone(spec, checkpoint, image_size=SIZE, seed=3)
    assert both.name == spec
    site = noise_images()
    expected = parse_backbone("projection:10", seed=3).extract(features(tiny.extract(site)))
    np.testing.assert_array_equal(both.extract(site), expected)
    assert both.digest != tiny.digest


def test_a_checkpoint_may_come_without_its_classifier(
    tiny: Backbone, state: dict[str, Any], tmp_path: Path
) -> None:
    import torch

    torch.save({k: v for k, v in state.items() if "fc." not in k}, tmp_path / "tiny.pth")
    headless = parse_backbone(TINY, tmp_path / "tiny.pth", image_size=SIZE)
    assert headless.digest == tiny.digest


def test_the_digest_follows_weights_and_preprocessing(
    tiny: Backbone, checkpoint: Path, state: dict[str, Any], tmp_path: Path
) -> None:
    import torch

    changed = {key: value.clone() for key, value in state.items()}
    changed["layer1.0.conv1.weight"].view(-1)[0] += 1e-3
    torch.save(changed, tmp_path / "changed.pth")
    assert parse_backbone(TINY, checkpoint, image_size=SIZE).digest == tiny.digest
    others = [
        parse_backbone(TINY, tmp_path / "changed.pth", image_size=SIZE),
        parse_backbone(TINY, checkpoint, image_size=SIZE + 1),
        parse_backbone(f"{TINY},mean=0.4", checkpoint, image_size=SIZE),
        parse_backbone(f"{TINY},std=0.4", checkpoint, image_size=SIZE),
        parse_backbone(f"{TINY},crop_pct=0.9", checkpoint, image_size=SIZE),
        parse_backbone(f"{TINY},interpolation=bicubic", checkpoint, image_size=SIZE),
        parse_backbone(f"{TINY},output_stride=16", checkpoint, image_size=SIZE),
    ]
    assert len({tiny.digest, *(other.digest for other in others)}) == len(others) + 1


def test_an_image_size_resizes_without_a_crop(checkpoint: Path) -> None:
    # Only the outermost pixels of a wide image differ, which a crop would cut away.
    dark = np.zeros((1, 40, 120, 3), np.uint8)
    edged = dark.copy()
    edged[:, :, :8], edged[:, :, -8:] = 255, 255
    both = Dataset("wide", np.concatenate([dark, edged]), np.zeros(2, np.int64), ("a",))
    whole = parse_backbone(TINY, checkpoint, image_size=SIZE).extract(both)
    cropped = parse_backbone(f"{TINY},crop_pct=0.5", checkpoint, image_size=SIZE).extract(both)
    assert np.abs(whole[0] - whole[1]).max() > 1e-3
    np.testing.assert_allclose(cropped[0], cropped[1], rtol=1e-4, atol=1e-5)


def test_without_an_image_size_the_models_own_is_used(checkpoint: Path) -> None:
    from timm.data.transforms_factory import create_transform

    site = noise_images(2, size=180)
    own = create_transform(
        input_size=(3, 160, 160), interpolation="bilinear", mean=(0.5,), std=(0.5,), crop_pct=0.95
    )
    network = parse_backbone(TINY, checkpoint).front
    assert isinstance(network, TimmNetwork)
    image = Image.fromarray(site.image(0))
    np.testing.assert_array_equal(network.preprocess(image), own(image))


def test_weights_that_make_nan_are_refused(state: dict[str, Any], tmp_path: Path) -> None:
    import torch

    broken = {key: value.clone() for key, value in state.items()}
    broken["layer1.0.conv1.weight"].view(-1)[0] = float("nan")
    torch.save(broken, tmp_path / "broken.pth")
    cache = FeatureCache(tmp_path / "features.sqlite")
    backbone = parse_backbone(TINY, tmp_path / "broken.pth", image_size=SIZE)
    site = noise_images()
    with pytest.raises(DataError, match="NaN or infinity of example 0 of noise"):
        backbone.extract(site, cache)
    assert cache.get(backbone.front.digest, [site.image_digest(0)]) == {}


def test_a_checkpoint_that_does_not_fit_is_named(
    checkpoint: Path, state: dict[str, Any], tmp_path: Path
) -> None:
    import torch

    path = tmp_path / "wrong.pth"
    missing = dict(list(state.items())[1:])
    unexpected = state | {"more.weight": torch.zeros(2)}
    other_shape = state | {"conv1.0.weight": torch.zeros(2)}
    for content in (missing, unexpected, other_shape, {}):
        torch.save(content, path)
        with pytest.raises(DataError, match=r"wrong\.pth does not load into 'test_resnet'"):
            parse_backbone(TINY, path)
    for name in ("damaged.pth", "damaged.safetensors"):
        whole = path.read_bytes() if name.endswith("pth") else checkpoint.read_bytes()
        for damaged in (b"", b"no weights at all", whole[: len(whole) // 2]):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(DataError, match=f"{name} does not load"):
                parse_backbone(TINY, tmp_path / name)
    with pytest.raises(DataError, match=r"nowhere\.pth is not a file"):
        parse_backbone(TINY, tmp_path / "nowhere.pth")


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    import torch

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"conv1.0.weight": Payload()}, tmp_path / "hostile.pth")
    with pytest.raises(DataError, match=r"hostile\.pth does not load"):
        parse_backbone(TINY, tmp_path / "hostile.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("settings_text", "message"),
    [
        ("test_resnt", "no model 'test_resnt'; did you mean .*test_resnet"),
        ("test_resnet.nobody", "cannot make the model"),
        ("test_resnet,nonsense=1", "cannot make the model .*nonsense"),
        ("test_resnet,mean", "'mean' is not <key>=<value>"),
        ("test_resnet,mean=0.5,mean=0.5", "given twice"),
        ("test_resnet,mean=2", r"mean '2' is not a number in 0\.\.1"),
        ("test_resnet,std=0", "std '0' is not a number"),
        ("test_resnet,crop_pct=x", "crop_pct 'x' is not a number"),
        ("test_resnet,interpolation=cubic", "interpolation 'cubic' is not one of nearest"),
        ("test_resnet,num_classes=5", "'num_classes' is set already"),
    ],
)
def test_settings_of_timm_that_cannot_be_are_refused(
    state: dict[str, Any], settings_text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_backbone(f"timm:{settings_text}")


@pytest.mark.slow
def test_a_size_that_the_model_does_not_take_is_refused(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    vit = timm.create_model("test_vit3", pretrained=False, img_size=64)
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    with pytest.raises(ConfigError, match=r"does not take images of 32 × 32 .*img_size=32"):
        parse_backbone("timm:test_vit3,img_size=64", tmp_path / "vit.pth", image_size=32)
    rows = parse_backbone("timm:test_vit3,img_size=64", tmp_path / "vit.pth", image_size=64)
    assert rows.extract(noise_images(2)).shape == (2, vit.num_features)


def test_an_output_that_is_no_row_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"array of shape \(1, .*not a row \(1, d\)"):
        parse_backbone(f"{TINY},global_pool=", checkpoint, image_size=SIZE)


def test_a_failed_download_asks_for_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    create = timm.create_model

    def offline(name: str, pretrained: bool, **keywords: Any) -> Any:
        if pretrained:
            raise OSError("no network")
        return create(name, pretrained=False, **keywords)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(DataError, match=r"could not be had \(no network\); .*--checkpoint"):
        parse_backbone(TINY)


def test_a_model_without_published_weights_is_never_random() -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(DataError, match=r"'test_vit4' could not be had .*--checkpoint"):
        parse_backbone("timm:test_vit4")


# Real data


@pytest.fixture
def real() -> Callable[[str], Path]:
    folder = os.environ.get("SECURE_AFL_DATA")
    if not folder:
        pytest.skip("SECURE_AFL_DATA is not set to the folder of real data")
    pytest.importorskip("timm", reason="timm is not installed")
    return Path(folder).joinpath


@pytest.mark.slow
def test_mobilenet_features_tell_the_sign_digits_apart(real: Callable[[str], Path]) -> None:
    mobilenet = parse_backbone(
        "timm:mobilenetv1_100,pad_type=same", real("backbones/mobilenetv1_100.safetensors"), 96
    )
    clients = load_clients(str(real("sign_digits") / "train" / "site_0[0-3]"))
    [test] = align([load(real("sign_digits") / "test")], clients[0].classes)
    test = test.take(np.arange(0, len(test), 4))

    def rows_of(dataset: Dataset) -> Any:
        rows = mobilenet.extract(dataset).astype(np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    rows = np.concatenate([rows_of(client) for client in clients])
    assert rows.shape[1] == 1024
    targets = np.eye(10)[np.concatenate([client.labels for client in clients])]
    weights = np.linalg.solve(rows.T @ rows + 0.1 * np.eye(1024), rows.T @ targets)
    accuracy = np.mean((rows_of(test) @ weights).argmax(axis=1) == test.labels)
    assert accuracy > 0.7


@pytest.mark.slow
def test_a_second_extraction_takes_no_time(real: Callable[[str], Path], tmp_path: Path) -> None:
    backbone = parse_backbone(
        "timm:mobilenetv1_100,pad_type=same", real("backbones/mobilenetv1_100.safetensors"), 32
    )
    cache = FeatureCache(tmp_path / "features.sqlite")
    images = load(real("pneumoniamnist.npz"))
    rows = backbone.extract(images, cache)
    start = time.perf_counter()
    again = backbone.extract(images, cache)
    assert time.perf_counter() - start < 1
    np.testing.assert_array_equal(rows, again)


def test_the_power_of_a_networks_entries(tiny: Backbone, checkpoint: Path) -> None:
    site = noise_images(size=SIZE)
    root = parse_backbone(f"{TINY},power=0.5", checkpoint, image_size=SIZE)
    plain = tiny.extract(site)
    expected = np.sign(plain) * np.sqrt(np.abs(plain))
    np.testing.assert_allclose(root.extract(site), expected, rtol=1e-5, atol=1e-6)
    assert root.digest != tiny.digest
    assert parse_backbone(f"{TINY},power=1.0", checkpoint, image_size=SIZE).digest == tiny.digest


@pytest.mark.slow
def test_the_last_blocks_are_joined_and_projected(
    tiny: Backbone, checkpoint: Path, state: dict[str, Any]
) -> None:
    import timm
    import torch

    site = noise_images(size=SIZE)
    staged = parse_backbone(f"{TINY},stages=2", checkpoint, image_size=SIZE, seed=3)
    rows = staged.extract(site)
    assert rows.shape == tiny.extract(site).shape
    model = timm.create_model("test_resnet", pretrained=False, num_classes=0).eval()
    model.load_state_dict({key: value for key, value in state.items() if "fc." not in key})
    kept: list[Any] = []
    layers: Any = [model.layer3, model.layer4]
    for block in [block for layer in layers for block in layer][-2:]:
        block.register_forward_hook(lambda _b, _i, output: kept.append(output.mean(dim=(2, 3))))
    inputs = torch.from_numpy(np.asarray(site.examples)).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        model((inputs - 0.5) / 0.5)
        joined = torch.nn.functional.normalize(torch.cat(kept, dim=1), dim=1).numpy()
    channels, width = joined.shape[1], rows.shape[1]
    drawn = np.random.default_rng([3, channels, width]).standard_normal((channels, width))
    np.testing.assert_allclose(rows, joined @ drawn / np.sqrt(width), rtol=1e-3, atol=1e-5)
    digests = {
        parse_backbone(spec, checkpoint, image_size=SIZE, seed=seed).digest
        for spec in (TINY, f"{TINY},stages=2", f"{TINY},stages=1", f"{TINY},stages=2,power=0.5")
        for seed in (3, 4)
    }
    assert len(digests) == 7, "without stages no seed counts"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("stages=0", "stages 0 is not a whole number in 1..64"),
        ("stages=many", "stages 'many' is not"),
        ("stages=60", r"stages 60, allowed: ≤ \d+ here"),
        ("power=0", "power 0 is not a number in 0.1..1"),
        ("power=2", "power 2 is not"),
        ("power=root", "power 'root' is not"),
    ],
)
def test_stages_and_powers_that_cannot_be_are_refused(
    checkpoint: Path, keys: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_backbone(f"{TINY},{keys}", checkpoint, image_size=SIZE)
