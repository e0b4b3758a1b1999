"""Training of one's own: any torch module and any loop, averaged under blind sums. Needs torch.

A user brings a module and a function that trains it on a client's rows. Clipping, rounding, weights
and sums are those of every averaging method. Only parameters that require gradients travel, so that
adapters of a frozen network cost what adapters cost.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Digest, encode
from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData, check_finite
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.averaging import AveragingPublic, Clip
from secure_afl.methods.memory import Memory, pend
from secure_afl.methods.method import Own, Task
from secure_afl.methods.model import Model, load_weights, save_weights
from secure_afl.methods.networks.architecture import Linear
from secure_afl.methods.stepping import Stepping

if TYPE_CHECKING:
    from torch import nn

PERSONAL = "personal"
# Rows scored at a time, so that memory does not grow with their number.
_BATCH = 512


@dataclass(frozen=True)
class Training:
    """A module, how a client trains it, and which of its parameters stay with the client.

    Attributes:
        name: by which parties know it; the same code has to have the same name everywhere.
        build: makes the module for a task, d features and C classes. It is called with torch's
            generator seeded, and has to give equal weights at all parties. Pretrained weights that
            it loads are compared by their digest.
        train: trains the module in place on a client's rows; the number is the seed of this client
            and round, with which torch's generator is seeded too.
        personal: names of parameters, or of modules, that stay with each client: a head of its own.
    """

    name: str
    build: Callable[[Task], "nn.Module"]
    train: Callable[["nn.Module", ClientData, int], None]
    personal: tuple[str, ...] = ()

    def averaging(self, **settings: Any) -> "OwnTraining":
        """Make the method that averages what clients train.

        The training is kept by its name in this process; one of the same name takes its place.

        Args:
            settings: of `OwnTraining`: rounds, update_clip, weighted, …

        Raises:
            ConfigError: a setting out of range, or a name that is empty.
        """
        if not self.name:
            raise ConfigError("a training has no name; allowed: any text, the same at all parties")
        _TRAININGS[self.name] = self
        return OwnTraining(training=self.name, personal=self.personal, **settings)

    def load(self, path: Path, task: Task, seed: int = 0) -> "tuple[ModuleModel, dict[str, Any]]":
        """Read a saved model of this training, and its card.

        Args:
            task: that it was made for, or one of as many features and classes.
            seed: of the run.

        Raises:
            DataError: damaged files, or another training's.
        """
        weights, classes, card = load_weights(path, axes=1)
        if card.get("training") != self.name:
            raise DataError(f"{path} is no model of the training '{self.name}'")
        module = _built(self, task, seed)
        if sum(p.numel() for p in module.parameters() if p.requires_grad) != len(weights):
            raise DataError(f"{path} has {len(weights)} parameters, the module another number")
        return ModuleModel(self, module, weights, classes), card


_TRAININGS: dict[str, Training] = {}


class OwnPublic(AveragingPublic, frozen=True, eq=False):
    """The state of a round, and what it stands on.

    Attributes:
        frozen: SHA-256 of all in the module that does not travel, 32 bytes.
    """

    frozen: Digest = bytes(32)


class OwnTraining(Stepping, frozen=True, tag="own-training"):
    """Clients train a module of the user's; the server averages by how much its parameters moved.

    Make it by `Training.averaging`.

    Attributes:
        training: name of a `Training`.
        personal: names of what stays with each client.
    """

    name = "own-training"
    summary = "training of one's own, averaged in many rounds"
    public = OwnPublic
    update_clip: Clip = 10.0
    training: str = ""
    personal: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learning_rate != 1.0 or self.architecture != Linear():
            raise ConfigError(
                "learning_rate and architecture have no effect: the training's own code has its "
                "module and its steps; leave them out"
            )

    @property
    def personalises(self) -> bool:
        """Whether parts of the module stay with the clients."""
        return bool(self.personal)

    def begin(self, task: Task) -> OwnPublic:
        """Build the module; its parameters that travel are where the first round begins.

        Raises:
            ConfigError: no parameter travels, or a personal name that is none.
        """
        module = self._module(task)
        parameters = _flat(self._shared(module))
        moments = tuple(np.zeros_like(parameters) for _ in range(self.server_step.moments))
        return OwnPublic(
            task, parameters, 0, moments, _digest_of_rest(module, self._shared(module))
        )

    def update(
        self, public: AveragingPublic, data: ClientData, memory: Memory | None = None
    ) -> Floats:
        """Train the module as the user does; return how far what travels moved, (p,) float64."""
        return self._trained(public, data, {} if memory is None else memory)[0]

    def beside(
        self,
        public: AveragingPublic,
        data: ClientData,
        memory: Memory,
        integers: Integers,
        entropy: bytes,
    ) -> Integers:
        """Pend the client's own parameters as they are after training."""
        if self.personal:
            pend(memory, public.round + 1, PERSONAL, self._trained(public, data, memory)[1])
        return np.zeros(0, dtype=np.int64)

    def model(self, public: AveragingPublic) -> "ModuleModel":
        """Return the module with the current parameters, and personal ones as they were built."""
        module = self._module(public.task)
        _fill(self._shared(module), public.parameters)
        return self._modelled(module, public.task)

    def personalise(
        self,
        public: AveragingPublic,
        data: ClientData,
        memory: Memory,
        kept: ClientData | None = None,
    ) -> Own:
        """Return the module with the client's own parts."""
        if not self.personal:
            return Own(self.model(public), "none")
        module = self._module(public.task)
        _fill(self._shared(module), public.parameters)
        if PERSONAL in memory:
            _fill(self._own(module), np.asarray(memory[PERSONAL], dtype=np.float64))
        return Own(self._modelled(module, public.task), "own parts")

    def _trained(
        self, public: AveragingPublic, data: ClientData, memory: Memory
    ) -> tuple[Floats, Floats]:
        """Return the update, and the personal parameters after training; trains once a round."""
        shared = len(public.parameters)

        def train() -> Floats:
            import torch

            module = self._module(public.task)
            _fill(self._shared(module), public.parameters)
            if PERSONAL in memory:
                _fill(self._own(module), np.asarray(memory[PERSONAL], dtype=np.float64))
            begun = _flat(self._shared(module))
            drawn = np.random.default_rng([self.seed, public.round, *data.name.encode()])
            seed = int(drawn.integers(2**31))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                module.train()
                self._found.train(module, data, seed)
            moved = _flat(self._shared(module)) - begun
            return np.concatenate([moved, _flat(self._own(module))])

        both = np.asarray(self.once(public, memory, "trained", train), dtype=np.float64)
        return both[:shared], both[shared:]

    def _modelled(self, module: "nn.Module", task: Task) -> "ModuleModel":
        weights = _flat([p for p in module.parameters() if p.requires_grad])
        return ModuleModel(self._found, module.eval(), weights, task.classes)

    def _module(self, task: Task) -> "nn.Module":
        return _built(self._found, task, self.seed)

    @property
    def _found(self) -> Training:
        try:
            found = _TRAININGS[self.training]
        except KeyError:
            raise ConfigError(
                f"this process knows no training {self.training!r}; make the method by "
                "Training(…).averaging(…) here too"
            ) from None
        if found.personal != self.personal:
            found = replace(found, personal=self.personal)
        return found

    def _shared(self, module: "nn.Module") -> list["nn.Parameter"]:
        shared = [p for name, p in _trainable(module) if not self._stays(name)]
        if not shared:
            raise ConfigError("no parameter of the module travels; let some require gradients")
        return shared

    def _own(self, module: "nn.Module") -> list["nn.Parameter"]:
        names = [name for name, _ in _trainable(module)]
        for own in self.personal:
            if not any(_within(name, own) for name in names):
                raise ConfigError(
                    f"personal part {own!r} is no trainable parameter of the module; allowed: "
                    f"{', '.join(names)}"
                )
        return [p for name, p in _trainable(module) if self._stays(name)]

    def _stays(self, name: str) -> bool:
        return any(_within(name, own) for own in self.personal)


