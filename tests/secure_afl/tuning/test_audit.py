"""The audit comes close to the promise, stays below it, and flags broken mechanisms."""

from typing import Literal

import numpy as np
import pytest
from msgspec.structs import replace

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.errors import ConfigError
from secure_afl.federation.oracle import RecordingClient
from secure_afl.federation.sums import this_noisy_sum
from secure_afl.methods import AFL, PublicState, Task
from secure_afl.methods.summed import SummedPublic
from secure_afl.privacy.mechanism import NoisySum, Privacy
from secure_afl.privacy.sensitivity import Sensitivity
from secure_afl.tuning.audit import Audit, Cohort, audit

TESTS = 10_000
# The smallest cohort in which somebody may collude: one share more or less shows.
THREE = Cohort(clients=3, dropouts=0, colluders=1)


class HalvedNoise(RecordingClient):
    """Draws with half the standard deviation that the task is calibrated to."""

    def noise(self, public: PublicState, entropy: bytes) -> Integers:
        noisy = this_noisy_sum(self.method, public)
        z = noisy.mechanism.noise_multiplier
        less = replace(noisy.mechanism, noise_multiplier=z / 2)
        self.added_noise = NoisySum(less, noisy.layout, noisy.sensitivity).share(entropy)
        return self.added_noise


class OneWithout(RecordingClient):
    """One client, who is neither the victim nor colludes, adds no noise."""

    def noise(self, public: PublicState, entropy: bytes) -> Integers:
        self.added_noise = super().noise(public, entropy)
        if self.data.name == "client_2":
            self.added_noise = np.zeros_like(self.added_noise)
        return self.added_noise


class Unclipped(Quantiser, frozen=True):
    """Leaves rows as long as they are."""

    def _factors(self, rows: Floats, first_row: int = 0) -> Floats:
        return np.ones(len(rows))


class WrongRelation(AFL, frozen=True, tag="wrong-relation"):
    """Takes the sensitivity of add-remove whatever is promised."""

    def sensitivity(self, public: SummedPublic, privacy: Privacy) -> Sensitivity:
        return super().sensitivity(public, replace(privacy, neighbours="add-remove"))


def skip_clip(task: Task) -> Task:
    return replace(task, quantiser=Unclipped(task.quantiser.bits))


@pytest.mark.slow
@pytest.mark.parametrize("neighbours", ["add-remove", "replace-one"])
def test_an_honest_pipeline_comes_close_and_stays_below(
    neighbours: Literal["add-remove", "replace-one"],
) -> None:
    found = audit(Privacy(4.0, neighbours=neighbours), tests=TESTS)
    assert 0.75 * 4.0 <= found.lower_bound <= 4.0
    assert found.holds
    assert found.tests >= TESTS


@pytest.mark.slow
def test_noise_halved_is_flagged() -> None:
    assert not audit(Privacy(2.0), tests=TESTS, member=HalvedNoise).holds


@pytest.mark.slow
def test_a_missing_share_is_flagged() -> None:
    assert not audit(Privacy(4.0), tests=TESTS, cohort=THREE, member=OneWithout).holds
    assert audit(Privacy(4.0), tests=TESTS, cohort=THREE).holds


@pytest.mark.slow
def test_a_skipped_clip_is_flagged() -> None:
    assert not audit(Privacy(2.0), tests=TESTS, change=skip_clip).holds


@pytest.mark.slow
def test_the_sensitivity_of_another_relation_is_flagged() -> None:
    promise = Privacy(4.0, neighbours="replace-one")
    assert not audit(promise, tests=TESTS, method=WrongRelation()).holds


@pytest.mark.slow
def test_without_drop_outs_the_noise_is_more_than_promised() -> None:
    """The share of those who may drop out is there as well, and hides some of ε."""

    class NobodyDrops(Cohort):
        @property
        def dropping(self) -> list[str]:
            return []

    def shown(cohort: Cohort) -> Audit:
        return audit(Privacy(4.0), tests=TESTS, cohort=cohort)

    assert shown(NobodyDrops(5, 2, 1)).lower_bound < 0.8 * shown(Cohort(5, 2, 1)).lower_bound


@pytest.mark.parametrize(
    "privacy", [Privacy(1.0, unit="client"), Privacy(1.0, placement="central")], ids=repr
)
def test_what_cannot_be_audited_is_refused(privacy: Privacy) -> None:
    with pytest.raises(ConfigError, match="audits"):
        audit(privacy)
