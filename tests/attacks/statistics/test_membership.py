"""Membership is plain in exact sums, weaker in the model, and bounded by noise."""

from collections.abc import Sequence

import numpy as np
import pytest

from attacks.attack import Known, Truth
from attacks.measures.metrics import auc, gaussian_auc, gaussian_tradeoff, roc, tpr_at_fpr
from attacks.statistics.membership import (
    LeverageMembership,
    MembershipAttack,
    ModelMembership,
    Scores,
    SubspaceMembership,
    leverage,
    scored_members,
)
from attacks.statistics.shadows import Candidates, lda_shadow
from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.heads.head import Fitted
from secure_afl.analytic.heads.lda import LDA
from secure_afl.analytic.moments import Moments
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.methods import AFL, Memory
from secure_afl.methods.model import LinearModel
from secure_afl.methods.summed import SummedPublic
from tests.kit.runs import ADDITIVE, PLAIN, by_metric, membership_game, record, relu_clients

DIM = 128


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def auc_of(
    attack: MembershipAttack, clients: list[ClientData], coalition: list[str]
) -> tuple[float, float]:
    known, truth = membership_game(clients, DIM, 300, 600)
    run = record(clients, PLAIN)
    claim = attack.claim(run.view(coalition), known, rng())
    measures = by_metric(attack.judge(claim, truth))
    return measures["AUC"].value, measures["TPR at 1 % FPR"].value


def test_subspace_is_perfect_up_to_d_rows_and_blind_beyond() -> None:
    few = relu_clients([20, 40, 30], DIM)
    assert auc_of(SubspaceMembership(), few, ["server"]) == (1.0, 1.0)
    many = relu_clients([150, 150], DIM)
    assert auc_of(SubspaceMembership(), many, ["server"])[0] == 0.5


def test_leverage_from_the_sum_of_up_to_5d_rows() -> None:
    """Of one sum of 5·d rows, all that a server with all aggregators' trust gets to see."""
    clients = relu_clients([160] * 4, DIM)
    known, truth = membership_game(clients, DIM, 300, 600)
    run = record(clients, ADDITIVE)
    view = run.view(["collector"])
    claim = LeverageMembership().claim(view, known, rng())
    measures = by_metric(LeverageMembership().judge(claim, truth))
    assert measures["AUC"].value >= 0.95
    # Calibration is what does it.
    bare = LeverageMembership().claim(
        view, Known(candidates=known.candidates, candidate_labels=known.candidate_labels), rng()
    )
    assert bare is not None
    plain = by_metric(LeverageMembership().judge(bare, truth))
    assert plain["AUC"].value < measures["AUC"].value - 0.02


def test_leverage_stays_below_what_noise_allows() -> None:
    """Directions that noise has made negative are as uncertain as the noise is large."""
    gram = np.diag([100.0, 9.0, -4.0])
    found = leverage(gram, 2 * np.eye(3), 1e-3)
    np.testing.assert_allclose(found, [4 / 104, 4 / 13, 1.0])


def test_the_model_alone_tells_less_but_something() -> None:
    clients = relu_clients([80] * 4, DIM)
    from_model, _ = auc_of(ModelMembership(), clients, [])
    from_sum, _ = auc_of(LeverageMembership(), clients, ["server"])
    assert 0.6 < from_model < from_sum


