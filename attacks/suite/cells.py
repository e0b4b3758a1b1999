"""The cells of the leakage matrix, and the folder that they are kept in."""

import base64
import io
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attacks.attack import Measure, Picture

CELLS = "cells.jsonl"
RESULTS = "results.json"


class Gallery(msgspec.Struct, frozen=True):
    """A true image beside what an attack rebuilt, both PNG in base64."""

    caption: str
    true: str
    rebuilt: str


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One attack by one adversary on one run.

    Attributes:
        key: SHA-256 of all that the cell depends on, hex.
        attack, method, protocol, adversary: names.
        epsilon: of differential privacy; null for exact sums.
        mu: of the Gaussian trade-off curve that ε and δ allow; null for exact sums.
        rows: in the sum.
        repeat: which choice of rows, from 0.
        coalition: names of the adversary's parties.
        claimed: the view held something to attack; if not, the measures are those of guessing.
        wants, assumes: as the attack declares them.
        measures: the first is the headline.
        roc: false and true positive rates of membership, at most one a threshold.
        confidence: with which all intervals of this cell hold together.
        seconds: of claiming; the run and the judging are not in it, nor what an earlier cell made.
        error: why there is no result; null where there is one.
        refused: the attack could not be tried, for want of what `error` says; it did not fail.
        images: what the attack rebuilt.
    """

    key: str
    attack: str
    method: str
    protocol: str
    adversary: str
    epsilon: float | None = None
    mu: float | None = None
    rows: int
    repeat: int
    coalition: tuple[str, ...] = ()
    claimed: bool = False
    wants: str = ""
    assumes: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()
    roc: tuple[tuple[float, float], ...] = ()
    confidence: float = 0.95
    seconds: float = 0.0
    error: str | None = None
    refused: bool = False
    images: tuple[Gallery, ...] = ()


def success(measure: Measure) -> float:
    """Place a measure between guessing, 0, and complete success, 1; clipped to 0..1."""
    span = measure.best - measure.chance
    if span == 0:
        return 0.0
    return float(np.clip((measure.value - measure.chance) / span, 0.0, 1.0))


def is_one_trial(measure: Measure) -> bool:
    """Say whether a measure counts one thing, or none: it shows what can be, and nothing surely."""
    return measure.trials < 2


def above_chance(measure: Measure) -> bool:
    """Say whether the whole interval lies on the better side of guessing.

    One trial never does: its interval rests on what was not seen.
    """
    if is_one_trial(measure):
        return False
    if measure.best >= measure.chance:
        return measure.low > measure.chance
    return measure.high < measure.chance


def averaged(measures: Iterable[Measure]) -> Measure:
    """Average one measure over repeats: the mean, between the means of the bounds.

    Where every interval covers its own true value, the mean of the intervals covers the mean of
    those; it is wider than an interval for the mean would have to be.
    """
    found = list(measures)
    first = found[0]

    def mean(name: str) -> float:
        return float(np.mean([getattr(measure, name) for measure in found]))

    return msgspec.structs.replace(
        first,
        **{name: mean(name) for name in ("value", "low", "high", "chance", "best")},
        trials=sum(measure.trials for measure in found),
        confidence=min(measure.confidence for measure in found),
    )


def gallery(picture: Picture) -> Gallery:
    """Make a picture as it is kept in a cell."""
    return Gallery(picture.caption, _png(picture.true), _png(picture.rebuilt))


def _png(image: NDArray[np.floating[Any]]) -> str:
    pixels = np.rint(np.clip(np.nan_to_num(image), 0.0, 1.0) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def is_done(cell: Cell | None, confidence: float) -> bool:
    """Say whether a cell is without error, and its intervals no narrower than wanted."""
    return cell is not None and cell.error is None and cell.confidence >= confidence
