"""What a run's settings say of its rows: the dictionary of tables, and how rows become short."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from secure_afl.analytic.quantise import RowMode
from secure_afl.errors import ConfigError
from secure_afl.methods.method import AnyMethod
from secure_afl.methods.scaled import Scaled
from secure_afl.runs.config import RunConfig

if TYPE_CHECKING:
    from secure_afl.data.tables.design import Design

# Settings of features that a table's columns leave no room for.
WITHOUT = (
    "backbone",
    "checkpoint",
    "image_size",
    "mapping",
    "dimension",
    "public",
    "row_mode",
)


class RowRule(NamedTuple):
    """How rows are brought to norm ≤ 1, as `Quantiser` takes it."""

    mode: RowMode = "normalise"
    clip: float = 1.0


def design_of(config: RunConfig) -> "Design | None":
    """Read the dictionary that a run names; None for a run without tables.

    Raises:
        ConfigError: as `read_design`; or no column lacks a range, and they are to be found.
    """
    if config.dictionary is None:
        return None
    # Of no use to parties without tables.
    from secure_afl.data.tables.design import read_design

    found = config.scale is not None
    file = Path(config.dictionary)
    design = read_design(file, config.target, config.formula, config.id, open=found)
    if found and not design.open:
        raise ConfigError(
            f"--scale {config.scale} has no effect: {file} has a range for every column of the "
            "model; leave it out"
        )
    return design


def row_rule(config: RunConfig) -> RowRule:
    """Return how a run's rows become short; a table's are so by their columns' ranges.

    Raises:
        ConfigError: a setting that is no rule.
    """
    if config.dictionary is not None:
        return RowRule("columns")
    text = config.row_mode or "normalise"
    word, _, norm = text.partition(":")
    try:
        clip = float(norm) if word == "clip" else 1.0
    except ValueError:
        clip = math.nan
    if word == "clip" and 1e-100 <= clip <= 1e100:
        return RowRule("clip", clip)
    if text == "normalise":
        return RowRule()
    raise ConfigError(
        f"--row-mode {text}; allowed: normalise, or clip:NORM with a public bound on lengths, as "
        "clip:8"
    )


def check_outcome(method: AnyMethod, design: "Design | None") -> None:
    """Refuse a method that cannot learn what the target is.

    Raises:
        ConfigError: a number for a method of classes, or the reverse; a method of tables alone.
    """
    if design is None:
        if isinstance(method, Scaled):
            raise ConfigError(
                "--scale federated finds ranges of a table's columns, and there is no table: give "
                "--dictionary, or leave it out"
            )
        if method.numeric:
            raise ConfigError(
                f"--method {method.name} predicts a number, which only tables have: give "
                "--dictionary and --target, or choose another method"
            )
        return
    if method.images:
        raise ConfigError(
            f"--method {method.name}, as it is set, learns from pixels, and --dictionary is of "
            "tables; choose another method"
        )
    if method.numeric != design.numeric:
        what = "a number" if design.numeric else "a category"
        fix = (
            "choose --method regression, or declare it a category"
            if design.numeric
            else "choose a method of classes, as afl or logistic, or declare it a number"
        )
        raise ConfigError(
            f"target {design.target!r} is {what}, which --method {method.name} cannot predict; "
            f"{fix}"
        )
