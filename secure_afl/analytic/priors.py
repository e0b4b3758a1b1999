"""Class priors: how often classes are expected where a model is used."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError

OBSERVED, UNIFORM = "observed", "uniform"

# Of a class's noisy share, in units of an equal one: a class that noise hides is not ruled out.
_LEAST_SHARE = 0.05

# A word, or shares by class name as sorted pairs.
Prior: TypeAlias = str | tuple[tuple[str, float], ...]


def settle_prior(prior: Prior | Mapping[str, float]) -> Prior:
    """Return a prior in its canonical form: a word, or sorted pairs of finite shares ≥ 0.

    Raises:
        ConfigError: another word, or numbers that are no shares.
    """
    if isinstance(prior, str):
        if prior not in (OBSERVED, UNIFORM):
            raise ConfigError(
                f"prior is {prior!r}, allowed: {OBSERVED}, {UNIFORM}, or a share for each class"
            )
        return prior
    try:
        pairs = sorted((str(name), float(share)) for name, share in dict(prior).items())
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(
            f"prior is {prior!r}, allowed: {OBSERVED}, {UNIFORM}, or a share for each class"
        ) from None
    shares = [share for _, share in pairs]
    if not shares or not all(0 <= share < float("inf") for share in shares) or sum(shares) <= 0:
        raise ConfigError("a prior has a finite share ≥ 0 for each class, and one above 0")
    return tuple(pairs)


def read_prior(text: str) -> Prior:
    """Read a prior from its word, or from the JSON file {"class": share} that `text` names.

    Raises:
        ConfigError: neither a word nor such a file.
    """
    if text in (OBSERVED, UNIFORM):
        return text
    path = Path(text)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not all(
            isinstance(share, int | float) and not isinstance(share, bool)
            for share in content.values()
        ):
            raise ValueError("not an object of numbers")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"prior {text!r} is neither {OBSERVED} nor {UNIFORM} nor a readable JSON file "
            f'{{"class": share, …}}: {error}'
        ) from None
    return settle_prior(content)


def prior_shares(prior: Prior, classes: Sequence[str], observed: Floats) -> Floats:
    """Return the shares of a prior in the order of the classes, (C,), summing to 1.

    Args:
        observed: shares of the classes in the sum, (C,).

    Raises:
        ConfigError: shares for other classes than these.
    """
    if prior == OBSERVED:
        return observed
    if prior == UNIFORM:
        return np.full(len(classes), 1.0 / len(classes))
    assert not isinstance(prior, str), "all words are known"
    check_prior(prior, classes)
    shares = np.array([dict(prior)[name] for name in classes])
    # Exactly rounded, and so the same in any order of the classes.
    normalised: Floats = shares / math.fsum(shares)
    return normalised


def check_prior(prior: Prior, classes: Sequence[str]) -> None:
    """Raise ConfigError unless a prior of shares has one for each of the classes, and no other."""
    if isinstance(prior, str):
        return
    named = {name for name, _ in prior}
    odd = sorted(named ^ set(classes))
    if odd:
        verb = "has a share for" if odd[0] in named else "has no share for"
        raise ConfigError(
            f"the prior {verb} class {odd[0]!r}; allowed: a share for each of {list(classes)}"
        )


def drawn_together(counts: Sequence[float], std: float) -> list[float]:
    """Return noisy class counts, drawn to equal ones as far as noise explains their spread.

    With m the mean count, s² the spread Σ(n − m)² and σ the noise of a count, the excess over m is
    multiplied by max(0, 1 − ((C − 1) + 2√(2(C − 1)))·σ²/s²): what is beyond two standard deviations
    of the spread of noise alone remains (after James and Stein 1961). None falls below m/20.

    Args:
        counts: C ≥ 1 finite numbers.
        std: σ ≥ 0.

    Returns:
        C numbers > 0; ones where the mean is not above 0.
    """
    classes = len(counts)
    mean = math.fsum(counts) / classes
    if mean <= 0:
        return [1.0] * classes
    spread = math.fsum((entry - mean) ** 2 for entry in counts)
    by_chance = ((classes - 1) + 2 * math.sqrt(2 * (classes - 1))) * std**2
    kept = max(0.0, 1 - by_chance / spread) if spread else 0.0
    return [max(mean + kept * (entry - mean), _LEAST_SHARE * mean) for entry in counts]
