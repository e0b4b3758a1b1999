"""The settings of `secure-afl attack`, behind its flags."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from attacks.suite.adversaries import ADVERSARIES
from secure_afl.errors import ConfigError
from secure_afl.runs.config import RunConfig
from secure_afl.runs.config import make_config as make_run_config

# What --quick changes in the defaults.
QUICK: dict[str, object] = {"methods": ("afl",), "protocols": ("plain", "additive"), "sweep": ()}

LISTS = ("attacks", "methods", "protocols", "adversaries", "epsilons", "rows", "sweep")

METHODS = ("afl", "fedhip", "fedavg", "fedsgd")
PROTOCOLS = ("plain", "additive", "pairwise", "ckks", "bfv")

# Few enough rows that those attacks work which rebuild rows.
FEW_ROWS = 40
# Curves begin here and double.
FIRST_OF_SWEEP = 20


class AttackConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `secure-afl attack` does.

    Attributes:
        run: the data and the parameters of the runs; method, protocol and ε are those below.
    """

    run: RunConfig = RunConfig()
    attacks: Annotated[
        tuple[str, ...], Meta(description="Which attacks. Default: all but costly ones.")
    ] = ()
    methods: Annotated[
        tuple[str, ...], Meta(description=f"Methods attacked: {', '.join(METHODS)}.")
    ] = ("afl", "fedhip")
    protocols: Annotated[
        tuple[str, ...], Meta(description=f"Protocols attacked: {', '.join(PROTOCOLS)}.")
    ] = ("plain", "additive", "pairwise", "ckks")
    adversaries: Annotated[
        tuple[str, ...],
        Meta(description=f"Who attacks: {', '.join(ADVERSARIES)}. Default: all."),
    ] = ()
    epsilons: Annotated[
        tuple[Annotated[float, Meta(gt=0)], ...],
        Meta(description="Privacy budgets to attack, beside exact sums."),
    ] = ()
    rows: Annotated[
        tuple[Annotated[int, Meta(ge=0)], ...],
        Meta(
            description="Rows in the sums of the matrices, 'all' for half of all rows; the other "
            f"half is for comparison. Default: {FEW_ROWS}, or two a client if more, and all."
        ),
    ] = ()
    sweep: Annotated[
        tuple[Annotated[int, Meta(ge=0)], ...] | None,
        Meta(
            description="Rows in the sums of the curves, or none. Default: "
            f"{FIRST_OF_SWEEP}, and twice as many as long as there are."
        ),
    ] = None
    repeats: Annotated[
        int, Meta(ge=1, le=1000, description="Choices of rows, each with runs of its own.")
    ] = 1
    colluders: Annotated[
        int, Meta(ge=1, description="Clients that work with whoever receives the sum.")
    ] = 2
    candidates: Annotated[
        int,
        Meta(ge=10, le=100_000, description="Membership: at most N rows in the sum, N out of it."),
    ] = 1000
    confidence: Annotated[
        float, Meta(ge=0.5, lt=1, description="With which all intervals hold at once.")
    ] = 0.95


def make_config(
    run_settings: Mapping[str, Any], settings: Mapping[str, Any], quick: bool = False
) -> AttackConfig:
    """The configuration of flags, whose lists are strings with commas.

    Args:
        run_settings: fields of `RunConfig`.
        settings: the other fields of `AttackConfig`.
        quick: defaults that take seconds.

    Raises:
        ConfigError: a value that is not allowed, naming the field and what may be.
    """
    run_config = make_run_config(dict(run_settings))
    read = {name: _read(name, value) for name, value in settings.items()}
    known = {field.name: field.type for field in msgspec.structs.fields(AttackConfig)}
    for name, value in read.items():
        try:
            msgspec.convert(value, known[name])
        except msgspec.ValidationError as error:
            raise ConfigError(f"--{name} {settings[name]!r} is not allowed: {error}") from None
    return msgspec.convert({**(QUICK if quick else {}), **read, "run": run_config}, AttackConfig)


def description(field: str) -> str:
    """A field's help text."""
    schema = msgspec.json.schema(AttackConfig)["$defs"]["AttackConfig"]["properties"]
    return str(schema[field]["description"])


def _read(name: str, value: object) -> object:
    """A flag's value: lists have commas, "all" rows are 0, and no sweep is an empty list."""
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
