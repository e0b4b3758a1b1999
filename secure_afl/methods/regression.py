"""Linear regression over one blind sum, as of all rows in one place."""

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import numpy as np
from msgspec import Meta

from protocols.layout import Integers, Layout
from secure_afl.analytic.coefficients import Fit
from secure_afl.analytic.heads.head import AUTO
from secure_afl.analytic.heads.ridge import MAX_RIDGE
from secure_afl.analytic.least_squares import least_squares
from secure_afl.analytic.noisy_least_squares import (
    NoisyMoments,
    RegressionNoise,
    noisy_least_squares,
)
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.regression_sums import (
    CROSS,
    GRAM,
    ROWS,
    SUMS,
    TARGET_SQUARES,
    TARGET_SUM,
    RegressionSums,
    regression_layout,
)
from secure_afl.analytic.rounding import about_coarse
from secure_afl.analytic.rows import ClientData, check_rows
from secure_afl.checks import settle_float
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import METHODS, Method, PublicState, Task
from secure_afl.methods.regression_fit import (
    RegressionFit,
    Units,
    name_fit,
    report_fit,
    report_noisy,
)
from secure_afl.methods.regression_model import RegressionModel
from secure_afl.methods.summed import RidgeSetting
from secure_afl.privacy.mechanism import NoisySum, Privacy
from secure_afl.privacy.sensitivity import Sensitivity, regression_sensitivity

Level: TypeAlias = Annotated[
    float,
    Meta(
        ge=0.5,
        le=0.9999,
        description="of the coefficients' intervals.",
        extra={"metavar": "SHARE"},
    ),
]


class RegressionPublic(PublicState, frozen=True, eq=False):
    """The task, and after the sum the fit; nothing else of the sum."""

    fit: RegressionFit | None = None


# Standard deviation of rounding, over that of what is unexplained: errors grow by half its square.
_DOUBTFUL_SPREAD = 0.1
_NARROWER = (
    "The target's range is far wider than its values need, or columns' are: declare narrower ones."
)


