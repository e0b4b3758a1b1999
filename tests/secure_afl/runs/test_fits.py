"""Fits as people read them."""

import math

import numpy as np
from msgspec.structs import replace

from secure_afl.analytic.coefficients import Coefficient, Fit
from secure_afl.evaluation.numeric import measure_numbers
from secure_afl.runs.fits import fit_table, number, numeric_lines, probability

LINEAR = Fit(
    "linear",
    "bp [mmHg]",
    (
        Coefficient("(intercept)", 89.26, 1.29, 69.0, 0.0, 86.7, 91.8),
        Coefficient("sex[male]", -0.5, None, None, None, None, None),
        Coefficient("gone", None, None, None, None, None, None),
    ),
    {"rows": 930.0, "df": 926.0, "f_statistic": 553.3, "f_df": 3.0, "f_p": 1e-9, "r_squared": 0.6},
    0.9,
    ("A note.",),
)


def test_a_linear_fit_has_intervals_and_what_there_is_not_is_a_dash() -> None:
    laid = fit_table(LINEAR)
    assert laid.title == "linear model of bp [mmHg]"
    assert laid.head == ("", "estimate", "error", "t", "p", "interval, 0.9")
    assert laid.rows == (
        ("(intercept)", "89.26", "1.29", "69", "< 0.001", "86.7 to 91.8"),
        ("sex[male]", "−0.5", "–", "–", "–", "–"),
        ("gone", "–", "–", "–", "–", "–"),
    )
    assert laid.figures == "930 rows; F(3, 926) = 553.3, p < 0.001; df 926; r squared 0.6"
    assert laid.notes == ("A note.",)


def test_columns_of_which_there_is_nothing_are_left_out() -> None:
    bare = replace(LINEAR, coefficients=LINEAR.coefficients[1:])
    laid = fit_table(bare)
    assert laid.head == ("", "estimate")
    assert laid.rows == (("sex[male]", "−0.5"), ("gone", "–"))


def test_a_logistic_fit_has_odds_ratios() -> None:
    fit = Fit(
        "logistic",
        "ill",
        (
            Coefficient("age", math.log(2), 0.1, 6.9, 0.2, 0.0, math.log(4)),
            Coefficient("far", 800.0, 900.0, 0.9, 0.4, -1000.0, 2600.0),
            Coefficient("bare", 0.0, None, None, None, None, None),
            Coefficient("tiny", 92.0, 9.0, 9.0, 0.2, 90.0, 94.0, per=0.01),
            Coefficient("huge", 1e-5, None, None, None, None, None, per=1000.0),
        ),
    )
    laid = fit_table(fit)
    assert laid.head[3:] == ("z", "p", "odds ratio, 0.95")
    assert [row[-1] for row in laid.rows] == [
        "2 (1 to 4)",
        "inf (0 to inf)",
        "1",
        "2.51 (2.46 to 2.56) per 0.01",
        "1.01 per 1000",
    ]
    assert laid.rows[0][4] == "0.200"


def test_numbers_are_short() -> None:
    assert [number(x) for x in (None, -1234567.0, 0.00012345)] == ["–", "−1.235e+06", "0.0001234"]
    assert [probability(x) for x in (None, 0.0004, 0.04)] == ["–", "< 0.001", "0.040"]


def test_figures_of_numbers_have_intervals() -> None:
    values = np.arange(50.0)
    lines = numeric_lines(measure_numbers(values + 1, values))
    assert lines["RMSE"] == "1 (–)"  # all draws are equal
    assert lines["R²"].startswith("0.9952 (0.99")
