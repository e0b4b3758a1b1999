"""Which columns a model has: main effects, interactions and powers, by a formula."""

import ast
from collections.abc import Iterable
from typing import Any, NamedTuple

from secure_afl.errors import ConfigError

MAX_POWER = 5
_FORMS = (
    "names joined by +, interactions a:b or a*b, powers I(a**2) to I(a**5), log(a) and sqrt(a); "
    "names with spaces in `backticks`"
)
FUNCTIONS = ("log", "sqrt")


class Factor(NamedTuple):
    """A column, or a function of one.

    Attributes:
        column: its name.
        power: 1 or more.
        function: `log`, `sqrt`, or nothing.
    """

    column: str
    power: int = 1
    function: str = ""


Term = tuple[Factor, ...]


def main_effects(names: Iterable[str]) -> tuple[Term, ...]:
    """Return the terms of a formula that joins all names by +."""
    return tuple((Factor(name),) for name in names)


def parse_formula(formula: str, target: str) -> tuple[Term, ...]:
    """Read the right side of a Wilkinson formula; the intercept belongs to every model.

    Args:
        formula: `a + b + a:b`, or `target ~ a + b`.
        target: name of the column that is predicted.

    Raises:
        ConfigError: no formula, one without the intercept, or a function that would look at all
            rows, which no site has.
    """
    try:
        from formulaic.errors import FormulaicError
        from formulaic.parser import DefaultFormulaParser
    except ImportError:
        raise ConfigError("--formula needs formulaic: pip install 'secure-afl[tables]'") from None
    left, tilde, right = formula.partition("~")
    if tilde and left.strip().strip("`") != target:
        raise ConfigError(
            f"formula {formula!r} predicts {left.strip()!r}, and the target is {target!r}; leave "
            "the left side out, or correct it"
        )
    try:
        parsed = DefaultFormulaParser().get_terms(right if tilde else formula)
        found: list[Any] = list(parsed)
    except (FormulaicError, SyntaxError):
        raise ConfigError(f"formula {formula!r} cannot be read; allowed: {_FORMS}") from None
    terms = [tuple(_factor(formula, one) for one in term.factors) for term in found]
    if (Factor("1"),) not in terms:
        raise ConfigError(
            f"formula {formula!r} takes the intercept out; every model here has one: leave 0 and "
            "-1 out"
        )
    kept = tuple(term for term in terms if term != (Factor("1"),))
    if not kept:
        raise ConfigError(f"formula {formula!r} names no column; allowed: {_FORMS}")
    for term in kept:
        for factor in term:
            if factor.column == target:
                raise ConfigError(
                    f"formula {formula!r} predicts {target!r} from itself; take it out"
                )
    return kept


def _factor(formula: str, factor: Any) -> Factor:
    """Read one factor of a term, as formulaic's parser gives it."""
    expression = str(factor.expr)
    if factor.eval_method.value in ("lookup", "literal"):
        return Factor(expression)
    try:
        tree: ast.expr = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise _refused(formula, expression) from None
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and len(tree.args) == 1:
        function, inner = tree.func.id, tree.args[0]
        if function in FUNCTIONS and isinstance(inner, ast.Name):
            return Factor(inner.id, 1, function)
        if function == "I":
            tree = inner
    match tree:
        case ast.BinOp(ast.Name(name), ast.Pow(), ast.Constant(int(power))) if (
            1 <= power <= MAX_POWER
        ):
            return Factor(name, power)
    raise _refused(formula, expression)


def _refused(formula: str, part: str) -> ConfigError:
    return ConfigError(
        f"formula {formula!r}: {part!r} is not allowed, for only functions of single rows with "
        f"known ranges are; allowed: {_FORMS}"
    )