@METHODS.register
class Regression(Method[RegressionPublic], frozen=True, tag="regression"):
    """Least squares with an intercept from all second moments of (X | 1 | t), one sum.

    Attributes:
        ridge: λ, 0 to 1e9, in squared norms of rows; None is 0, which is least squares.
        level: of the intervals, 0.5 to 0.9999.
    """

    name = "regression"
    summary = "linear regression of a number, with standard errors, from one sum"
    public = RegressionPublic
    row_additive = True
    hides_patients = True
    releases_statistics = True
    numeric = True
    fine_rows = True
    ignores = ("same_set", "cross_weight")
    ridge: RidgeSetting = None
    level: Level = 0.95

    def __post_init__(self) -> None:
        if self.ridge == AUTO:
            raise ConfigError(
                "--ridge auto with regression, whose λ no sum chooses; allowed: 0..1e9, 0 being "
                "least squares"
            )
        if self.ridge is not None:
            settle_float(self, "ridge", 0, MAX_RIDGE)
        settle_float(self, "level", 0.5, 0.9999)

    @property
    def penalty(self) -> float:
        """λ, in squared norms of the rows, which are ≤ 1."""
        return 0.0 if self.ridge is None or self.ridge == AUTO else self.ridge

    def least_rows(self, features: int) -> int:
        """Return d + 2: errors take a row beyond the columns and the intercept."""
        return features + 2

    def begin(self, task: Task) -> RegressionPublic:
        """Return the task with no fit yet.

        Raises:
            ConfigError: columns whose rows are normalised or cut, columns without a target, or
                several classes.
        """
        columns, quantiser = task.columns, task.quantiser
        if columns is not None and quantiser.mode != "columns":
            raise ConfigError(
                f"row mode {quantiser.mode!r} with columns, whose scales it would undo; allowed: "
                "'columns'"
            )
        if columns is not None and columns.target is None:
            raise ConfigError(
                "the columns have no target, the number that is to be predicted; name one with "
                "--target"
            )
        if len(task.classes) != 1:
            raise ConfigError(
                f"{len(task.classes)} classes with regression, which predicts a number; allowed: "
                "the target's name alone. Name a column of numbers, or take --method afl"
            )
        return RegressionPublic(task)

    def layout(self, public: RegressionPublic) -> Layout | None:
        """Return the layout of the sums over all rows; None once the fit is there.

        Raises:
            WouldOverflow: no ring holds that many rows at the quantiser's bits.
        """
        return None if public.fit is not None else _layout(public.task)

    def sensitivity(self, public: RegressionPublic, privacy: Privacy) -> Sensitivity:
        """Bound how far one example, patient or client moves the sums."""
        task = public.task
        return regression_sensitivity(
            task.quantiser.scale,
            task.quantiser.label_scale,
            _mark(task),
            privacy.unit,
            privacy.neighbours,
            task.client_rows,
        )

    def contribute(
        self, public: RegressionPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Pack the client's integer sums as int64; memory and entropy go unused.

        Raises:
            DataError: rows without targets, no rows or more than 2^29, features not finite, or rows
                that do not say whose they are where patients are the unit.
        """
        check_rows(data.features, data.labels, 1)
        targets = known_targets(data)
        task = public.task
        each = task.rows_each(data)
        return RegressionSums.of(data.features, targets, task.quantiser, _mark(task), each).pack()

    def absorb(
        self, public: RegressionPublic, total: Integers, included: tuple[str, ...]
    ) -> RegressionPublic:
        """Fit least squares to the sum; with noise, by public numbers.

        Raises:
            NoModel: it has no more rows than columns and an intercept, where it is exact.
        """
        task = public.task
        sums = RegressionSums.unpack(total, _layout(task))
        units = Units.of(task.columns, task.feature_dim, task.quantiser)
        if task.mechanism is not None:
            moments = _noisy(task, self.sensitivity(public, task.mechanism.privacy), sums, included)
            noisy = noisy_least_squares(moments, self.penalty)
            return RegressionPublic(task, report_noisy(noisy, units, task.quantiser, self.level))
        fit = least_squares(sums, self.penalty * task.quantiser.reach**2)
        return RegressionPublic(task, report_fit(fit, units, task.quantiser, self.level))

    def fits(self, public: RegressionPublic) -> tuple[Fit, ...]:
        """Return the one fit, with what its reader should know."""
        fit, task = public.fit, public.task
        if fit is None:
            return ()
        notes = []
        if task.mechanism is not None:
            notes.append(_about_noise(fit, ridge=self.penalty > 0))
        elif self.penalty > 0:
            notes.append(
                "Ridge draws coefficients to 0: errors are of their spread alone, without that "
                "bias, and there are no tests or intervals."
            )
        if task.columns is None and task.quantiser.mode == "normalise":
            notes.append("Every row was brought to norm 1 first: coefficients are of such rows.")
        notes += self.remarks(public)
        return (name_fit(fit, task.columns, task.classes[0], self.level, tuple(notes)),)

    def remarks(self, public: RegressionPublic) -> tuple[str, ...]:
        """Say where rounding is as large as what the model leaves unexplained."""
        if public.fit is None or public.task.mechanism is not None:
            return ()
        figures = dict(public.fit.figures)
        if figures["null_deviance"] <= 0:
            return (
                "The target is the same in all rows, as far as rounding lets tell, and so is every "
                f"prediction. {_NARROWER}",
            )
        if figures["residual_deviance"] <= 0:
            return (f"The model leaves less unexplained than rounding makes. {_NARROWER}",)
        said = list(about_coarse(public.fit.coarse, public.task.columns))
        if (spread := figures["rounding_spread"]) > _DOUBTFUL_SPREAD:
            said.append(
                f"Rounding is {spread:.2g} of what the model leaves unexplained, where "
                f"{_DOUBTFUL_SPREAD:g} would do no harm: estimates, errors and intervals may be "
                f"wrong. {_NARROWER}"
            )
        return tuple(said)

    def model(self, public: RegressionPublic) -> RegressionModel:
        """Return the model; call it after the sum."""
        fit, task = public.fit, public.task
        assert fit is not None, "the model exists after the sum"
        return _model(task, fit.weights, fit.offset)

    def unrounded(self, task: Task, clients: Sequence[ClientData]) -> RegressionModel:
        """Fit the same to these rows in one place, in float64 and not rounded."""
        from scipy.linalg import lstsq

        rows = np.concatenate([task.quantiser.scaled(data.features) for data in clients])
        targets = np.concatenate([known_targets(data) for data in clients])
        means, mean = rows.mean(axis=0), targets.mean()
        left, right = rows - means, targets - mean
        if self.penalty > 0:
            root = np.sqrt(self.penalty) * np.eye(task.feature_dim)
            left, right = np.vstack([left, root]), np.append(right, np.zeros(task.feature_dim))
        weights = np.asarray(lstsq(left, right)[0])
        target = None if task.columns is None else task.columns.target
        centre, half = (0.0, 1.0) if target is None else (target.centre, target.half)
        offset = centre + half * float(mean - means @ weights)
        return _model(task, half * weights, offset)


def _mark(task: Task) -> int:
    """Return A: with noise the constant is as long as a target, that N has steps enough."""
    return 1 if task.mechanism is None else task.quantiser.label_scale


def _layout(task: Task) -> Layout:
    return regression_layout(
        task.feature_dim, task.quantiser, task.total_rows, task.client_rows, _mark(task)
    )


def _noisy(
    task: Task, sensitivity: Sensitivity, sums: RegressionSums, included: tuple[str, ...]
) -> NoisyMoments:
    """Bring noisy sums to units of rows of norm ≤ 1, with the noise that so many shares make."""
    mechanism, layout = task.mechanism, _layout(task)
    assert mechanism is not None, "the task has noise"
    unit, more = layout.units, mechanism.surplus(len(included))
    stds = NoisySum(mechanism, layout, sensitivity).scaled_stds
    noise = {name: std * more for name, std in stds.items()}
    kinds = (GRAM, CROSS, SUMS, ROWS, TARGET_SUM, TARGET_SQUARES)
    return NoisyMoments(
        np.asarray(sums.gram * unit[GRAM], dtype=np.float64),
        np.asarray(sums.cross * unit[CROSS], dtype=np.float64),
        np.asarray(sums.sums * unit[SUMS], dtype=np.float64),
        sums.rows * unit[ROWS],
        sums.target_sum * unit[TARGET_SUM],
        sums.target_squares * unit[TARGET_SQUARES],
        RegressionNoise(*(noise[kind] for kind in kinds)),
    )


def _about_noise(fit: RegressionFit, *, ridge: bool) -> str:
    """Say what noise does to a fit's errors."""
    if np.isfinite(fit.errors).any():
        return (
            "Errors, tests and intervals count the noise in; the number of rows and the figures "
            "carry it."
        )
    if ridge:
        return "Ridge on a noisy sum: its errors are not known, and there are none."
    return (
        "The noise of this sum is too large beside what the columns vary: coefficients are drawn "
        "to 0 by public numbers, and no interval would mean anything. More rows, fewer columns, "
        "narrower ranges or a larger --epsilon would help."
    )


def _model(task: Task, weights: Floats, offset: float) -> RegressionModel:
    rows = task.quantiser.of_floats
    return RegressionModel(weights[:, None], task.classes, offset, rows, task.columns)


def known_targets(data: ClientData) -> Floats:
    """Return the number that is to be predicted of each row.

    Raises:
        DataError: rows have none.
    """
    if data.targets is None:
        raise DataError(
            f"client '{data.name}' has no targets, and a regression predicts a number; give "
            "ClientData(…, targets=…) in [−1, 1], or take a method for classes"
        )
    return np.asarray(data.targets)
