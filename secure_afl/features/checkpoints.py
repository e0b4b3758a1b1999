"""Weights of networks: out of the wrappings that training scripts save, into a timm model."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from secure_afl.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

State: TypeAlias = dict[str, "torch.Tensor"]

# Averaged weights come first, as timm has it; the others are what tutorials and trainers write.
_WRAPPINGS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict"),
    *("model", "net", "network", "weights", "params", "module", "backbone", "encoder"),
)
# What DataParallel, torch.compile and trainers put before every key.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.")
_SHOWN = 8


def create_with_weights(
    name: str, keywords: Mapping[str, Any], checkpoint: Path
) -> "torch.nn.Module":
    """Make a timm model without its classifier, with the weights of a local file.

    timm loads them as its own: position embeddings are resampled to another image size, and the
    first convolution is summed over colours for `in_chans=1`. All weights of the model have to be
    there; those of the classifier alone may be there besides.

    Raises:
        ConfigError: timm cannot make the model.
        DataError: no such file, or weights that are not this model's.
    """
    import timm

    if not checkpoint.is_file():
        raise DataError(f"checkpoint {checkpoint} is not a file; give a timm state dict")
    headless = _skeleton(name, keywords, num_classes=0)
    content: Any = None
    try:
        content = _read(checkpoint)
        state = unwrap(content, set(headless.state_dict()))
        cut_off = _classifier_keys(name, keywords, headless)
        state = {
            key: value
            for key, value in state.items()
            if key in headless.state_dict() or not cut_off(key)
        }
        if not state:
            raise ValueError("it has no weights")
        # A classifier of 0 classes is the model's own, so that timm is strict about all others.
        as_its_own = {"state_dict": state, "num_classes": 0, "classifier": None, "source": ""}
        model: torch.nn.Module = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=as_its_own, num_classes=0, **keywords
        )
    except Exception as error:  # a damaged file fails in pickle, zip, safetensors or torch
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"checkpoint {checkpoint} does not load into {name!r}: {reason[:400]}; "
            f"{_contents(content)}give a .safetensors or .pth state dict of this model, as "
            "torch.save(model.state_dict(), FILE) writes it"
        ) from error
    config: Any = model.pretrained_cfg
    config.pop("state_dict", None)
    return model


def unwrap(content: Any, wanted: Iterable[str]) -> State:
    """Find a model's weights among what a training script saved, by the keys that it wants.

    Raises:
        ValueError: no weights, or two sets that both could be meant.
    """
    keys = sorted(wanted)
    found = list(_states(content, ""))
    if not found:
        raise ValueError("it holds no weights by name")
    scored = [(_matching(state, keys), place, state) for place, state in found]
    best = max(count for (count, _), _, _ in scored)
    if best == 0:
        # The file may have the names of another library, which timm's filter knows.
        return _without_common_prefixes(_preferred(found), keys)
    complete = [(place, state) for (count, _), place, state in scored if count == best]
    state = _preferred(complete)
    prefixes = [prefix for prefix in _prefixes(state, keys) if _count(state, prefix, keys) == best]
    if len(prefixes) > 1:
        raise ValueError(
            f"its keys begin with {' or '.join(map(repr, prefixes))}; keep one of them"
        )
    (prefix,) = prefixes
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _read(checkpoint: Path) -> Any:
    """Read a file without running anything that it holds."""
    if checkpoint.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(checkpoint)
    import torch

    return torch.load(checkpoint, map_location="cpu", weights_only=True)


def _skeleton(name: str, keywords: Mapping[str, Any], num_classes: int | None) -> Any:
    """Make a model for its names alone, without weights where torch can."""
    import timm
    import torch

    own: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, **own, **keywords)
    except Exception:  # models that compute with their weights as they are made
        try:
            return timm.create_model(name, pretrained=False, **own, **keywords)
        except Exception as error:  # the keywords reach code of any kind in timm
            raise ConfigError(
                f"timm cannot make the model {name!r} with {keywords or 'no keywords'}: {error}"
            ) from error


def _classifier_keys(name: str, keywords: Mapping[str, Any], headless: Any) -> Any:
    """Return what says whether a key is of the classifier that was cut off."""
    whole = set(_skeleton(name, keywords, None).state_dict()) - set(headless.state_dict())
    heads = headless.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    return lambda key: key in whole or key.startswith(prefixes)


def _states(content: Any, place: str, depth: int = 2) -> Iterable[tuple[str, State]]:
    """Yield every mapping of names to tensors, with the keys that lead to it."""
    import torch

    if not isinstance(content, Mapping):
        return
    tensors = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }
    if tensors:
        yield place, tensors
    if depth:
        for key, value in content.items():
            yield from _states(value, f"{place}/{key}" if place else str(key), depth - 1)


def _preferred(found: list[tuple[str, State]]) -> State:
    """Return the first by the order of wrappings; of others the largest."""
    for wrapping in ("", *_WRAPPINGS):
        for place, state in found:
            if place == wrapping:
                return state
    return max((state for _, state in found), key=len)


def _matching(state: State, keys: list[str]) -> tuple[int, str]:
    """Return the most wanted keys that are there under one prefix, and the prefix."""
    return max((_count(state, prefix, keys), prefix) for prefix in _prefixes(state, keys))


def _prefixes(state: State, keys: list[str]) -> list[str]:
    """List what may stand before every key: by the first wanted key that is there at all."""
    for key in keys:
        ends = [have for have in state if have == key or have.endswith(f".{key}")]
        if ends:
            return sorted({have[: len(have) - len(key)] for have in ends})
    return [""]


def _count(state: State, prefix: str, keys: list[str]) -> int:
    return sum(prefix + key in state for key in keys)


def _without_common_prefixes(state: State, keys: list[str]) -> State:
    """Take off what wrappers put before every key, unless the model's own keys begin so."""
    while prefix := next(
        (
            prefix
            for prefix in _PREFIXES
            if all(key.startswith(prefix) for key in state)
            and not any(key.startswith(prefix) for key in keys)
        ),
        None,
    ):
        state = {key[len(prefix) :]: value for key, value in state.items()}
    return state


def _contents(content: Any) -> str:
    """Say what a file holds at its top, and what to take out of it."""
    if not isinstance(content, Mapping) or not content:
        return "" if content is None else f"the file holds a {type(content).__name__}; "
    keys = [
        f"{key} ({len(value)} entries)" if isinstance(value, Mapping) else str(key)
        for key, value in list(content.items())[:_SHOWN]
    ]
    more = f", … ({len(content)} in all)" if len(content) > _SHOWN else ""
    inner = [str(key) for key, value in content.items() if isinstance(value, Mapping)]
    advice = f"unwrap what is under {' or '.join(inner[:3])}, or " if inner else ""
    return f"the file's top keys are {', '.join(keys)}{more}; {advice}"
