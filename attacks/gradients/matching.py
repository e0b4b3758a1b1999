"""Images whose gradient is the one that was seen, by optimisation. Needs torch.

One loop serves all such attacks. Each says what it minimises (an objective), what it varies
(variables) and what it takes images to be like (a prior).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

import msgspec

from attacks.gradients.victim import Victim
from secure_afl.checks import check_choice, settle_float, settle_int
from secure_afl.errors import ConfigError

if TYPE_CHECKING:
    import torch

MAX_STEPS = 1_000_000
# Steps of L-BFGS between two looks at the images, and how many of them it remembers.
_INNER, _MEMORY = 20, 100

Optimiser = Literal["adam", "lbfgs"]


class Variables(Protocol):
    """The tensors that are varied, and the images that they stand for."""

    def tensors(self) -> list["torch.Tensor"]:
        """Return leaves that require a gradient."""

    def images(self) -> "torch.Tensor":
        """Return (n, channels, h, w), differentiable by the tensors."""

    def project(self) -> None:
        """Bring the tensors back to where they may be; called after every step."""


@runtime_checkable
class Restartable(Variables, Protocol):
    """Variables that can begin anew."""

    def restart(self, random: "torch.Generator") -> None:
        """Take another point to begin at."""


# What the found gradient (p,) lacks of the wanted one, a scalar; and how unlikely images are.
Objective = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
Prior = Callable[["torch.Tensor"], "torch.Tensor"]


class MatchSettings(msgspec.Struct, frozen=True):
    """Settings of the search for images.

    Attributes:
        steps: ≥ 1; each of L-BFGS is up to 20 of its iterations.
        rate: > 0; Adam's falls tenfold after 3/8, 5/8 and 7/8 of the steps.
        optimiser: `lbfgs` as in DLG, or `adam`.
        signed: only the signs of the derivatives count, for Adam.
        restarts: how often it begins, ≥ 1; the one that matches best counts.
        seed: of the points to begin at.
    """

    steps: int = 1000
    rate: float = 0.1
    optimiser: Optimiser = "adam"
    signed: bool = True
    restarts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        settle_int(self, "steps", 1, MAX_STEPS)
        settle_float(self, "rate", 1e-9, 1e3)
        check_choice(self, "optimiser", get_args(Optimiser))
        settle_int(self, "restarts", 1, 1000)
        settle_int(self, "seed", 0, 2**63 - 1)


class Pixels:
    """The images themselves, kept in 0..1.

    Args:
        shape: (n, channels, h, w).
        start: to begin with, of that shape.
        spread: a restart begins with uniform noise so wide, around grey; 0..1.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], start: "torch.Tensor", spread: float = 1.0
    ) -> None:
        if tuple(start.shape) != tuple(shape):
            raise ConfigError(f"a start of shape {list(start.shape)}; wanted {list(shape)}")
        self._pixels = start.detach().clone().requires_grad_(True)
        self._spread = spread

    @classmethod
    def noise(
        cls,
        shape: tuple[int, int, int, int],
        seed: int,
        dtype: "torch.dtype | None" = None,
        spread: float = 1.0,
    ) -> "Pixels":
        """Make pixels from such noise; float64 unless said otherwise."""
        import torch

        begun = cls(shape, torch.empty(shape, dtype=dtype or torch.float64), spread)
        begun.restart(torch.Generator().manual_seed(seed))
        return begun

    def tensors(self) -> list["torch.Tensor"]:
        """Return the one leaf, the pixels (n, channels, h, w)."""
        return [self._pixels]

    def images(self) -> "torch.Tensor":
        """Return the pixels (n, channels, h, w) themselves."""
        return self._pixels

    def project(self) -> None:
        """Clamp every pixel into 0..1, in place."""
        import torch

        with torch.no_grad():
            self._pixels.clamp_(0, 1)

    def restart(self, random: "torch.Generator") -> None:
        """Draw all pixels anew, in place, uniformly from 0.5 ± spread/2."""
        import torch

        with torch.no_grad():
            self._pixels.uniform_(0.5 - self._spread / 2, 0.5 + self._spread / 2, generator=random)


def squared_error(found: "torch.Tensor", wanted: "torch.Tensor") -> "torch.Tensor":
    """Return ‖found − wanted‖² over ‖wanted‖²: DLG's (Zhu et al. 2019), free of scale."""
    return (found - wanted).square().sum() / wanted.square().sum()


