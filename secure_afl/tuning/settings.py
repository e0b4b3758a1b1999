"""The settings of `secure-afl tune`, behind its flags."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from protocols.registry import options_of
from secure_afl.errors import ConfigError
from secure_afl.runs.settings import flag

DEFAULT_EPSILONS = (0.1, 0.5, 1.0, 2.0, 8.0)

Baseline = Literal["none", "default", "sweep"]


def _list(description: str, metavar: str) -> Meta:
    return Meta(description=description, extra={"metavar": metavar})


class Sweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Varied settings; every field is a flag of the same name.

    The flags' lists have commas.
    """

    epsilons: Annotated[
        tuple[float, ...],
        _list(f"Values of ε. Default: {','.join(f'{e:g}' for e in DEFAULT_EPSILONS)}.", "ε,…"),
    ] = DEFAULT_EPSILONS
    seeds: Annotated[
        int,
        Meta(
            ge=1,
            description="Runs of each setting; a seed also governs the partition. Default: 3.",
            extra={"metavar": "N"},
        ),
    ] = 3
    bits: Annotated[tuple[int, ...], _list("Also try these feature bits.", "N,…")] = ()
    ridges: Annotated[tuple[float, ...], _list("Also try these λ.", "λ,…")] = ()
    cross_weights: Annotated[
        tuple[float, ...], _list("Also try these weights of the cross term.", "W,…")
    ] = ()
    dimensions: Annotated[
        tuple[int, ...], _list("Also try these dimensions; 0 is all.", "N,…")
    ] = ()
    methods: Annotated[tuple[str, ...], _list("Also try these methods.", "NAME,…")] = ()
    sums: Annotated[
        tuple[int, ...],
        _list("Also try these numbers of blind sums, with methods that have --rounds.", "N,…"),
    ] = ()
    baseline: Annotated[
        Baseline,
        Meta(
            description="DP-SGD with Opacus on the same features: not at all, with settings that "
            "look at no data, or with some others too. Default: default."
        ),
    ] = "default"
    audit_tests: Annotated[
        int,
        Meta(
            ge=0,
            description="Canaries for the audit at each ε; 0 for none. Default: 100000.",
            extra={"metavar": "N"},
        ),
    ] = 100_000


def make_sweep(settings: Mapping[str, Any]) -> Sweep:
    """Make a sweep from flags.

    Raises:
        ConfigError: a value that is not allowed, naming the flag and what may be.
    """
    given = {name: _read(name, value) for name, value in settings.items()}
    try:
        return msgspec.convert(given, Sweep)
    except msgspec.ValidationError as error:
        name = next((n for n in given if f"$.{n}" in str(error)), "tune")
        allowed = "none, default, sweep" if name == "baseline" else str(error)
        raise ConfigError(f"{flag(name)} {settings.get(name)}; allowed: {allowed}") from None


def _read(name: str, value: Any) -> Any:
    declared = str(options_of(Sweep)[name].type)
    kind = float if "float" in declared else int
    if "tuple" not in declared or not isinstance(value, str):
        return value
    if "str" in declared:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    try:
        return tuple(kind(part) for part in value.split(",") if part.strip())
    except ValueError:
        numbers = "numbers" if kind is float else "whole numbers"
        raise ConfigError(
            f"{flag(name)} {value!r}; allowed: {numbers} with commas between"
        ) from None
