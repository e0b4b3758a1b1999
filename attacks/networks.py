"""Trained networks on disk: their weights and a card in one file, and a digest over both."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from secure_afl.errors import DataError

if TYPE_CHECKING:
    import torch

Card = TypeVar("Card", bound=msgspec.Struct)
Loaded = TypeVar("Loaded")
Tensors = dict[str, NDArray[Any]]


def tensors_of(network: "torch.nn.Module") -> Tensors:
    """Return a network's weights by name.

    They are contiguous, for safetensors writes the memory as it lies.
    """
    return {name: tensor.contiguous().numpy() for name, tensor in network.state_dict().items()}


def put_into(network: "torch.nn.Module", tensors: Tensors) -> None:
    """Load weights by name into a network, the inverse of `tensors_of`.

    Raises:
        RuntimeError: the weights are of another network.
    """
    import torch

    network.load_state_dict({name: torch.from_numpy(part) for name, part in tensors.items()})


def digest(tensors: Tensors, card: msgspec.Struct) -> bytes:
    """Hash the weights and the card with SHA-256 (32 bytes)."""
    hashed = hashlib.sha256(msgspec.json.encode(card))
    for name, tensor in sorted(tensors.items()):
        header = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
        hashed.update(header.encode() + tensor.tobytes())
    return hashed.digest()


def save(path: Path, tensors: Tensors, card: msgspec.Struct) -> None:
    """Write a `.safetensors` file that holds the weights, the card and the digest."""
    metadata = {
        "card": msgspec.json.encode(card).decode(),
        "digest": digest(tensors, card).hex(),
    }
    save_file(tensors, path, metadata)


def load(
    path: Path,
    card_type: type[Card],
    build: Callable[[Card, Tensors], Loaded],
    *,
    kind: str,
    what: str,
    remedy: str,
) -> Loaded:
    """Read a saved card and its weights, and return what `build` makes of them.

    Args:
        kind: what the card's own `kind` has to be.
        what, remedy: what errors call it, and what they advise.

    Raises:
        DataError: the file is missing, damaged, or of another kind.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        card = msgspec.json.decode(metadata["card"], type=card_type)
        if getattr(card, "kind", "") != kind or metadata["digest"] != digest(tensors, card).hex():
            raise ValueError("its digest does not fit its content")
        return build(card, tensors)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is no saved {what} ({error}); {remedy}") from error