def cosine_distance(found: "torch.Tensor", wanted: "torch.Tensor") -> "torch.Tensor":
    """Return 1 − cos(found, wanted) (Geiping et al. 2020, eq. 4)."""
    import torch

    return 1 - torch.nn.functional.cosine_similarity(found, wanted, dim=0)


def total_variation(weight: float) -> Prior:
    """Return `weight` times the mean difference of neighbouring pixels, down and to the right."""

    def prior(images: "torch.Tensor") -> "torch.Tensor":
        down = (images[:, :, 1:, :] - images[:, :, :-1, :]).abs().mean()
        right = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean()
        return weight * (down + right)

    return prior


def match(
    victim: Victim,
    wanted: "torch.Tensor",
    labels: "torch.Tensor",
    variables: Variables,
    objective: Objective,
    prior: Prior | None,
    settings: MatchSettings,
) -> "torch.Tensor":
    """Find images of which the victim's gradient is most like the wanted one.

    min objective(∇L(images), wanted) + prior(images), by the variables. Of everything on the way,
    over all restarts, what makes this least is returned.

    Args:
        victim: at the parameters that the gradient was taken at.
        wanted: (p,) the gradient that was seen.
        labels: (n,) int64 of the images.
        variables: n images, where to begin.
        objective: such as `squared_error` or `cosine_distance`.
        prior: such as `total_variation(1e-2)`, or None.
        settings: of the optimisation.

    Returns:
        (n, channels, h, w) in 0..1.

    Raises:
        ConfigError: restarts asked for of variables that cannot begin anew, a gradient of another
            length than the victim's, or one that is zero or not finite.
    """
    import torch

    _check(victim, wanted, variables, settings)
    wanted = wanted.to(victim.parameters)
    random = torch.Generator().manual_seed(settings.seed)
    tensors = variables.tensors()
    best, least = variables.images().detach().clone(), float("inf")

    def loss_now() -> torch.Tensor:
        images = variables.images()
        loss = objective(victim.gradients(images, labels, graph=True), wanted)
        return loss if prior is None else loss + prior(images)

    def keep(loss: float) -> None:
        nonlocal best, least
        if loss < least:
            best, least = variables.images().detach().clone(), loss

    def closure() -> float:
        loss = loss_now()
        for tensor, gradient in zip(tensors, torch.autograd.grad(loss, tensors), strict=True):
            # L-BFGS takes no gradient of a turned image.
            tensor.grad = (gradient.sign() if _signed(settings) else gradient).contiguous()
        keep(float(loss.detach()))
        return float(loss.detach())

    for restart in range(settings.restarts):
        if restart:
            assert isinstance(variables, Restartable), "checked"
            variables.restart(random)
        optimiser, schedule = _optimiser(tensors, settings)
        for _ in range(settings.steps):
            optimiser.step(closure)
            variables.project()
            if schedule is not None:
                schedule.step()
        keep(float(loss_now().detach()))
    return best.clamp(0, 1)


def _optimiser(
    tensors: list["torch.Tensor"], settings: MatchSettings
) -> tuple["torch.optim.Optimizer", "torch.optim.lr_scheduler.LRScheduler | None"]:
    import torch

    if settings.optimiser == "lbfgs":
        quasi_newton = torch.optim.LBFGS(
            tensors,
            lr=settings.rate,
            max_iter=_INNER,
            history_size=_MEMORY,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        return quasi_newton, None
    adam = torch.optim.Adam(tensors, lr=settings.rate)
    milestones = [settings.steps * eighths // 8 for eighths in (3, 5, 7)]
    return adam, torch.optim.lr_scheduler.MultiStepLR(adam, milestones, gamma=0.1)


def _signed(settings: MatchSettings) -> bool:
    return settings.signed and settings.optimiser == "adam"


def _check(
    victim: Victim, wanted: "torch.Tensor", variables: Variables, settings: MatchSettings
) -> None:
    if wanted.shape != victim.parameters.shape:
        raise ConfigError(
            f"a gradient of shape {list(wanted.shape)} for {len(victim.parameters)} parameters; "
            "give the network that it is of"
        )
    if not bool(wanted.isfinite().all()) or not bool(wanted.any()):
        raise ConfigError("the gradient is zero or not finite; there is nothing to match")
    if settings.restarts > 1 and not isinstance(variables, Restartable):
        raise ConfigError(
            f"restarts {settings.restarts} of {type(variables).__name__}, which cannot begin "
            "anew; allowed: 1"
        )