@pytest.mark.slow
def test_shadows_of_lda_are_those_of_retraining_with_the_candidate() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    rows = rng.standard_normal((3, 8))[labels] + rng.standard_normal((60, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    candidates = Candidates(rows[50:], labels[50:])
    shadow = lda_shadow(rows[:50], labels[:50], candidates, 3, 0.3)

    def centred(with_: Sequence[int], row: int) -> Floats:
        moments = Moments.of_rows(rows[with_], labels[with_], 3)
        fitted = LDA(shrinkage=0.3).fit(moments, ("0", "1", "2")).fitted
        model = LinearModel.fitted(fitted, ("0", "1", "2"), Quantiser(12))
        scores = model.scores(rows[row : row + 1])[0]
        found: Floats = scores - scores.mean()
        return found

    for place in range(10):
        known = list(range(50))
        out = centred(known, 50 + place)
        np.testing.assert_allclose(shadow.strangers[place], out, rtol=1e-9)
        within = centred([*known, 50 + place], 50 + place)
        moved = np.abs(within - out).max()
        # τ, κ and the shares change by parts of the order 1/N, which the shadow leaves out.
        assert np.abs(shadow.members[place] - within).max() < 0.25 * moved + 0.02


@pytest.mark.slow
def test_a_model_of_lda_is_attacked_by_shadows_of_lda() -> None:
    clients = relu_clients([80] * 4, DIM)
    known, truth = membership_game(clients, DIM, 300, 600)
    run = record(clients, PLAIN, AFL())
    claim = ModelMembership().claim(run.view([]), known, rng())
    assert by_metric(ModelMembership().judge(claim, truth))["AUC"].value > 0.55
    means = record(clients, PLAIN, AFL(head="means"))
    assert ModelMembership().claim(means.view([]), known, rng()) is None


def test_shadow_models_beat_the_loss() -> None:
    clients = relu_clients([80] * 4, DIM)
    known, truth = membership_game(clients, DIM, 300, 600)
    run = record(clients, PLAIN)
    weights = run.result.model.weights
    assert known.candidates is not None
    assert known.candidate_labels is not None
    rows = known.candidates / np.linalg.norm(known.candidates, axis=1)[:, None]
    loss = ((np.eye(3)[known.candidate_labels] - rows @ weights) ** 2).sum(axis=1)
    attack = ModelMembership()
    claim = attack.claim(run.view([]), known, rng())
    assert claim is not None
    by_loss = by_metric(attack.judge(type(claim)(-loss), truth))["AUC"].value
    assert by_metric(attack.judge(claim, truth))["AUC"].value > by_loss


def test_pseudo_labels_do_where_public_rows_have_none() -> None:
    clients = relu_clients([60] * 4, DIM)
    known, truth = membership_game(clients, DIM, 300, 600)
    unlabelled = Known(known.candidates, known.candidate_labels, known.public)
    claim = ModelMembership().claim(record(clients, PLAIN).view([]), unlabelled, rng())
    assert by_metric(ModelMembership().judge(claim, truth))["AUC"].value > 0.6


class Noisy(AFL, frozen=True, tag="noisy-in-tests"):
    """AFL whose clients add rounded Gaussian noise to all they send."""

    mu: float = 1.0
    clients: int = 2

    def layout(self, public: SummedPublic) -> Layout | None:
        layout = super().layout(public)
        if layout is None:
            return None
        # Far beyond any noise there will be.
        spare = 2**26
        blocks = (
            Block(b.name, b.length, b.low - spare, b.high + spare, b.scale) for b in layout.blocks
        )
        return Layout(tuple(blocks))

    def contribute(
        self, public: SummedPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        vector = super().contribute(public, data, memory, entropy)
        scale = public.task.quantiser.scale
        # Add/remove, math of the Gaussian mechanism: μ² = B⁴/σ_G² + B²/σ_Q² + 1/σ_n², a third each.
        part = np.sqrt(3) / self.mu
        sigma = {"gram_diagonal": scale**2, "gram_upper": scale**2 / np.sqrt(2)}
        generator = np.random.default_rng(list(entropy))
        layout = self.layout(public)
        assert layout is not None
        noise = [
            generator.normal(0, part * {"cross": scale, "counts": 1.0, **sigma}[b.name], b.length)
            for b in layout.blocks
        ]
        noisy: Integers = vector + np.rint(np.concatenate(noise) / np.sqrt(self.clients)).astype(
            np.int64
        )
        return noisy

    def absorb(
        self, public: SummedPublic, total: Integers, included: tuple[str, ...]
    ) -> SummedPublic:
        weights = np.zeros((public.task.feature_dim, len(public.task.classes)))
        return SummedPublic(public.task, Fitted(weights, head="lda"))


# Noise is no function of pooled rows.
Noisy.row_additive = False


# ε = 1 and 8 at δ = 1e-5, by the analytic Gaussian mechanism.
@pytest.mark.slow
@pytest.mark.parametrize("mu", [1 / 3.73, 1 / 0.6])
def test_noise_keeps_the_points_below_the_exact_tradeoff(mu: float) -> None:
    """Two clients of 16 rows each: exact sums show members perfectly, and noisy ones cannot."""
    dim, runs = 48, 20
    clients = relu_clients([16, 16], dim)
    known, truth = membership_game(clients, dim, 300, 300)
    views = [record(clients, ADDITIVE, Noisy(mu=mu)).view(["collector"]) for _ in range(runs)]
    for attack in (SubspaceMembership(), LeverageMembership()):
        kept = [scored_members(attack.claim(view, known, rng()), truth) for view in views]
        scores = np.concatenate([pair[0] for pair in kept if pair])
        members = np.concatenate([pair[1] for pair in kept if pair])
        assert members.sum() == 32 * runs
        fpr, tpr = roc(scores, members)
        # How far empirical curves stray, but for 1 in 10,000 (Dvoretzky, Kiefer and Wolfowitz).
        strays = np.sqrt(np.log(2 / 1e-4) / (2 * runs * np.array([32, 300])))
        highest = gaussian_tradeoff(mu, np.minimum(fpr + strays[1], 1.0)) + strays[0]
        assert highest[0] < 0.7
        assert (tpr <= highest).all()
        assert auc(scores, members, 0.999).low < gaussian_auc(mu)
    exact = record(clients, ADDITIVE).view(["collector"])
    claim = SubspaceMembership().claim(exact, known, rng())
    assert by_metric(SubspaceMembership().judge(claim, truth))["AUC"].value == 1.0


def test_colluders_own_rows_are_not_scored() -> None:
    clients = relu_clients([10, 12, 14], 64)
    known, truth = membership_game(clients, 64, 50, 100)
    run = record(clients, ADDITIVE)
    claim = SubspaceMembership().claim(run.view(["collector", "c0", "c1"]), known, rng())
    kept = scored_members(claim, truth)
    assert kept is not None
    assert int(kept[1].sum()) == 14
    fpr, tpr = SubspaceMembership().roc(claim, truth) or (np.empty(0), np.empty(0))
    assert tpr[fpr == 0].max() == 1.0
    assert by_metric(SubspaceMembership().judge(claim, truth))["AUC"].value == 1.0


def test_nothing_to_go_on_is_chance() -> None:
    clients = relu_clients([10, 12, 14], 64)
    known, truth = membership_game(clients, 64, 50, 100)
    run = record(clients, ADDITIVE)
    for attack in (SubspaceMembership(), LeverageMembership()):
        for coalition in ([], ["aggregator_1", "aggregator_2"]):
            assert attack.claim(run.view(coalition), known, rng()) is None
        measures = attack.judge(None, truth)
        assert attack.roc(None, truth) is None
        assert all((m.value, m.trials) == (m.chance, 0) for m in measures)
    assert ModelMembership().claim(run.view([]), Known(known.candidates), rng()) is None
    with pytest.raises(ConfigError, match="candidates"):
        SubspaceMembership().claim(run.view(["collector"]), Known(), rng())
    with pytest.raises(ConfigError, match="members"):
        SubspaceMembership().judge(None, Truth({}))


def test_strangers_of_the_same_client_are_not_told_from_its_members_by_style() -> None:
    """Candidates are judged among rows of the same clients: a camera is no membership."""
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.normal(3, 1, 200), rng.normal(0, 1, 200)])
    origins = ["a"] * 200 + ["b"] * 200
    members = np.tile([True, False], 200)
    owners = [name if member else "" for name, member in zip(origins, members, strict=True)]
    truth = Truth({}, members, owners, origins)
    kept = scored_members(Scores(scores, frozenset({"a"})), truth)
    assert kept is not None
    assert len(kept[0]) == 200
    area = auc(*kept)
    assert area.low < 0.5 < area.high


@pytest.mark.slow
@pytest.mark.parametrize("members", [1, 2, 4, 40])
def test_intervals_hold_with_few_members(members: int) -> None:
    missed = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        inside = np.arange(members + 400) < members
        area = auc(rng.standard_normal(members + 400), inside, 0.99)
        rate = tpr_at_fpr(rng.standard_normal(members + 400), inside, 0.01, 0.99)
        missed += not area.low <= 0.5 <= area.high
        missed += not rate.low <= 0.01 <= rate.high
    assert missed <= 12
