"""Whatever the privacy room makes refuses values that cannot be meant, by name and range."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.layout import Block, Layout
from secure_afl.analytic.private_lda import SumNoise
from secure_afl.errors import ConfigError
from secure_afl.methods import PrivateGradient
from secure_afl.privacy import accounting
from secure_afl.privacy.ledger import Budget
from secure_afl.privacy.mechanism import Mechanism, NoisySum, Privacy
from secure_afl.privacy.schedule import Schedule, planned_steps, schedule, strength
from secure_afl.privacy.sensitivity import (
    Sensitivity,
    layer_sensitivity,
    statistics_sensitivity,
    update_sensitivity,
)
from secure_afl.tuning.audit import Cohort
from secure_afl.tuning.canaries import Canaries, Canary

PRIVACY = Privacy(1.0)
NOISY = Mechanism(PRIVACY, rounds=1, clients=10, dropouts=1, colluders=1)
BOUNDED = Sensitivity(1.0, (("a", 1.0),))
CANARY = Canary(np.ones((1, 3)), np.empty((0, 3)))

# Numbers beside those that a field's own range leaves out, and other types.
WRONG_TYPE: tuple[Any, ...] = (True, "1", [1], {}, b"1", 1j)
NO_FLOAT: tuple[Any, ...] = (math.nan, math.inf, -math.inf, -1, -1e-300, 10**400, *WRONG_TYPE)
NO_NUMBER: tuple[Any, ...] = (math.nan, -math.inf, -1, *WRONG_TYPE)
NO_COUNT: tuple[Any, ...] = (*NO_FLOAT, 1.5)
NO_WORD: tuple[Any, ...] = (None, 0, 1.5, True, "", "Example", "row", [1])
NO_OBJECT: tuple[Any, ...] = (None, 0, math.nan, "privacy", [1], {})


class Made(NamedTuple):
    """What is made, with values that are allowed, and by field those that are not."""

    make: Callable[..., Any]
    allowed: Mapping[str, Any]
    refused: Mapping[str, tuple[Any, ...]]


KIND: dict[str, Any] = {"unit": "example", "neighbours": "add-remove"}
WORDS = {"unit": NO_WORD, "neighbours": NO_WORD}
ROWS = {"total_rows": 40, "client_rows": 4}
NO_ROWS = {"total_rows": (0, None, *NO_COUNT), "client_rows": (0, None, *NO_COUNT)}
TABLE: dict[str, Made] = {
    "Privacy": Made(
        Privacy,
        {"epsilon": 1.0},
        {
            "epsilon": (0, 20.1, None, *NO_FLOAT),
            "delta": (0, 0.2, None, *NO_FLOAT),
            "cross_weight": (0, 21, *NO_FLOAT),
            "counts_weight": (0, 21, *NO_FLOAT),
            "placement": NO_WORD,
            **WORDS,
        },
    ),
    "Mechanism": Made(
        Mechanism,
        {"privacy": PRIVACY, "rounds": 1, "clients": 10, "dropouts": 1, "colluders": 1},
        {
            "privacy": NO_OBJECT,
            "rounds": (0, None, *NO_COUNT),
            "clients": (0, None, *NO_COUNT),
            "dropouts": (None, *NO_COUNT),
            "colluders": (0, None, *NO_COUNT),
            "noise_multiplier": (0, None, *NO_FLOAT),
            "mu": (0, None, *NO_FLOAT),
            "distance": (2.1, None, *NO_FLOAT),
        },
    ),
    "NoisySum": Made(
        NoisySum,
        {"mechanism": NOISY, "layout": Layout((Block("a", 2, 0, 9),)), "sensitivity": BOUNDED},
        {"mechanism": NO_OBJECT, "layout": NO_OBJECT, "sensitivity": NO_OBJECT},
    ),
    "Sensitivity": Made(
        Sensitivity,
        {"joint": 1.0, "relative": (("a", 1.0),)},
        {
            "joint": (0, None, *NO_FLOAT),
            "spend": (0, None, *NO_FLOAT),
            "relative": (*NO_OBJECT, *((("a", bad),) for bad in NO_FLOAT), (("a",),), ((1, 1.0),)),
        },
    ),
    "Budget": Made(
        Budget,
        {"epsilon": 1.0, "delta": 1e-5, **KIND},
        {"epsilon": (0, 1001, None, *NO_FLOAT), "delta": (0, 0.6, None, *NO_FLOAT), **WORDS},
    ),
    "SumNoise": Made(
        SumNoise,
        {"gram": 1.0, "cross": 1.0, "counts": 0.0},
        dict.fromkeys(("gram", "cross", "counts"), (None, *NO_FLOAT)),
    ),
    "Cohort": Made(
        Cohort,
        {"clients": 4, "dropouts": 1, "colluders": 1},
        {
            "clients": (1, None, *NO_COUNT),
            "dropouts": (5, None, *NO_COUNT),
            "colluders": (0, 5, None, *NO_COUNT),
        },
    ),
    "Canary": Made(
        Canary,
        {"present": np.ones((1, 3)), "absent": np.empty((0, 3))},
        {
            "present": (*NO_OBJECT, np.ones(3), np.full((1, 3), np.nan), np.ones((1, 2))),
            "absent": (*NO_OBJECT, np.ones(3), np.full((1, 3), np.inf), np.ones((1, 2))),
            "label": (None, *NO_COUNT),
            "name": (None, 0, b"a"),
        },
    ),
    "Canaries": Made(
        Canaries,
        {"dim": 3, "classes": 2, "rows": 4, "each": (CANARY,)},
        {
            "dim": (0, 4, None, *NO_COUNT),
            "classes": (0, 1, None, *NO_COUNT),
            "rows": (0, None, *NO_COUNT),
            "each": (*NO_OBJECT, (1,), (Canary(np.ones((1, 3)), np.empty((0, 3)), 2),)),
        },
    ),
    "PrivateGradient": Made(
        PrivateGradient,
        {},
        {
            "rounds": (0, 4, 26, *NO_COUNT),
            "seed": (None, *NO_COUNT),
            "prior": (0, math.nan, "mine", (("a", -1.0),), {"a": math.nan}, [1]),
        },
    ),
    "Schedule": Made(
        Schedule,
        {"steps": 4, "dimension": 8, "rate": 0.1},
        {
            "steps": (0, 25, None, *NO_COUNT),
            "dimension": (0, None, *NO_COUNT),
            "rate": (0, None, *NO_FLOAT),
        },
    ),
    "strength": Made(
        strength,
        {"privacy": PRIVACY, "client_rows": 4},
        {"privacy": NO_OBJECT, "client_rows": NO_ROWS["client_rows"]},
    ),
    "planned_steps": Made(
        planned_steps, {"privacy": PRIVACY, **ROWS}, {"privacy": NO_OBJECT, **NO_ROWS}
    ),
    "schedule": Made(
        schedule,
        {"privacy": PRIVACY, "dim": 8, "classes": 2, "steps": 4, **ROWS},
        {
            "privacy": NO_OBJECT,
            "dim": (0, None, *NO_COUNT),
            "classes": (0, None, *NO_COUNT),
            "steps": (0, 25, None, *NO_COUNT),
            **NO_ROWS,
        },
    ),
    "statistics_sensitivity": Made(
        statistics_sensitivity,
        {"bound": 4, "max_rows": 3, **KIND},
        {
            "bound": (0, 2**24 + 1, None, *NO_COUNT),
            "max_rows": (0, None, *NO_COUNT),
            "cross_weight": (0, None, *NO_FLOAT),
            "counts_weight": (0, *NO_FLOAT),
            "label_scale": (0, None, *NO_COUNT),
            "count_scale": (0, None, *NO_COUNT),
            **WORDS,
        },
    ),
    "layer_sensitivity": Made(
        layer_sensitivity,
        {"energy": 4, "largest": 2, "max_rows": 3, **KIND},
        {
            "energy": (0, None, *NO_COUNT),
            "largest": (0, None, *NO_COUNT),
            "max_rows": (0, None, *NO_COUNT),
            "cross_weight": (0, None, *NO_FLOAT),
            "spend": (0, None, *NO_FLOAT),
            "weight": (0, None, *NO_COUNT),
            **WORDS,
        },
    ),
    "update_sensitivity": Made(
        update_sensitivity, {"bits": 4, **KIND}, {"bits": (0, 31, None, *NO_COUNT), **WORDS}
    ),
    "delta_of": Made(
        accounting.delta_of,
        {"epsilon": 1.0, "mu": 1.0},
        {"epsilon": (None, 10**400, *NO_NUMBER), "mu": (None, 10**400, *NO_NUMBER)},
    ),
    "epsilon_of": Made(
        accounting.epsilon_of,
        {"delta": 1e-5, "mu": 1.0},
        {"delta": (None, 1.1, *NO_NUMBER), "mu": (None, *NO_NUMBER)},
    ),
    "mu_of": Made(
        accounting.mu_of,
        {"epsilon": 1.0, "delta": 1e-5},
        {"epsilon": (None, *NO_FLOAT), "delta": (0, 1, None, *NO_FLOAT)},
    ),
    "noise_multiplier": Made(
        accounting.noise_multiplier,
        {"epsilon": 1.0, "delta": 1e-5},
        {
            "epsilon": (None, *NO_FLOAT),
            "delta": (0, 1, None, *NO_FLOAT),
            "releases": (0, None, *NO_FLOAT),
        },
    ),
    "distance_delta": Made(
        accounting.distance_delta,
        {"epsilon": 1.0, "distance": 0.1},
        {"epsilon": (None, *NO_NUMBER), "distance": (None, *NO_NUMBER)},
    ),
    "continuous": Made(accounting.continuous, {"sigma": 4.0}, {"sigma": (0, 1.9, *NO_NUMBER)}),
    "compose": Made(
        lambda mu: accounting.compose([0.1, mu]), {"mu": 0.2}, {"mu": (None, *NO_NUMBER)}
    ),
}
FIELDS = [(name, field) for name, made in TABLE.items() for field in made.refused]


@pytest.mark.parametrize("name", TABLE)
def test_what_is_allowed_is_made(name: str) -> None:
    made = TABLE[name]
    assert made.make(**made.allowed) is not None


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_impossible_values_are_refused_by_name_and_range(name: str, field: str) -> None:
    made = TABLE[name]
    for bad in made.refused[field]:
        with pytest.raises(ConfigError) as refused:
            made.make(**{**made.allowed, field: bad})
        said = str(refused.value)
        # A word or two of the message may stand for the field: "noise of gram", "dim".
        assert field.rstrip("s") in said or (name, field) in OTHER_WORDS, (bad, said)
        assert "allowed" in said or (name, field) in OTHER_WORDS, (bad, said)
        assert len(said) < 400


# A prior says what a prior has; canaries that do not fit say with which number.
OTHER_WORDS = {("PrivateGradient", "prior"), ("Canaries", "dim"), ("Canaries", "each")}


@settings(deadline=None, max_examples=150)
@given(st.floats() | st.integers(), st.floats() | st.integers())
def test_no_promise_is_made_beside_its_range(epsilon: float, delta: float) -> None:
    allowed = 1e-3 <= epsilon <= 20 and 1e-15 <= delta <= 0.1
    try:
        made = Privacy(epsilon, delta)
    except ConfigError:
        assert not allowed
    else:
        assert allowed
        assert (made.epsilon, made.delta) == (float(epsilon), float(delta))
        assert accounting.noise_multiplier(made.epsilon, made.delta) > 0
