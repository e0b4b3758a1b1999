"""Figures of a classifier on labelled rows: what a reader in medicine asks for."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.statistics import one_hot
from secure_afl.analytic.tally import margin
from secure_afl.errors import DataError
from secure_afl.evaluation.bootstrap import DRAWS, Interval, intervals, share
from secure_afl.evaluation.calibration import Calibration, calibrate

# Rows times classes times draws for one table of figures; more rows get fewer draws.
_WORK = 4e8
_FEWEST_DRAWS = 200


class ClassFigures(msgspec.Struct, frozen=True):
    """Figures of one class against all others.

    Attributes:
        name: of the class.
        examples: rows of the class.
        sensitivity: share of its rows that are predicted so (recall).
        specificity: share of other rows that are not.
        ppv: share of predictions of it that are right (precision).
        npv: share of other predictions that are right not to name it.
        auc: probability that a row of it scores higher for it than another row does.
    """

    name: str
    examples: int
    sensitivity: Interval | None
    specificity: Interval | None
    ppv: Interval | None
    npv: Interval | None
    auc: Interval | None


class Figures(msgspec.Struct, frozen=True):
    """Figures of a classifier on labelled rows, with 95 % intervals.

    Where no patient has two rows, a share (accuracy, sensitivity, specificity, PPV, NPV) has
    Wilson's interval. All else has the percentiles of a bootstrap, by patient where rows say whose
    they are; its bounds are null where all draws are equal, as they are where no row is wrong.

    Attributes:
        prior: which class shares the scores count on; empty for a model without a prior.
        rule: how scores become predictions.
        examples: rows.
        patients: how many they are of, whole patients being drawn for the intervals; null where
            rows do not say, which makes the intervals too narrow if there are several of one.
        accuracy: share of right predictions.
        balanced_accuracy: mean of the sensitivities of the classes that have rows.
        auc: of the second of two classes; else the mean over the classes that have rows.
        classes: one by one.
        confusion: rows by true class, then by predicted class.
        calibration: of the probabilities; null for a model without.
        uncalibrated: likewise, before the temperature.
    """

    prior: str
    rule: str
    examples: int
    patients: int | None
    accuracy: Interval
    balanced_accuracy: Interval
    auc: Interval | None
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration | None = None
    uncalibrated: Calibration | None = None


HIGHEST = "the class of the highest score"


def measure(
    scores: Floats,
    labels: Integers,
    classes: Sequence[str],
    *,
    predicted: Integers | None = None,
    patients: Sequence[str] | None = None,
    probabilities: Floats | None = None,
    raw_probabilities: Floats | None = None,
    prior: str = "",
    rule: str = HIGHEST,
    seed: int = 0,
) -> Figures:
    """Measure a classifier by its scores of labelled rows.

    Args:
        scores: (n, C), n ≥ 1; −∞ is a class that is never predicted.
        labels: (n,) int64 in 0..C−1.
        classes: names of the C classes.
        predicted: (n,), where another rule than the highest score decides.
        patients: whose each row is; None takes every row for another patient's.
        probabilities, raw_probabilities: (n, C), with the temperature and without.
        prior, rule: in words.
        seed: of the bootstrap.

    Raises:
        DataError: no rows, or lengths that differ.
    """
    if not len(labels) or scores.shape != (len(labels), len(classes)):
        raise DataError(
            f"scores are {list(scores.shape)} for {len(labels)} labels and {len(classes)} "
            "classes; allowed: [n, classes] with n ≥ 1"
        )
    if patients is not None and len(patients) != len(labels):
        raise DataError(f"{len(patients)} patients for {len(labels)} rows; give one a row")
    if predicted is None:
        predicted = scores.argmax(axis=1).astype(np.int64)
    clusters = np.arange(len(labels))
    if patients is not None:
        clusters = np.unique(np.asarray(patients), return_inverse=True)[1]
    count = len(classes)
    ranks = [_Ranks.of(margin(scores, c), labels == c) for c in range(count)]
    truth, said = one_hot(labels, count), one_hot(predicted, count)

    def figures(counts: Floats) -> Floats:
        tables: Floats = np.stack([(counts * truth[:, c]) @ said for c in range(count)], axis=1)
        aucs: Floats = np.stack([rank.auc(counts) for rank in ranks], axis=1)
        return _figures(tables, aucs)

    draws = int(np.clip(_WORK / (len(labels) * count), _FEWEST_DRAWS, DRAWS))
    found = intervals(figures, clusters, draws=draws, seed=seed)
    table = (truth.T @ said).astype(np.int64)
    if clusters.max() + 1 == len(labels):
        found = _with_shares(found, table)
    accuracy, balanced, auc, *rest = found
    assert accuracy is not None, "there are rows"
    assert balanced is not None, "some class has rows"
    by_figure = [rest[i * count : (i + 1) * count] for i in range(5)]
    return Figures(
        prior=prior,
        rule=rule,
        examples=len(labels),
        patients=None if patients is None else int(clusters.max()) + 1,
        accuracy=accuracy,
        balanced_accuracy=balanced,
        auc=auc,
        classes=tuple(
            ClassFigures(name, int(table[c].sum()), *(figure[c] for figure in by_figure))
            for c, name in enumerate(classes)
        ),
        confusion=tuple(tuple(int(n) for n in row) for row in table),
        calibration=None if probabilities is None else calibrate(probabilities, labels),
        uncalibrated=None if raw_probabilities is None else calibrate(raw_probabilities, labels),
    )


def _figures(tables: Floats, aucs: Floats) -> Floats:
    """Return accuracy, balanced accuracy, AUC, and five figures a class.

    Args:
        tables: confusion tables, (k, C, C).
        aucs: of each class, (k, C).
    """
    rows, columns = tables.sum(axis=2), tables.sum(axis=1)
    total = rows.sum(axis=1, keepdims=True)
    right = np.diagonal(tables, axis1=1, axis2=2)
    others = total - rows - columns + right
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity = right / rows
        accuracy = right.sum(axis=1, keepdims=True) / total
        # Of two classes both have one AUC.
        overall = [accuracy, _mean(sensitivity), _mean(aucs)]
        each = [sensitivity, others / (total - rows), right / columns, others / (total - columns)]
    return np.concatenate([*overall, *each, aucs], axis=1)


def _with_shares(found: list[Interval | None], table: Integers) -> list[Interval | None]:
    """Return figures in the order of `_figures`, with Wilson's intervals of those that are shares.

    Args:
        found: all of them.
        table: confusion table of rows, no two of one patient, (C, C).
    """
    right, total = table.diagonal(), table.sum()
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    others = total - rows - columns + right
    parts = np.concatenate([right, others, right, others]).tolist()
    wholes = np.concatenate([rows, total - rows, columns, total - columns]).tolist()
    shares = [share(part, whole) for part, whole in zip(parts, wholes, strict=True)]
    accuracy, aucs = share(int(right.sum()), int(total)), found[3 + len(shares) :]
    return [accuracy, *found[1:3], *shares, *aucs]


def _mean(values: Floats) -> Floats:
    """Return the mean of what is defined in each row, (k, C) to (k, 1); NaN for none."""
    known = np.isfinite(values)
    found: Floats = np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)
    return found[:, None]


class _Ranks:
    """Scores in ascending order, for the AUC of rows counted any number of times."""

    def __init__(self, order: Integers, positive: NDArray[np.bool_], starts: Integers) -> None:
        self.order, self.positive, self.starts = order, positive, starts

    @classmethod
    def of(cls, scores: Floats, positive: NDArray[np.bool_]) -> "_Ranks":
        """Sort scores (n,), with those that are positive; equal ones are one group."""
        order = np.argsort(scores, kind="stable")
        ordered = scores[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        return cls(order, positive[order], starts)

    def auc(self, counts: Floats) -> Floats:
        """Return P(positive above negative) + ½P(equal), (k,); NaN without rows of both kinds."""
        counted = counts[:, self.order]
        positive = np.add.reduceat(counted * self.positive, self.starts, axis=1)
        negative = np.add.reduceat(counted * ~self.positive, self.starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = (positive * (below + 0.5 * negative)).sum(axis=1) / pairs
        return found
