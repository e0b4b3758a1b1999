"""Frozen networks of timm: their weights, their preprocessing, and their digest."""

import hashlib
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from secure_afl.data.dataset import Dataset
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.cache import FeatureCache
from secure_afl.features.checkpoints import create_with_weights
from secure_afl.features.pixels import batches, digest_of
from secure_afl.features.remembered import Remembered, network_key
from secure_afl.features.stages import pop_taps, tapped
from secure_afl.progress import Progress

if TYPE_CHECKING:
    import torch
    from PIL import Image

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_PREPROCESSING_KEYS = ("mean", "std", "interpolation", "crop_pct")
_RESERVED_KEYS = ("pretrained", "checkpoint_path", "num_classes")
# So long the hub may take to answer at all, in seconds.
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Built:
    """A timm model without its classifier in evaluation mode, and how images get into it.

    Attributes:
        known: its digest and its width.
        mode: of the images that `preprocess` takes: RGB, or L for models of one channel.
    """

    model: "torch.nn.Module" = field(repr=False)
    preprocess: Callable[["Image.Image"], "torch.Tensor"] = field(repr=False)
    known: Remembered
    mode: str


class TimmNetwork:
    """A frozen network of timm, which is built when its first row is wanted.

    Args:
        known: its digest and its width.
        build: builds it.

    Attributes:
        digest: SHA-256 over weights, architecture and preprocessing, 32 bytes.
        width: features of a row.
    """

    def __init__(self, known: Remembered, build: Callable[[], Built]) -> None:
        self.digest, self.width = known
        self._build = build

    @cached_property
    def _built(self) -> Built:
        built = self._build()
        assert built.known == (self.digest, self.width), "its maker compares them"
        return built

    @property
    def model(self) -> "torch.nn.Module":
        """The network; raises DataError if it is not the one that was remembered."""
        return self._built.model

    @property
    def preprocess(self) -> Callable[["Image.Image"], "torch.Tensor"]:
        """What makes an input of an image; raises DataError as `model`."""
        return self._built.preprocess

    def extract(
        self, dataset: Dataset, cache: FeatureCache | None, progress: Progress | None
    ) -> NDArray[np.float32]:
        """Compute rows, float32 (n, d); equal images once, and cached ones not at all.

        Raises:
            DataError: the dataset holds features, an image cannot be read, or the network is not
                the one that was remembered.
        """
        digests = [dataset.image_digest(index) for index in range(len(dataset))]
        known = cache.get(self.digest, digests) if cache else {}
        # The first place of each image that is not known yet, in the dataset's order.
        places: dict[bytes, int] = {}
        for index, digest in enumerate(digests):
            if digest not in known:
                places.setdefault(digest, index)
        done = len(dataset) - len(places)
        if progress:
            progress("features", done, len(dataset))
        for batch in batches(list(places)):
            rows = self._forward([dataset.image(places[digest]) for digest in batch])
            new = dict(zip(batch, rows, strict=True))
            # Rows that Backbone.extract will refuse must not stay in the cache.
            if cache and np.isfinite(rows).all():
                cache.put(self.digest, new)
            known.update(new)
            done += len(batch)
            if progress:
                progress("features", done, len(dataset))
        return np.stack([known[digest] for digest in digests])

    def _forward(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        import torch
        from PIL import Image

        built = self._built
        device = next(built.model.parameters()).device
        with torch.inference_mode():
            inputs = [
                built.preprocess(Image.fromarray(image).convert(built.mode)) for image in images
            ]
            rows = built.model(torch.stack(inputs).to(device))
            result: NDArray[np.float32] = rows.float().cpu().numpy()
        return result


def load_network(
    settings: str,
    checkpoint: Path | None = None,
    image_size: int | None = None,
    seed: int = 0,
    memory: Path | None = None,
) -> TimmNetwork:
    """Load a timm model from `<model>[,<key>=<value>…]`, on the GPU where there is one.

    Args:
        seed: of the projection that `stages` takes.
        memory: a feature cache. A network that it remembers is built when it is wanted, and
            compared then; any other one is built now, and remembered.

    Raises:
        ConfigError: torch or timm is missing, or a model or setting that cannot be.
        DataError: weights that cannot be loaded, or a cache that cannot be used.
    """

    def build() -> Built:
        return _build(settings, checkpoint, image_size, seed)

    key = None if memory is None else network_key(settings, checkpoint, image_size, seed)
    if memory is None or key is None:
        built = build()
        return TimmNetwork(built.known, lambda: built)
    cache = FeatureCache(memory)
    known = cache.recall(key)
    if known is None:
        built = build()
        cache.remember(key, built.known)
        return TimmNetwork(built.known, lambda: built)
    return TimmNetwork(known, lambda: _compared(build(), known, cache, key, settings))


def _compared(
    built: Built, known: Remembered, cache: FeatureCache, key: bytes, settings: str
) -> Built:
    """Return a network that is the one that was remembered; another one ends the run."""
    if built.known == known:
        return built
    cache.forget(key)
    raise DataError(
        f"timm:{settings} has digest {built.known.digest.hex()[:16]}… and rows of "
        f"{built.known.width} features, but {cache.path} remembered "
        f"{known.digest.hex()[:16]}… and {known.width}, which is forgotten now; start again, and "
        "see who changes the checkpoint or that file"
    )


def _build(settings: str, checkpoint: Path | None, image_size: int | None, seed: int) -> Built:
    try:
        import timm  # noqa: F401
        import torch
        from timm.data.transforms_factory import create_transform
    except ImportError as error:
        raise ConfigError(
            "timm backbones need torch and timm; install 'secure-afl[vision]'"
        ) from error

    name, *pairs = settings.split(",")
    name = _model_name(name)
    overrides, keywords = _parse_keys(settings, pairs)
    taps = pop_taps(settings, keywords, seed)
    model = _create(name, keywords, checkpoint)
    config = _preprocessing(model, overrides, image_size, keywords.get("in_chans", 3))
    preprocess = create_transform(**config, is_training=False)
    model.eval().requires_grad_(False)
    width = _try_out(model, settings, config["input_size"])
    about = {"timm": name, "keywords": keywords, "preprocessing": config, **taps.described}
    digest = hashlib.sha256(digest_of(about) + _weights_digest(model)).digest()
    with torch.inference_mode():
        model = tapped(model, taps, settings, torch.zeros(1, *config["input_size"]))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mode = "L" if config["input_size"][0] == 1 else "RGB"
    return Built(model.to(device), preprocess, Remembered(digest, width), mode)


def _model_name(name: str) -> str:
    """Return timm's name of a model, of which the hub's may be given.

    Raises:
        ConfigError: timm has no such model.
    """
    import difflib

    import timm

    hub = re.fullmatch(r"(?:hf[-_]hub:)?([^/:]+)/([^/:]+)", name)
    if hub is not None and hub[1] != "timm":
        # Somebody's own model; its repository says which.
        return f"hf-hub:{hub[1]}/{hub[2]}"
    known = name if hub is None else hub[2]
    if not timm.is_model(known):
        close = difflib.get_close_matches(known, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ConfigError(f"timm has no model {known!r}{hint} (timm.list_models() lists them)")
    return known


def _create(name: str, keywords: dict[str, Any], checkpoint: Path | None) -> "torch.nn.Module":
    import timm

    if checkpoint is not None:
        return create_with_weights(name, keywords, checkpoint)
    try:
        model: torch.nn.Module
        if not name.startswith("hf-hub:"):
            # What is wrong with the keywords shows before anything is downloaded.
            model = timm.create_model(name, pretrained=False, num_classes=0, **keywords)
    except Exception as error:  # the keywords reach code of any kind in timm
        raise ConfigError(
            f"timm cannot make the model {name!r} with {keywords or 'no keywords'}: {error}"
        ) from error
    try:
        with quick_failure():
            model = timm.create_model(name, pretrained=True, num_classes=0, **keywords)
    except Exception as error:  # network, disk and hub errors have no common base
        reason = " ".join(str(error).split())
        raise DataError(
            f"timm's own weights of {name!r} could not be had ({reason}); "
            "give a local file with --checkpoint"
        ) from error
    return model


@contextmanager
def quick_failure() -> Iterator[None]:
    """Use what is on this machine alone where the hub does not answer within seconds.

    The hub's client tries again for most of a minute, even for what it has already.
    """
    import huggingface_hub
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if not before:
        try:
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_ANSWER_SECONDS)
        except Exception:  # whichever client the hub's library has
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _preprocessing(
    model: Any, overrides: dict[str, Any], image_size: int | None, channels: int
) -> dict[str, Any]:
    from timm.data.config import resolve_model_data_config

    # Its annotations are missing in timm.
    resolve: Callable[[Any], dict[str, Any]] = resolve_model_data_config
    config = resolve(model)
    if image_size is not None:
        config["input_size"] = (config["input_size"][0], image_size, image_size)
        if "crop_pct" not in overrides:
            config |= {"crop_pct": 1.0, "crop_mode": "squash"}
    config |= overrides
    if channels == 1:
        # A grey value is normalised as a grey pixel of three equal colours is on average.
        grey = {key: (sum(config[key]) / len(config[key]),) for key in ("mean", "std")}
        config |= {"input_size": (1, *config["input_size"][1:]), **grey}
    return config


def _try_out(model: Any, settings: str, input_size: tuple[int, int, int]) -> int:
    """Check by one forward pass that the model takes this size; return its features' number.

    The check comes before any image.
    """
    import torch

    try:
        with torch.inference_mode():
            shape = tuple(model(torch.zeros(1, *input_size)).shape)
    except Exception as error:  # models check their input in their own ways
        raise ConfigError(
            f"timm:{settings} does not take images of {input_size[1]} × {input_size[2]} pixels "
            f"({' '.join(str(error).split())}); leave the image size out, or add "
            f"img_size={input_size[1]}"
        ) from error
    if len(shape) != 2:
        raise ConfigError(
            f"timm:{settings} makes an array of shape {shape} of an image, not a row (1, d); "
            "leave out the keys that change the pooling"
        )
    return int(shape[1])


def _weights_digest(model: Any) -> bytes:
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _parse_keys(settings: str, pairs: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parse overrides of the preprocessing, and keywords for timm.create_model."""
    overrides: dict[str, Any] = {}
    keywords: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier() or key in overrides or key in keywords:
            raise ConfigError(
                f"timm:{settings}: {pair!r} is not <key>=<value>, or its key is given twice"
            )
        if key in _RESERVED_KEYS:
            raise ConfigError(f"timm:{settings}: the key {key!r} is set already; leave it out")
        if key in _PREPROCESSING_KEYS:
            overrides[key] = _preprocessing_value(settings, key, text)
        else:
            keywords[key] = _keyword_value(text)
    if keywords.get("in_chans", 3) not in (1, 3):
        raise ConfigError(
            f"timm:{settings}: in_chans is {keywords['in_chans']!r}, allowed: 1 for grey, 3"
        )
    return overrides, keywords


def _preprocessing_value(settings: str, key: str, text: str) -> Any:
    if key == "interpolation":
        if text not in INTERPOLATIONS:
            raise ConfigError(
                f"timm:{settings}: interpolation {text!r} is not one of {', '.join(INTERPOLATIONS)}"
            )
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if key == "mean":
        if not 0 <= value <= 1:
            raise ConfigError(f"timm:{settings}: mean {text!r} is not a number in 0..1")
        return (value,) * 3
    if not 0.01 <= value <= 1:
        raise ConfigError(f"timm:{settings}: {key} {text!r} is not a number in 0.01..1")
    return (value,) * 3 if key == "std" else value


def _keyword_value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
