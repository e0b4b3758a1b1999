"""Steps, dimensions and rates by public numbers."""

import math

import pytest

from secure_afl.privacy.accounting import mu_of
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.schedule import planned_steps, schedule, strength


@pytest.mark.parametrize(
    ("rows", "dim", "classes", "steps", "dimension"),
    [(5120, 1024, 2, 6, 198), (2560, 512, 10, 5, 57), (2048, 1024, 10, 4, 44)],
)
def test_the_published_schedules_come_out(
    rows: int, dim: int, classes: int, steps: int, dimension: int
) -> None:
    privacy = Privacy(0.1)
    assert planned_steps(privacy, rows, rows // 10) == steps
    assert schedule(privacy, rows, rows // 10, dim, classes, steps).dimension == dimension


def test_more_rows_take_more_steps_up_to_a_cap() -> None:
    steps = [planned_steps(Privacy(1.0), rows, 10) for rows in (10, 1_000, 5_000, 10_000, 10**9)]
    assert steps == [4, 8, 17, 24, 24]


def test_the_guard_holds_the_rate_where_the_steps_are_at_their_cap() -> None:
    """57,000 rows at ε = 8."""
    privacy, rows, classes = Privacy(8.0), 65_536, 10
    steps = planned_steps(privacy, rows, rows // 10)
    plan = schedule(privacy, rows, rows // 10, 512, classes, steps)
    assert steps == 24
    assert plan.rate == 30 * classes / rows
    balanced = 0.7 * classes * mu_of(8.0, 1e-5) * math.sqrt(24 / 25) / (24**2 * 0.4)
    assert plan.rate < balanced / 4


@pytest.mark.parametrize("epsilon", [0.1, 0.7, 1.0, 3.0])
def test_a_rate_has_so_few_bits_that_machines_agree_on_it(epsilon: float) -> None:
    steps = planned_steps(Privacy(epsilon), 3_000, 300)
    rate = schedule(Privacy(epsilon), 3_000, 300, 512, 10, steps).rate
    balanced = 7.0 * mu_of(epsilon, 1e-5) * math.sqrt(steps / (steps + 1)) / (steps**2 * 0.4)
    assert math.frexp(rate)[0] * 2**24 % 1 == 0
    assert balanced * (1 - 2**-23) <= rate <= balanced


def test_other_units_and_relations_weaken_what_the_schedule_counts_on() -> None:
    one = strength(Privacy(1.0), 64)
    assert strength(Privacy(1.0, neighbours="replace-one"), 64) == one / 2
    assert strength(Privacy(1.0, unit="client"), 64) == one / 64
    assert planned_steps(Privacy(8.0, unit="client"), 5_000, 500) < planned_steps(
        Privacy(8.0), 5_000, 500
    )


def test_steps_over_rows_that_share_a_direction_are_shorter() -> None:
    """Five sums of a table of seven classes ended at 34 % where 24 steps had 88 %."""
    rates = [
        schedule(Privacy(8.0), 2_560, 256, 18, 7, 4, centred=centred).rate
        for centred in (True, False)
    ]
    assert rates == [30 * 7 / 2_560, 12 * 7 / 2_560]
