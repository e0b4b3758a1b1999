"""Weights as tutorials, trainers and hubs save them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_afl.data.dataset import Dataset
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.backbone import parse_backbone
from secure_afl.features.checkpoints import unwrap

timm = pytest.importorskip("timm", reason="timm is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

TINY = "timm:test_resnet"


def trained(name: str = "test_resnet", **keywords: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    state: dict[str, Any] = timm.create_model(name, pretrained=False, **keywords).state_dict()
    for key, value in state.items():
        if key.endswith("weight") and value.ndim == 1:
            value.uniform_(0.5, 1.5)
    return state


def under(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


STATE = trained()
OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("plain") / "w.pth"
    torch.save(STATE, path)
    return parse_backbone(TINY, path).digest


@pytest.mark.parametrize(
    "content",
    [
        # PyTorch's tutorial on saving a general checkpoint.
        {"epoch": 5, "model_state_dict": STATE, "optimizer_state_dict": OPTIMIZER, "loss": 0.4},
        # torchvision's and timm's training scripts.
        {"model": STATE, "optimizer": OPTIMIZER, "epoch": 3, "model_ema": STATE},
        {"state_dict": under("module.", STATE), "arch": "resnet"},
        # A LightningModule with the network as `self.model`, beside a loss with weights.
        {
            "epoch": 1,
            "pytorch-lightning_version": "2.5.0",
            "state_dict": under("model.", STATE) | {"criterion.weight": torch.ones(2)},
            "optimizer_states": [OPTIMIZER],
            "hyper_parameters": {"lr": 0.1},
        },
        {"state_dict": under("model._orig_mod.", STATE)},
        {"state_dict": under("net.backbone.", STATE)},
        under("_orig_mod.module.", STATE),
        {"anything": STATE, "epoch": 1},
        {"student": {"weights": STATE}},
        # A fine-tuned head of another form, and none.
        {k: v for k, v in STATE.items() if not k.startswith("fc.")}
        | {"fc.1.weight": torch.zeros(3, 4), "fc.1.bias": torch.zeros(3)},
        {k: v for k, v in STATE.items() if not k.startswith("fc.")},
    ],
)
def test_wrappings_are_taken_off(content: Any, wanted: bytes, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.ckpt")
    assert parse_backbone(TINY, tmp_path / "w.ckpt").digest == wanted


def test_the_average_comes_before_the_last(wanted: bytes, tmp_path: Path) -> None:
    other = {key: value + 1 for key, value in STATE.items()}
    torch.save({"state_dict": other, "state_dict_ema": STATE}, tmp_path / "w.pth")
    assert parse_backbone(TINY, tmp_path / "w.pth").digest == wanted
    torch.save({"net": other, "model_state_dict": STATE}, tmp_path / "w.pth")
    assert parse_backbone(TINY, tmp_path / "w.pth").digest == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "lr": 0.1}, r"holds no weights.*top keys are epoch, lr"),
        ([STATE], "the file holds a list"),
        ({"generator": {"a.weight": torch.ones(2)}, "epoch": 1}, "unwrap what is under generator"),
        (under("a.", STATE) | under("b.", STATE), r"begin with 'a\.' or 'b\.'; keep one"),
        (STATE | {"neck.weight": torch.ones(2)}, "neck.weight"),
        (dict(list(STATE.items())[3:]), "Missing key"),
        (trained("test_resnet", in_chans=1), "size mismatch|inconsistent"),
        ({}, "has no weights|holds no weights"),
    ],
)
def test_what_does_not_fit_says_what_the_file_holds(
    content: Any, message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DataError, match=message) as error:
        parse_backbone(TINY, tmp_path / "w.pth")
    assert "model.state_dict()" in str(error.value)


SLOW = ("repvit_m1", "efficientvit_m0", "shvit_s1", "iformer_t", "caformer_s18")


@pytest.mark.parametrize(
    "family", ["levit_128s", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_heads_of_several_layers_are_cut_off(family: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = timm.create_model(family, pretrained=False).state_dict()
    save_file({k: v.contiguous().clone() for k, v in state.items()}, tmp_path / "w.safetensors")
    backbone = parse_backbone(f"timm:{family}", tmp_path / "w.safetensors")
    kept = backbone.front.model.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(kept[key].cpu(), state[key]) for key in kept)
    # A weight of the body that is missing is an error, and no random number.
    first = next(key for key in kept if key.endswith("weight"))
    del state[first]
    save_file({k: v.contiguous().clone() for k, v in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="does not load"):
        parse_backbone(f"timm:{family}", tmp_path / "w.safetensors")


def test_position_embeddings_are_resampled_as_timm_does(tmp_path: Path) -> None:
    torch.save(trained("test_vit3", img_size=64), tmp_path / "vit.pth")
    with pytest.raises(ConfigError, match="add img_size=96"):
        parse_backbone("timm:test_vit3,img_size=64", tmp_path / "vit.pth", image_size=96)
    backbone = parse_backbone("timm:test_vit3,img_size=96", tmp_path / "vit.pth", image_size=96)
    own = timm.create_model(
        "test_vit3",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "vit.pth")},
        num_classes=0,
        img_size=96,
    )
    kept = backbone.front.model.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(kept[k].cpu(), v) for k, v in own.state_dict().items())


def test_grey_models_see_grey_images(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "colour.pth")
    torch.save(trained("test_resnet", in_chans=1), tmp_path / "grey.pth")
    spec = f"{TINY},in_chans=1"
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 40), dtype=np.uint8)
    images = Dataset("a", pixels, np.zeros(2, np.int64), ("x",))
    for name in ("colour", "grey"):
        grey = parse_backbone(spec, tmp_path / f"{name}.pth", image_size=32)
        rows = grey.extract(images)
        assert np.isfinite(rows).all()
        assert np.ptp(rows, axis=0).max() > 0
    # Summed over colours, a grey image gives what it gives in three equal colours.
    summed = parse_backbone(f"{spec},mean=0.5,std=0.5", tmp_path / "colour.pth", image_size=32)
    colour = parse_backbone(f"{TINY},mean=0.5,std=0.5", tmp_path / "colour.pth", image_size=32)
    np.testing.assert_allclose(summed.extract(images), colour.extract(images), rtol=1e-3, atol=1e-4)
    assert summed.digest != colour.digest
    with pytest.raises(ConfigError, match="in_chans is 2, allowed: 1 for grey, 3"):
        parse_backbone(f"{TINY},in_chans=2", tmp_path / "colour.pth")


@pytest.mark.parametrize("prefix", ["timm/", "hf-hub:timm/", "hf_hub:timm/"])
def test_names_of_the_hub_are_known(prefix: str, wanted: bytes, tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    spec = f"timm:{prefix}test_resnet"
    assert parse_backbone(spec, tmp_path / "w.pth").digest == wanted
    with pytest.raises(ConfigError, match="no model 'test_resnt'; did you mean"):
        parse_backbone(f"timm:{prefix}test_resnt", tmp_path / "w.pth")


def test_unwrapping_looks_no_further_than_names() -> None:
    with pytest.raises(ValueError, match="no weights by name"):
        unwrap({"a": {"b": {"c": {"weight": torch.ones(1)}}}}, ["weight"])
    assert list(unwrap({"a": {"b": {"weight": torch.ones(1)}}}, ["weight"])) == ["weight"]
    # Names of another library stay as they are, for timm's own filter.
    assert list(unwrap({"module.blocks.0.w": torch.ones(1)}, ["stages.0.w"])) == ["blocks.0.w"]


def test_a_hub_that_does_not_answer_fails_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket
    import time

    import huggingface_hub
    from huggingface_hub import constants

    # A port that takes connections and says nothing, as a firewall may.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("secure_afl.features.timm._ANSWER_SECONDS", 0.5)
        monkeypatch.setenv("HF_HUB_CACHE", "/nonexistent")
        huggingface_hub.get_session()
        begin = time.monotonic()
        with pytest.raises(DataError, match=r"could not be had .*--checkpoint"):
            parse_backbone(TINY)
    assert time.monotonic() - begin < 5
    assert not constants.HF_HUB_OFFLINE
