"""Formulas: main effects, interactions, powers, and nothing that looks at all rows."""

import pytest

from secure_afl.data.tables.formula import Factor, main_effects, parse_formula
from secure_afl.errors import ConfigError


@pytest.mark.parametrize(
    ("formula", "terms"),
    [
        ("a + b", ((Factor("a"),), (Factor("b"),))),
        ("y ~ a", ((Factor("a"),),)),
        ("a*b", ((Factor("a"),), (Factor("b"),), (Factor("a"), Factor("b")))),
        ("a + I(a**2)", ((Factor("a"),), (Factor("a", 2),))),
        ("a + {a**3}", ((Factor("a"),), (Factor("a", 3),))),
        ("log(a):b", ((Factor("a", 1, "log"), Factor("b")),)),
        ("`my col` + sqrt(b)", ((Factor("my col"),), (Factor("b", 1, "sqrt"),))),
    ],
)
def test_a_formula_is_its_terms(formula: str, terms: tuple[tuple[Factor, ...], ...]) -> None:
    assert parse_formula(formula, "y") == terms


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("a - 1", "takes the intercept out"),
        ("0 + a", "takes the intercept out"),
        ("1", "names no column"),
        ("", "names no column"),
        ("z ~ a", "predicts 'z', and the target is 'y'"),
        ("a + y", "predicts 'y' from itself"),
        ("a +* b", "cannot be read"),
        ("a + .", "cannot be read"),
        ("a + (", "cannot be read"),
        ("poly(a, 2)", "only functions of single rows"),
        ("scale(a)", "only functions of single rows"),
        ("bs(a, df=3)", "only functions of single rows"),
        ("I(a**9)", "only functions of single rows"),
        ("I(a/b)", "only functions of single rows"),
        ("__import__('os').system('x')", "allowed: names joined by"),
    ],
)
def test_what_is_no_formula_here_is_refused(formula: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parse_formula(formula, "y")
    assert "\n" not in str(refused.value)


def test_main_effects_are_all_columns() -> None:
    assert main_effects(["a", "b"]) == ((Factor("a"),), (Factor("b"),))