@dataclass(frozen=True, eq=False)
class ModuleModel(Model):
    """A trained module.

    Attributes:
        training: what made it.
        module: of torch, in evaluation mode.
        weights: (p,) float64, all parameters that require gradients.
        classes: names of the C classes.
    """

    training: Training
    module: "nn.Module"
    weights: Floats
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<ModuleModel of '{self.training.name}', {len(self.classes)} classes>"

    def scores(self, features: NDArray[np.floating]) -> Floats:
        """Score rows (n, d) by the module, 512 at a time: (n, C) float64.

        Raises:
            DataError: rows that are not finite, or scores of another shape.
        """
        import torch

        check_finite(features)
        _fill([p for p in self.module.parameters() if p.requires_grad], self.weights)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(features), _BATCH):
                rows = torch.as_tensor(features[start : start + _BATCH], dtype=torch.float32)
                parts.append(self.module(rows).numpy().astype(np.float64))
        found = np.concatenate(parts)
        if found.shape != (len(features), len(self.classes)):
            raise DataError(
                f"the module gives {list(found.shape)}, wanted {[len(features), len(self.classes)]}"
            )
        return found

    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write parameters that require gradients, and the card, which gains `training`."""
        save_weights(path, self.weights, self.classes, card | {"training": self.training.name})


def _built(training: Training, task: Task, seed: int) -> "nn.Module":
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return training.build(task)


def _trainable(module: "nn.Module") -> list[tuple[str, "nn.Parameter"]]:
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def _flat(parameters: list["nn.Parameter"]) -> Floats:
    if not parameters:
        return np.zeros(0)
    return np.concatenate([p.detach().double().numpy().ravel() for p in parameters])


def _fill(parameters: list["nn.Parameter"], values: Floats) -> None:
    import torch

    start = 0
    with torch.no_grad():
        for parameter in parameters:
            size = parameter.numel()
            block = torch.as_tensor(values[start : start + size]).view(parameter.shape)
            parameter.copy_(block)
            start += size


def _digest_of_rest(module: "nn.Module", shared: list["nn.Parameter"]) -> bytes:
    """Hash names and values of all that does not travel: frozen weights, buffers, own parts."""
    import torch

    travels = {id(parameter) for parameter in shared}
    hashed = hashlib.sha256()
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if id(value) not in travels:
            hashed.update(encode((name, str(value.dtype), tuple(value.shape))))
            flat = value.detach().cpu().contiguous().reshape(-1)
            hashed.update(flat.view(torch.uint8).numpy().tobytes())
    return hashed.digest()
