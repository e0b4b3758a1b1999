"""The audit comes close to the promise, stays below it, and flags broken mechanisms."""

import dataclasses
from typing import Literal

import numpy as np
import pytest
from msgspec.structs import replace

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.federation.oracle import RecordingClient
from secure_afl.federation.sums import this_noisy_sum
from secure_afl.methods import (
    AFL,
    AnyMethod,
    FedAvg,
    PrivateGradient,
    PublicState,
    Task,
    private_gradient,
)
from secure_afl.methods.private_gradient import PrivateGradientPublic
from secure_afl.methods.summed import SummedPublic
from secure_afl.privacy.mechanism import NoisySum, Privacy
from secure_afl.privacy.schedule import CLIP
from secure_afl.privacy.sensitivity import Sensitivity
from secure_afl.tuning.audit import ALL_SUMS, Audit, Cohort, audit

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


# Many sums: the canaries go through all of them

SHORT = PrivateGradient(rounds=5)


class SilentRound(RecordingClient):
    """Adds no noise in the third sum."""

    def noise(self, public: PublicState, entropy: bytes) -> Integers:
        self.added_noise = super().noise(public, entropy)
        if isinstance(public, PrivateGradientPublic) and public.done == 2:
            self.added_noise = np.zeros_like(self.added_noise)
        return self.added_noise


class SameNoise(RecordingClient):
    """Makes the noise of every sum of the same entropy, which the sums of gradients then share."""

    def noise(self, public: PublicState, entropy: bytes) -> Integers:
        self.added_noise = super().noise(public, self.data.name.encode().ljust(32))
        return self.added_noise


class BareCounts(RecordingClient):
    """Adds no noise to the class counts."""

    def noise(self, public: PublicState, entropy: bytes) -> Integers:
        self.added_noise = super().noise(public, entropy)
        if isinstance(public, PrivateGradientPublic) and public.done == 0:
            self.added_noise[-len(public.task.classes) :] = 0
        return self.added_noise


class UnclippedResiduals(RecordingClient):
    """Sends gradients of residuals that were not clipped."""

    def contribute(self, public: PublicState, entropy: bytes) -> Integers:
        honest = super().contribute(public, entropy)
        if not isinstance(public, PrivateGradientPublic) or public.done == 0:
            return honest
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(private_gradient, "CLIP", 10.0)
            vector = self.method.contribute(public, self.rows(public.task), {}, b"")
        self.vector = np.rint(vector * (10.0 / CLIP)).astype(np.int64)
        return self.vector + self.added_noise


@pytest.mark.slow
@pytest.mark.parametrize("neighbours", ["add-remove", "replace-one"])
def test_a_run_of_many_sums_comes_close_and_stays_below(
    neighbours: Literal["add-remove", "replace-one"],
) -> None:
    found = audit(Privacy(4.0, neighbours=neighbours), tests=5_000, method=SHORT)
    assert 0.6 * 4.0 <= found.lower_bound <= 4.0
    assert found.shown_by == ALL_SUMS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("member", "shown_by"),
    [
        (SilentRound, "gradient of sum 3"),
        (SameNoise, "difference of sums"),
        (BareCounts, "counts of sum 1"),
        (UnclippedResiduals, ALL_SUMS),
        (HalvedNoise, ALL_SUMS),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_goes_wrong_in_some_sums_only_is_flagged(
    member: type[RecordingClient], shown_by: str
) -> None:
    found = audit(Privacy(8.0), tests=1_500, method=SHORT, member=member)
    assert not found.holds
    assert found.shown_by.startswith(shown_by)


class EachAPatient(RecordingClient):
    """Takes every row for a patient's only one, so that a patient of four weighs four times."""

    def rows(self, task: Task) -> ClientData:
        found = super().rows(task)
        return dataclasses.replace(found, patients=[""] * len(found))


@pytest.mark.slow
@pytest.mark.parametrize("method", [AFL(), SHORT], ids=lambda method: method.name)
def test_patients_that_are_not_weighted_are_flagged(method: AnyMethod) -> None:
    promise = Privacy(8.0, unit="patient")
    found = audit(promise, tests=1_200, method=method)
    assert 0 < found.lower_bound <= 8.0
    assert not audit(promise, tests=1_200, method=method, member=EachAPatient).holds


def test_a_method_without_canaries_is_refused() -> None:
    with pytest.raises(ConfigError, match="fedavg has no canaries"):
        audit(Privacy(1.0), method=FedAvg(rounds=2, weighted=False))


@pytest.mark.parametrize(
    "privacy", [Privacy(1.0, unit="client"), Privacy(1.0, placement="central")], ids=repr
)
def test_what_cannot_be_audited_is_refused(privacy: Privacy) -> None:
    with pytest.raises(ConfigError, match="audits"):
        audit(privacy)
