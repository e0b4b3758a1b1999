"""FRL: clients vote on which connections of a random network to keep; the sum is of ranks."""

import math
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta

from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData, check_rows
from secure_afl.checks import settle_float, settle_int
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.averaging import MAX_RATE, MAX_ROUNDS, MIN_RATE, Rate, Rounds
from secure_afl.methods.fedavg import BatchSize, LocalEpochs
from secure_afl.methods.memory import Memory, once
from secure_afl.methods.method import METHODS, Method, PublicState, Task
from secure_afl.methods.networks.mlp import MAX_WIDTH, Mlp, MlpModel
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity

if TYPE_CHECKING:
    import torch

_MOMENTUM = 0.9


class FrlPublic(PublicState, frozen=True, eq=False):
    """The state of a round.

    Attributes:
        ranks: of each layer's connections from the worst, 0 to the number of them less 1; int64.
        round: rounds that are over, from 0.
    """

    ranks: tuple[Integers, ...]
    round: int


@METHODS.register
class Frl(Method[FrlPublic], frozen=True, tag="frl"):
    """Ranks of a random network's connections, voted on (Mozaffari et al., USENIX Security 2023).

    The weights are drawn from the seed and stay. A client trains a score for each connection by
    edge-popup (Ramanujan et al., CVPR 2020) and sends the ranks of the scores; the server ranks the
    sums of ranks, and the best of each layer are the model. Nothing else of a client's
    training reaches anybody.

    A vote is a permutation of 0..n−1, and nothing here proves that: a client that lies within the
    range of the entries gives many connections the highest rank at once.

    Attributes:
        rounds: ≥ 1.
        learning_rate: of the scores' training, with momentum 0.9.
        local_epochs, batch_size: of that training.
        units: of the hidden layer, 1 to 65,536.
        density: share of each layer's connections, above 0 and below 1.
        seed: of the weights, the first ranks and the order of rows; public.
    """

    name = "frl"
    summary = "votes on the connections of a random network"
    public = FrlPublic
    hides_patients = True
    ignores = ("feature_bits", "cross_weight", "accept_outside")
    rounds: Rounds = 30
    learning_rate: Rate = 0.4
    local_epochs: LocalEpochs = 2
    batch_size: BatchSize = 16
    units: Annotated[
        int,
        Meta(ge=1, le=MAX_WIDTH, description="units of the hidden layer.", extra={"metavar": "N"}),
    ] = 128
    density: Annotated[
        float,
        Meta(
            ge=0.001,
            le=0.999,
            description="share of the connections that make the model.",
            extra={"metavar": "SHARE"},
        ),
    ] = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        settle_int(self, "rounds", 1, MAX_ROUNDS)
        settle_float(self, "learning_rate", MIN_RATE, MAX_RATE)
        settle_int(self, "local_epochs", 1, MAX_ROUNDS)
        settle_int(self, "batch_size", 1, 2**31)
        settle_int(self, "units", 1, MAX_WIDTH)
        settle_float(self, "density", 0.001, 0.999)
        settle_int(self, "seed", 0, 2**63 - 1)

    @classmethod
    def configured(cls, settings: Any, *, private: bool, seed: int) -> "Frl":
        """Make the method of a run."""
        return cls(**settings, seed=seed)

    @property
    def sums(self) -> int:
        """One blind sum for each of the rounds."""
        return self.rounds

    @property
    def clipping(self) -> str:
        """Clause on what bounds a client's vote."""
        return "a client's vote is the ranks of each layer's connections, whatever its rows are"

    def begin(self, task: Task) -> FrlPublic:
        """Draw the first ranks; round 0."""
        rng = np.random.default_rng([self.seed, 1])
        sizes = [math.prod(shape) for shape in self._shapes(task)]
        return FrlPublic(task, tuple(rng.permutation(size).astype(np.int64) for size in sizes), 0)

    def check(self, public: FrlPublic, round: int) -> None:
        """Check that ranks are permutations of the task's connections, and of this round.

        Raises:
            DataError: they are not.
        """
        sizes = [math.prod(shape) for shape in self._shapes(public.task)]
        if [len(ranks) for ranks in public.ranks] != sizes or any(
            not np.array_equal(np.sort(ranks), np.arange(len(ranks))) for ranks in public.ranks
        ):
            raise DataError(f"no ranks of {sizes} connections")
        if public.round != round - 1:
            raise DataError(f"a state of round {public.round + 1}, wanted {round}")

    def layout(self, public: FrlPublic) -> Layout | None:
        """Return a block of ranks for each layer; None after `rounds`."""
        if public.round >= self.rounds:
            return None
        clients = public.task.clients
        sizes = [len(ranks) for ranks in public.ranks]
        return Layout(
            tuple(
                Block(_block(layer), size, 0, clients * (size - 1), 1.0, 0, size - 1)
                for layer, size in enumerate(sizes)
            )
        )

    def sensitivity(self, public: FrlPublic, privacy: Privacy) -> Sensitivity:
        """Bound how far a client moves the sum of votes.

        A vote of n ranks has norm √Σi²; another vote is at most √Σ(n − 1 − 2i)² away, which the
        reverse order is. A client that is zeroed out moves the sum by the first, and one that is
        replaced by the second at most; so does one example or patient, on which its client's vote
        may turn.
        """
        zeroed = privacy.unit == "client" and privacy.neighbours == "add-remove"
        relative = []
        for layer, ranks in enumerate(public.ranks):
            order = np.arange(len(ranks), dtype=np.float64)
            moved = order if zeroed else len(ranks) - 1 - 2 * order
            relative.append((_block(layer), float(np.linalg.norm(moved))))
        return Sensitivity(math.sqrt(len(relative)), tuple(relative))

    def contribute(
        self, public: FrlPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Train scores from the global ranks on; return their ranks, layer after layer, int64.

        Memory serves the vote on a repeated call.

        Raises:
            ConfigError: training diverged.
            DataError: rows of a wrong shape or dtype, a label out of range, or features not finite.
        """

        def vote() -> Integers:
            check_rows(data.features, data.labels, len(public.task.classes))
            return np.concatenate([_ranks(scores) for scores in self._trained(public, data)])

        return np.asarray(once(memory, public.round, public.ranks, "vote", vote), dtype=np.int64)

    def absorb(self, public: FrlPublic, total: Integers, included: tuple[str, ...]) -> FrlPublic:
        """Rank the sums of ranks; equal sums keep their order."""
        layout = self.layout(public)
        assert layout is not None, "a round has a layout"
        blocks = layout.split(total)
        ranks = tuple(_ranks(blocks[_block(layer)]) for layer in range(len(public.ranks)))
        return FrlPublic(public.task, ranks, public.round + 1)

    def model(self, public: FrlPublic) -> MlpModel:
        """Return the network of the best connections, without biases."""
        first, last = (
            np.where(ranks.reshape(weights.shape) >= self._cut(len(ranks)), weights, 0.0)
            for ranks, weights in zip(public.ranks, self._weights(public.task), strict=True)
        )
        parts = [first.ravel(), np.zeros(self.units), last.ravel(), np.zeros(len(last))]
        return Mlp(self.units).model(public.task, np.concatenate(parts))

    def _trained(self, public: FrlPublic, data: ClientData) -> list[Floats]:
        """Return the scores of each layer after edge-popup, flat."""
        import torch

        task = public.task
        rng = np.random.default_rng([self.seed, public.round, *data.name.encode()])
        inputs = torch.from_numpy(Mlp(self.units).inputs(task, data.features))
        labels = torch.as_tensor(data.labels)
        weights = [torch.tensor(w, dtype=torch.float32) for w in self._weights(task)]
        scores = [
            torch.tensor(s, dtype=torch.float32, requires_grad=True) for s in self._scores(public)
        ]
        optimiser = torch.optim.SGD(scores, lr=self.learning_rate, momentum=_MOMENTUM)
        for _ in range(self.local_epochs):
            order = rng.permutation(len(data))
            for start in range(0, len(data), self.batch_size):
                batch = order[start : start + self.batch_size]
                hidden = (inputs[batch] @ self._popped(scores[0], weights[0]).T).relu()
                found = hidden @ self._popped(scores[1], weights[1]).T
                loss = torch.nn.functional.cross_entropy(found, labels[batch])
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
        trained = [s.detach().numpy().astype(np.float64).ravel() for s in scores]
        if not all(np.isfinite(s).all() for s in trained):
            raise ConfigError("a client's scores are not finite; pass a smaller --learning-rate")
        return trained

    def _popped(self, scores: "torch.Tensor", weights: "torch.Tensor") -> "torch.Tensor":
        """Return the weights of the best connections; gradients pass to all scores."""
        import torch

        flat = scores.detach().flatten()
        mask = torch.zeros_like(flat)
        mask[flat.argsort(stable=True)[self._cut(len(flat)) :]] = 1.0
        # The mask's value with the scores' gradient.
        return weights * (mask.view_as(scores) + (scores - scores.detach()))

    def _scores(self, public: FrlPublic) -> list[Floats]:
        """Return the first scores, sorted into the order of the global ranks."""
        rng = np.random.default_rng([self.seed, 2])
        shapes = self._shapes(public.task)
        drawn = [np.sort(rng.standard_normal(math.prod(s)) / math.sqrt(s[1])) for s in shapes]
        return [
            values[ranks].reshape(shape)
            for values, ranks, shape in zip(drawn, public.ranks, shapes, strict=True)
        ]

    def _weights(self, task: Task) -> list[Floats]:
        """Return the random weights: signs times the deviation of He et al. at what is kept.

        A row has norm ≤ 1, so that the first layer's fan-in counts as 1.
        """
        rng = np.random.default_rng([self.seed, 3])
        shapes = self._shapes(task)
        fans = (1.0, float(self.units))
        return [
            math.sqrt(2 / (fan * self.density)) * rng.choice((-1.0, 1.0), size=shape)
            for shape, fan in zip(shapes, fans, strict=True)
        ]

    def _shapes(self, task: Task) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.units, task.feature_dim), (len(task.classes), self.units)

    def _cut(self, connections: int) -> int:
        """Return the lowest rank that is kept."""
        return connections - max(1, round(self.density * connections))


def _block(layer: int) -> str:
    return f"ranks_{layer}"


def _ranks(values: Integers | Floats) -> Integers:
    """Return the rank of each value, 0 for the least; equal ones in their order."""
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks
