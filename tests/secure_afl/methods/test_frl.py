"""FRL: votes are permutations, sums of ranks are exact; what a lying vote can do."""

from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from protocols import Additive, Pairwise, Plain, Protocol
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.simulation import Federation
from secure_afl.methods.frl import Frl, FrlPublic
from secure_afl.methods.networks.mlp import MlpModel
from secure_afl.privacy.mechanism import Privacy
from tests.secure_afl.methods.test_fedavg import blobs, task_of

PROTOCOLS: tuple[Protocol, ...] = (Plain(), Additive(), Pairwise(dropout_fraction=0.25))
SMALL = Frl(rounds=2, units=8)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
def test_the_server_ranks_the_sums_of_ranks(protocol: Protocol) -> None:
    clients = blobs()
    result = Federation(SMALL, protocol).run(clients, max_rows=32)
    assert result.report.exact
    public = SMALL.begin(task_of(clients))
    for round_ in result.rounds:
        votes = [SMALL.contribute(public, client, {}, b"") for client in clients]
        assert np.array_equal(round_.released.total, np.sum(votes, axis=0))
        first, last = np.split(round_.released.total, [8 * 6])
        public = SMALL.absorb(public, round_.released.total, ())
        for sums, ranks in zip((first, last), public.ranks, strict=True):
            order = np.argsort(ranks)
            assert (np.diff(sums[order]) >= 0).all()
    final = result.public
    assert isinstance(final, FrlPublic)
    for got, wanted in zip(final.ranks, public.ranks, strict=True):
        assert np.array_equal(got, wanted)


def test_a_vote_is_a_permutation_within_the_layout() -> None:
    clients = blobs()
    public = SMALL.begin(task_of(clients))
    layout = SMALL.layout(public)
    assert layout is not None
    for client in clients:
        memory: dict[str, Any] = {}
        vote = SMALL.contribute(public, client, memory, b"")
        layout.check(vote)
        for ranks in layout.split(vote).values():
            assert np.array_equal(np.sort(ranks), np.arange(len(ranks)))
        assert np.array_equal(SMALL.contribute(public, client, memory, b"x"), vote)
        (kept,) = memory.values()
        assert np.array_equal(kept, vote)


def test_votes_learn(one_thread: None) -> None:
    clients = blobs()
    result = Federation(Frl(rounds=12, units=32), Plain()).run(clients, test=clients[2])
    assert result.report.accuracy.federated is not None
    assert result.report.accuracy.federated > 0.85
    model = result.model
    assert isinstance(model, MlpModel)
    # Half of the random weights, and no others.
    weights = model.weights[: 32 * 6]
    assert np.count_nonzero(weights) == 16 * 6
    assert len(np.unique(np.abs(weights))) == 2


@pytest.fixture
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_popped_networks_gradient_passes_to_every_score() -> None:
    scores = torch.tensor([[0.1, 0.4], [0.3, 0.2]], requires_grad=True)
    weights = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    popped = SMALL._popped(scores, weights)
    assert torch.equal(popped.detach(), torch.tensor([[0.0, -2.0], [3.0, 0.0]]))
    torch.autograd.backward(popped.sum())
    assert scores.grad is not None
    assert torch.equal(scores.grad, weights)


def test_without_a_proof_that_a_vote_is_a_permutation_a_liar_has_several() -> None:
    """One client within the entries' range moves as many connections as many honest ones could."""
    clients = blobs()
    public = SMALL.begin(task_of(clients))
    layout = SMALL.layout(public)
    assert layout is not None
    size = len(public.ranks[0])
    wanted = np.arange(size) < size // 2
    # The most that a permutation can do for half of the connections, in summed ranks over the rest.
    honest = np.empty(size, dtype=np.int64)
    honest[wanted], honest[~wanted] = np.arange(size // 2, size), np.arange(size // 2)
    lying = np.where(wanted, size - 1, 0)
    lead = [vote[wanted].sum() - vote[~wanted].sum() for vote in (honest, lying)]
    assert lead[1] / lead[0] == pytest.approx(2 * (size - 1) / size)
    layout.check(np.concatenate([lying, np.zeros(len(public.ranks[1]), dtype=np.int64)]))


@pytest.mark.parametrize("unit", ["client", "example"])
def test_a_client_moves_the_votes_by_its_sensitivity_at_most(unit: Any) -> None:
    clients = blobs()
    public = SMALL.begin(task_of(clients))
    layout = SMALL.layout(public)
    assert layout is not None
    bound = SMALL.sensitivity(public, Privacy(1.0, unit=unit))
    votes = [SMALL.contribute(public, client, {}, b"") for client in clients]
    reverse = np.concatenate([len(r) - 1 - r for r in np.split(votes[0], [8 * 6])])
    zero = np.zeros_like(reverse)
    moves = [(v, zero) for v in votes] if unit == "client" else [(votes[0], votes[1])]
    reached = []
    for before, after in [*moves, (votes[0], reverse if unit == "example" else zero)]:
        apart = layout.split(before - after)
        relative = dict(bound.relative)
        reached.append(
            sum(float(values @ values) / relative[name] ** 2 for name, values in apart.items())
        )
    assert max(reached) <= bound.joint**2 * (1 + 1e-12)
    assert reached[-1] == pytest.approx(bound.joint**2)


def test_a_run_with_noise_is_exact_but_for_it() -> None:
    privacy = Privacy(8.0, unit="client")
    result = Federation(SMALL, Additive(), privacy=privacy).run(
        blobs(), classes=("a", "b", "c"), max_rows=32
    )
    assert result.report.exact


def test_a_state_that_is_no_permutation_is_refused() -> None:
    public = SMALL.begin(task_of(blobs()))
    twice = public.ranks[0].copy()
    twice[0] = twice[1]
    for ranks in ((twice, public.ranks[1]), public.ranks[:1], (public.ranks[1], public.ranks[0])):
        with pytest.raises(DataError, match="no ranks of"):
            SMALL.check(msgspec.structs.replace(public, ranks=ranks), 1)
    with pytest.raises(DataError, match="a state of round 1, wanted 2"):
        SMALL.check(public, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"density": 1.0}, "density is 1.0"), ({"units": 0}, "units is 0"), ({"rounds": 0}, "rounds")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Frl(**settings)
