"""The settings of `secure-afl attack`, behind its flags."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from attacks.suite.adversaries import known_adversaries
from protocols.protocol import PROTOCOLS
from secure_afl.errors import ConfigError
from secure_afl.methods.method import METHODS
from secure_afl.runs.config import RunConfig
from secure_afl.runs.settings import make_config as make_run_config

# What --quick changes in the defaults.
QUICK: dict[str, object] = {"methods": ("afl",), "protocols": ("plain", "additive"), "sweep": ()}

LISTS = ("attacks", "methods", "protocols", "adversaries", "epsilons", "rows", "sweep")

# Few enough rows that those attacks work which rebuild rows.
FEW_ROWS = 40
# Curves begin here and double.
FIRST_OF_SWEEP = 20


def _about(description: str, metavar: str, **bounds: Any) -> Meta:
    return Meta(description=description, extra={"metavar": metavar}, **bounds)


class AttackConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of `secure-afl attack`.

    Attributes:
        run: the data and the parameters of the runs; method, protocol and ε are those below.
    """

    run: RunConfig = RunConfig()
    attacks: Annotated[
        tuple[str, ...], _about("Which attacks. Default: all but costly ones.", "NAME,…")
    ] = ()
    methods: Annotated[
        tuple[str, ...], _about(f"Methods attacked: {', '.join(sorted(METHODS))}.", "NAME,…")
    ] = ("afl", "fedhip")
    protocols: Annotated[
        tuple[str, ...], _about(f"Protocols attacked: {', '.join(sorted(PROTOCOLS))}.", "NAME,…")
    ] = ("plain", "additive", "pairwise", "ckks")
    adversaries: Annotated[
        tuple[str, ...],
        _about(f"Who attacks: {', '.join(known_adversaries())}. Default: all.", "NAME,…"),
    ] = ()
    epsilons: Annotated[
        tuple[Annotated[float, Meta(gt=0)], ...],
        _about("Privacy budgets to attack, beside exact sums.", "ε,…"),
    ] = ()
    rows: Annotated[
        tuple[Annotated[int, Meta(ge=0)], ...],
        _about(
            "Rows in the sums of the matrices, 'all' for half of all rows; the other half is for "
            f"comparison. Default: {FEW_ROWS}, or two a client if more, and all.",
            "N,…|all",
        ),
    ] = ()
    sweep: Annotated[
        tuple[Annotated[int, Meta(ge=0)], ...] | None,
        _about(
            f"Rows in the sums of the curves, or none. Default: {FIRST_OF_SWEEP}, and twice as "
            "many as long as there are.",
            "N,…|none",
        ),
    ] = None
    repeats: Annotated[
        int, _about("Choices of rows, each with runs of its own.", "N", ge=1, le=1000)
    ] = 1
    colluders: Annotated[
        int, _about("Clients that work with whoever receives the sum.", "N", ge=1)
    ] = 2
    candidates: Annotated[
        int,
        _about("Membership: at most N rows in the sum, N out of it.", "N", ge=10, le=100_000),
    ] = 1000
    confidence: Annotated[
        float, _about("With which all intervals hold at once.", "SHARE", ge=0.5, lt=1)
    ] = 0.95


def make_config(
    run_settings: Mapping[str, Any], settings: Mapping[str, Any], quick: bool = False
) -> AttackConfig:
    """Make the configuration of flags, whose lists are strings with commas.

    Args:
        run_settings: fields of `RunConfig`.
        settings: the other fields of `AttackConfig`.
        quick: defaults that take seconds.

    Raises:
        ConfigError: a value that is not allowed, naming the field and what may be.
    """
    read = (dict(QUICK) if quick else {}) | {n: _read(n, value) for n, value in settings.items()}
    known = {field.name: field.type for field in msgspec.structs.fields(AttackConfig)}
    for name, value in read.items():
        try:
            msgspec.convert(value, known[name])
        except msgspec.ValidationError as error:
            raise ConfigError(f"--{name} {settings.get(name)!r} is not allowed: {error}") from None
    config = msgspec.convert(read, AttackConfig)
    for name, registry in (("methods", METHODS), ("protocols", PROTOCOLS)):
        wanted = getattr(config, name)
        if unknown := [one for one in wanted if one not in registry]:
            raise ConfigError(f"--{name} {unknown[0]!r}; allowed: {', '.join(sorted(registry))}")
    run_config = make_run_config(
        run_settings, supplied=["epsilon"], methods=config.methods, protocols=config.protocols
    )
    return msgspec.structs.replace(config, run=run_config)


def _read(name: str, value: object) -> object:
    """Read a flag's value.

    Lists have commas, "all" rows are 0, and no sweep is an empty list.
    """
    if name not in LISTS or not isinstance(value, str):
        return value
    words = [word.strip() for word in value.split(",") if word.strip()]
    if name == "sweep" and words == ["none"]:
        return ()
    if not words:
        raise ConfigError(f"--{name} {value!r} is empty; name one or more, with commas between")
    if name in ("rows", "sweep"):
        return tuple(_number(name, "0" if word == "all" else word) for word in words)
    if name == "epsilons":
        return tuple(_number(name, word) for word in words)
    return tuple(words)


def _number(name: str, word: str) -> int | float:
    try:
        number = float(word) if name == "epsilons" else int(word)
        if not math.isfinite(number):
            raise ValueError(word)
        return number
    except ValueError:
        kind = "numbers" if name == "epsilons" else "whole numbers, or all,"
        raise ConfigError(f"--{name}: {word!r} is no number; allowed: {kind} with commas") from None
