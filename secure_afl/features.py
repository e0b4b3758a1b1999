"""Frozen backbones: from images or given features to the feature rows that methods work on."""

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secure_afl.cache import FeatureCache
from secure_afl.data import Dataset
from secure_afl.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of examples done and that of all."""

FORMS = (
    "identity, projection:<dim>, timm:<model>[,<key>=<value>…] "
    "or timm:<model>[,<key>=<value>…]+projection:<dim>"
)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
MAX_IMAGE_SIZE = 4096
MAX_PROJECTION = 65_536

_BATCH = 64
_PREPROCESSING_KEYS = ("mean", "std", "interpolation", "crop_pct")
_RESERVED_KEYS = ("pretrained", "checkpoint_path", "num_classes", "in_chans")


@dataclass(frozen=True)
class Backbone:
    """A frozen map from examples to feature rows; made by `parse_backbone`.

    `name` is the spec. `front` makes rows of images (or passes features on), `projection` expands
    them.
    """

    name: str
    front: "TimmNetwork | Pixels"
    projection: "Projection | None"

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) over everything that changes the rows: weights, settings, seed."""
        expansion = self.projection.digest if self.projection else b""
        return hashlib.sha256(self.front.digest + expansion).digest()

    def extract(
        self,
        dataset: Dataset,
        cache: FeatureCache | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """The feature rows of a dataset in its order, float32 (n, d), all finite.

        With a cache, rows of a network are taken from it and stored in it as they are computed.

        Raises DataError for data that the backbone does not take, an image that cannot be read, or
        rows that are not finite.
        """
        rows = self.front.extract(dataset, cache, progress)
        if self.projection is not None:
            rows = self.projection.apply(rows)
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise DataError(
                f"{self.name} made NaN or infinity of example {np.argmin(finite)} of "
                f"{dataset.name}; check the checkpoint's weights, and that the data fit float32"
            )
        return rows


def parse_backbone(
    spec: str,
    checkpoint: Path | None = None,
    image_size: int | None = None,
    seed: int = 0,
) -> Backbone:
    """A backbone from its spec; weights are loaded, or downloaded, here.

    - `identity`: features as they are; images flattened to pixels in [0, 1].
    - `projection:<dim>`: relu(x @ R) after `identity`, with R ~ N(0, 1 / d_in) drawn from `seed`.
    - `timm:<model>[,<key>=<value>…]`: a timm model without its classifier, with the weights of
      `checkpoint`, or timm's own without one. `mean`, `std`, `interpolation` and `crop_pct`
      override the model's preprocessing; other keys go to `timm.create_model`.
    - `timm:…+projection:<dim>`: both.

    `image_size` resizes images to exactly that many pixels each way, without a crop unless
    `crop_pct` is given.

    Raises ConfigError for a spec or setting that cannot be, and DataError for weights that cannot
    be loaded.
    """
    if image_size is not None and not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise ConfigError(f"image size {image_size} is not in 1..{MAX_IMAGE_SIZE}")
    if seed < 0:
        raise ConfigError(f"seed {seed} of the backbone is negative; give 0 or more")
    front, projection = _parse_parts(spec, seed)
    if front.startswith("timm:"):
        network = load_network(front.removeprefix("timm:"), checkpoint, image_size)
        return Backbone(spec, network, projection)
    if checkpoint is not None:
        raise ConfigError(
            f"backbone {spec!r} has no weights to take from {checkpoint}; "
            "leave the checkpoint out, or give timm:<model>"
        )
    return Backbone(spec, Pixels(image_size), projection)


@dataclass(frozen=True)
class Pixels:
    """Images as rows of their pixels in [0, 1], resized if asked; features as they are."""

    image_size: int | None

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) of the settings."""
        return _digest_of({"pixels": self.image_size})

    def extract(
        self, dataset: Dataset, cache: FeatureCache | None, progress: Progress | None
    ) -> NDArray[np.float32]:
        """Rows, float32 (n, d); nothing is cached, for nothing here is slow.

        Raises DataError for images of different sizes, and for features that are to be resized.
        """
        if not dataset.holds_images:
            if self.image_size is not None:
                raise DataError(
                    f"{dataset.name} holds features of width {dataset.width}, which cannot be "
                    f"resized to {self.image_size} pixels; leave the image size out"
                )
            # What float32 cannot hold becomes infinite, which Backbone.extract refuses.
            with np.errstate(over="ignore"):
                features = np.array(dataset.examples, dtype=np.float32)
            if progress:
                progress(len(dataset), len(dataset))
            return features
        first = self._pixels(dataset, 0)
        rows = np.empty((len(dataset), first.size), dtype=np.float32)
        for index in range(len(dataset)):
            pixels = self._pixels(dataset, index)
            if pixels.shape != first.shape:
                raise DataError(
                    f"{_place(dataset, index)} has the size {pixels.shape}, but "
                    f"{_place(dataset, 0)} has {first.shape}; give an image size to resize to"
                )
            rows[index] = pixels.reshape(-1)
            if progress and ((index + 1) % _BATCH == 0 or index + 1 == len(dataset)):
                progress(index + 1, len(dataset))
        return rows / np.float32(255)

    def _pixels(self, dataset: Dataset, index: int) -> NDArray[np.uint8]:
        pixels = dataset.image(index)
        if self.image_size is None:
            return pixels
        size = (self.image_size, self.image_size)
        return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Projection:
    """A random ReLU layer: relu(x @ R) with R ~ N(0, 1 / d_in), the same for the same seed."""

    dim: int
    seed: int

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) of the settings."""
        return _digest_of({"projection": self.dim, "seed": self.seed})

    def apply(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (n, d_in) to float32 (n, dim), not negative."""
        d_in = rows.shape[1]
        matrix = np.random.default_rng(self.seed).standard_normal((d_in, self.dim), np.float32)
        matrix /= np.float32(math.sqrt(d_in))
        # Rows too large for float32 become infinite, which Backbone.extract refuses.
        with np.errstate(over="ignore", invalid="ignore"):
            projected: NDArray[np.float32] = rows @ matrix
        return np.maximum(projected, 0, out=projected)


@dataclass(frozen=True)
class TimmNetwork:
    """A timm model without its classifier in evaluation mode, and how images get into it."""

    model: "torch.nn.Module" = field(repr=False)
    preprocess: Callable[[Image.Image], "torch.Tensor"] = field(repr=False)
    digest: bytes

    def extract(
        self, dataset: Dataset, cache: FeatureCache | None, progress: Progress | None
    ) -> NDArray[np.float32]:
        """Rows, float32 (n, d); equal images are computed once, and not at all if cached.

        Raises DataError for features, and for an image that cannot be read.
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
            progress(done, len(dataset))
        for batch in _batches(list(places)):
            rows = self._forward([dataset.image(places[digest]) for digest in batch])
            new = dict(zip(batch, rows, strict=True))
            # Rows that Backbone.extract will refuse must not stay in the cache.
            if cache and np.isfinite(rows).all():
                cache.put(self.digest, new)
            known.update(new)
            done += len(batch)
            if progress:
                progress(done, len(dataset))
        return np.stack([known[digest] for digest in digests])

    def _forward(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        import torch

        device = next(self.model.parameters()).device
        with torch.inference_mode():
            inputs = [self.preprocess(Image.fromarray(image).convert("RGB")) for image in images]
            rows = self.model(torch.stack(inputs).to(device))
            result: NDArray[np.float32] = rows.float().cpu().numpy()
        return result


def load_network(
    settings: str, checkpoint: Path | None = None, image_size: int | None = None
) -> TimmNetwork:
    """A timm model from `<model>[,<key>=<value>…]`, on the GPU where there is one.

    Raises ConfigError and DataError as `parse_backbone` does.
    """
    try:
        import timm
        import torch
        from timm.data.transforms_factory import create_transform
    except ImportError as error:
        raise ConfigError(
            "timm backbones need torch and timm; install 'secure-afl[vision]'"
        ) from error

    name, *pairs = settings.split(",")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ConfigError(f"timm has no model {name!r}{hint} (timm.list_models() lists them)")
    overrides, keywords = _parse_keys(settings, pairs)
    model = _create(name, keywords, checkpoint)
    config = _preprocessing(model, overrides, image_size)
    preprocess = create_transform(**config, is_training=False)
    model.eval().requires_grad_(False)
    _try_out(model, settings, config["input_size"])
    header = _digest_of({"timm": name, "keywords": keywords, "preprocessing": config})
    digest = hashlib.sha256(header + _weights_digest(model)).digest()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TimmNetwork(model.to(device), preprocess, digest)


def _create(name: str, keywords: dict[str, Any], checkpoint: Path | None) -> "torch.nn.Module":
    import timm

    try:
        model: torch.nn.Module = timm.create_model(
            name, pretrained=False, num_classes=0, **keywords
        )
    except Exception as error:  # the keywords reach code of any kind in timm
        raise ConfigError(
            f"timm cannot make the model {name!r} with {keywords or 'no keywords'}: {error}"
        ) from error
    if checkpoint is not None:
        _load_checkpoint(model, name, checkpoint)
        return model
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0, **keywords)
    except Exception as error:  # network, disk and hub errors have no common base
        raise DataError(
            f"timm's own weights of {name!r} could not be had ({error}); "
            "give a local file with --checkpoint"
        ) from error
    return model


def _load_checkpoint(model: Any, name: str, checkpoint: Path) -> None:
    """Load a state dict, with or without the classifier that was cut off; all else must match."""
    import timm

    if not checkpoint.is_file():
        raise DataError(f"checkpoint {checkpoint} is not a file; give a timm state dict")
    try:
        state = timm.models.load_state_dict(str(checkpoint), weights_only=True)
        heads = model.pretrained_cfg.get("classifier") or ()
        cut_off = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
        kept = set(model.state_dict())
        state = {
            key: value for key, value in state.items() if key in kept or not key.startswith(cut_off)
        }
        model.load_state_dict(state, strict=True)
    except Exception as error:  # a damaged file fails in pickle, zip, safetensors or torch
        reason = " ".join(str(error).split())
        raise DataError(
            f"checkpoint {checkpoint} does not load into {name!r}: {reason[:400]}; "
            "give a .safetensors or .pth state dict of this model"
        ) from error


def _preprocessing(model: Any, overrides: dict[str, Any], image_size: int | None) -> dict[str, Any]:
    from timm.data.config import resolve_model_data_config

    # Its annotations are missing in timm.
    resolve: Callable[[Any], dict[str, Any]] = resolve_model_data_config
    config = resolve(model)
    if image_size is not None:
        config["input_size"] = (config["input_size"][0], image_size, image_size)
        if "crop_pct" not in overrides:
            config |= {"crop_pct": 1.0, "crop_mode": "squash"}
    return config | overrides


def _try_out(model: Any, settings: str, input_size: tuple[int, int, int]) -> None:
    """One forward pass, so that a size the model does not take is known before any image."""
    import torch

    try:
        with torch.inference_mode():
            shape = tuple(model(torch.zeros(1, *input_size)).shape)
    except Exception as error:  # models check their input in their own ways
        raise ConfigError(
            f"timm:{settings} does not take images of {input_size[1]} × {input_size[2]} pixels "
            f"({error}); leave the image size out, or add img_size={input_size[1]}"
        ) from error
    if len(shape) != 2:
        raise ConfigError(
            f"timm:{settings} makes an array of shape {shape} of an image, not a row (1, d); "
            "leave out the keys that change the pooling"
        )


def _weights_digest(model: Any) -> bytes:
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _parse_parts(spec: str, seed: int) -> tuple[str, Projection | None]:
    """The front, `identity` or `timm:…`, and the projection."""
    front, plus, tail = spec.partition("+")
    if not plus and front.startswith("projection:"):
        front, plus, tail = "identity", "+", spec
    front_known = front == "identity" or front.startswith("timm:")
    tail_known = not plus or tail.startswith("projection:")
    if not (front_known and tail_known):
        raise ConfigError(f"backbone {spec!r} is not one of {FORMS}")
    return front, _parse_projection(tail, seed) if plus else None


def _parse_projection(part: str, seed: int) -> Projection:
    text = part.removeprefix("projection:")
    dim = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
    if not 1 <= dim <= MAX_PROJECTION:
        raise ConfigError(
            f"backbone {part!r}: dim {text!r} is not a whole number in 1..{MAX_PROJECTION}"
        )
    return Projection(dim, seed)


def _parse_keys(settings: str, pairs: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Overrides of the preprocessing, and keywords for timm.create_model."""
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


def _batches(digests: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(digests), _BATCH):
        yield digests[start : start + _BATCH]


def _place(dataset: Dataset, index: int) -> str:
    if isinstance(dataset.examples, tuple):
        return str(dataset.examples[index])
    return f"image {index} of {dataset.name}"


def _digest_of(settings: dict[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).digest()
