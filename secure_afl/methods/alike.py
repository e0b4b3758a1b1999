"""FedAvg's kin in which all clients weigh alike: SCAFFOLD, FedStale and FedAU.

What a client carries from round to round counts only once its vector was in a sum: see `memory`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import msgspec
import numpy as np
from msgspec import Meta

from protocols.layout import Block, Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.checks import settle_float, settle_int
from secure_afl.errors import ConfigError
from secure_afl.methods.averaging import AveragingPublic
from secure_afl.methods.fedavg import FedAvg
from secure_afl.methods.memory import Memory, pend
from secure_afl.methods.method import METHODS, Task
from secure_afl.methods.update import UPDATE, WEIGHT

CONTROL, STALE = "control", "stale"
MAX_INTERVAL = 1000


class Alike(FedAvg, frozen=True):
    """Base of methods whose mean is over clients and not over rows."""

    weighted: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weighted:
            raise ConfigError(f"{self.name} weighs all clients alike; leave weighted=True out")

    @classmethod
    def configured(cls, settings: Mapping[str, Any], *, private: bool, seed: int) -> Self:
        """Make the method of a run."""
        return cls(**settings, seed=seed)

    def _beside(self, public: AveragingPublic, name: str) -> Block:
        """Return a block beside the update, of its length and with its bounds."""
        own = self.quantiser(public.task).layout(len(public.parameters), public.task.clients, 1)
        return msgspec.structs.replace(own.blocks[0], name=name)


@METHODS.register
class Scaffold(Alike, frozen=True, tag="scaffold"):
    """FedAvg with control variates against clients' drift (Karimireddy et al., ICML 2020, alg. 1).

    A step goes along g − c_i + c. After K steps that moved the parameters by u, c_i becomes
    c_i − c − u/(Kη) (option II), and c the mean of all clients' c_i. The vector has u and u/K: all
    else in the mean of the c_i's changes is public.

    The state carries c, (p,), after the server's moments.
    """

    name = "scaffold"
    summary = "fedavg with control variates"

    def carried(self, task: Task, parameters: Floats) -> tuple[Floats, ...]:
        """Return the server's moments and c, zeros at first."""
        return (*super().carried(task, parameters), np.zeros_like(parameters))

    def blocks_beside(self, public: AveragingPublic) -> tuple[Block, ...]:
        """Return the block of the mean steps."""
        return (self._beside(public, CONTROL),)

    def drift(self, public: AveragingPublic, memory: Memory) -> Floats:
        """Return c − c_i."""
        own = np.asarray(memory.get(CONTROL, 0.0), dtype=np.float64)
        drift: Floats = public.carried[-1] - own
        return drift

    def beside(
        self,
        public: AveragingPublic,
        data: ClientData,
        memory: Memory,
        integers: Integers,
        entropy: bytes,
    ) -> Integers:
        """Return u/K as integers, and pend the c_i that follows from them."""
        quantiser = self.quantiser(public.task)
        unit = quantiser.step / self.local_steps(len(data))
        moved = integers.astype(np.float64) * unit
        sent = quantiser.integers(moved, 1, entropy + CONTROL.encode())
        own = -self.drift(public, memory) - sent * (quantiser.step / self.learning_rate)
        pend(memory, public.round + 1, CONTROL, own)
        return sent

    def step(
        self, public: AveragingPublic, mean: Floats, total: Mapping[str, Integers]
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """Step by the mean update, and move c by the mean change of all clients' c_i."""
        parameters, carried = super().step(public, mean, total)
        control, clients = public.carried[-1], public.task.clients
        included = int(total[WEIGHT][0]) / clients
        unit = self.quantiser(public.task).step / (self.learning_rate * clients)
        moved = control - included * control - total[CONTROL].astype(np.float64) * unit
        return parameters, (*carried[:-1], moved)


@METHODS.register
class FedStale(Alike, frozen=True, tag="fedstale"):
    """FedAvg that lets absent clients' last updates count (Rodio and Neglia 2024).

    With u_i a client's update, h_i its last one that was in a sum and h their mean over all
    clients, the server steps by mean(u_i − βh_i) + βh, the first mean being over the round's
    clients. β = 0 is FedAvg and β = 1 is FedVARP (Jhunjhunwala et al. 2022). A client keeps its h_i
    itself and sends (u_i, h_i): nobody sees single updates.

    The state carries h, (p,), after the server's moments.

    Attributes:
        staleness: β, 0 to 1.
    """

    name = "fedstale"
    summary = "fedavg in which absent clients' last updates count"
    staleness: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="weight of clients' last updates; 0 is fedavg, 1 is FedVARP.",
            extra={"metavar": "β"},
        ),
    ] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        settle_float(self, "staleness", 0, 1)

    def carried(self, task: Task, parameters: Floats) -> tuple[Floats, ...]:
        """Return the server's moments and h, zeros at first."""
        return (*super().carried(task, parameters), np.zeros_like(parameters))

    def blocks_beside(self, public: AveragingPublic) -> tuple[Block, ...]:
        """Return the block of the last updates."""
        return (self._beside(public, STALE),)

    def beside(
        self,
        public: AveragingPublic,
        data: ClientData,
        memory: Memory,
        integers: Integers,
        entropy: bytes,
    ) -> Integers:
        """Return h_i as it was sent, and pend this round's update in its place."""
        pend(memory, public.round + 1, STALE, integers)
        return np.asarray(memory.get(STALE, np.zeros_like(integers)), dtype=np.int64)

    def step(
        self, public: AveragingPublic, mean: Floats, total: Mapping[str, Integers]
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """Step by mean(u − βh_i) + βh, and move h by the round's changes."""
        unit = self.quantiser(public.task).step
        stale, included = public.carried[-1], int(total[WEIGHT][0])
        last = total[STALE].astype(np.float64)
        corrected = mean - last * (self.staleness * unit / included) + self.staleness * stale
        parameters, carried = super().step(public, corrected, total)
        changed = (total[UPDATE] - total[STALE]).astype(np.float64)
        return parameters, (*carried[:-1], stale + changed * (unit / public.task.clients))


@METHODS.register
class FedAU(Alike, frozen=True, tag="fedau"):
    """FedAvg for clients that are often away (Wang and Ji, ICLR 2024, algorithms 1 and 2).

    A client multiplies its update by the mean number of rounds between its parts in sums, counted
    as `interval` where they are more, and the server divides by all clients. The factor is at most
    `interval`, and costs as much of the updates' resolution.

    Attributes:
        interval: the cap, 1 to 1000; 50 in the paper.
    """

    name = "fedau"
    summary = "fedavg that makes up for clients' absence"
    interval: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_INTERVAL,
            description="rounds of absence that count at most.",
            extra={"metavar": "N"},
        ),
    ] = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        settle_int(self, "interval", 1, MAX_INTERVAL)

    @property
    def greatest_factor(self) -> float:
        """The cap on the rounds between."""
        return float(self.interval)

    def factor(self, public: AveragingPublic, memory: Memory) -> float:
        """Return the mean interval up to now, and pend this round's part."""
        last, intervals, mean = np.asarray(memory.get("parts", np.zeros(3)), dtype=np.float64)
        away = public.round - int(last)
        # An interval as long as the cap ends without a part, and the next begins.
        whole, begun = divmod(away, self.interval)
        if whole:
            mean = (intervals * mean + whole * self.interval) / (intervals + whole)
            intervals += whole
        after = (intervals * mean + begun + 1) / (intervals + 1)
        pend(memory, public.round + 1, "parts", np.array([public.round + 1, intervals + 1, after]))
        return mean if intervals else 1.0

    def step(
        self, public: AveragingPublic, mean: Floats, total: Mapping[str, Integers]
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """Step by the sum over the number of all clients."""
        return super().step(public, mean * (int(total[WEIGHT][0]) / public.task.clients), total)
