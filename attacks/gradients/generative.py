"""Images whose gradient fits, looked for among those that a generator can make. Needs torch.

Fang et al., "GIFD: A generative gradient inversion method with feature domain optimization", ICCV
2023: first the latent, then the feature map behind each stage of the generator in turn, every
one from where the one before ended and no further from there than an ℓ1 ball reaches.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from attacks.attack import ATTACKS, Known
from attacks.features.stacks import resize_stack
from attacks.gradients.analytic import labels_of_head
from attacks.gradients.generator import Generator, GeneratorRecipe, train_generator
from attacks.gradients.inversion import Found, GradientClaim, RowAttack, victim_of
from attacks.gradients.matching import MatchSettings, cosine_distance, match, total_variation
from attacks.gradients.updates import averaging_of, gradient_of, has_gradients, rows_of
from attacks.gradients.victim import Victim
from attacks.views.knowledge import SubsetSum
from attacks.views.run import RunView
from secure_afl.checks import settle_float, settle_int
from secure_afl.errors import ConfigError
from secure_afl.methods import ConvNet

if TYPE_CHECKING:
    import torch

# Entries of a standard normal latent beyond this are of no image that was learned from.
_WIDEST = 3.0


class GenerativeSettings(msgspec.Struct, frozen=True):
    """Settings of the search for the latent and the maps.

    Attributes:
        latent: the search for the latent; each of its restarts is a search from a random one, and
            the best one goes on.
        maps: the search for each feature map; restarts are not used.
        last: the last stage whose output is varied, counted from 0; −1 varies the latent only, and
            a number beyond the generator's last map all maps. The last ones are almost free
            pixels, and fit noise as well as those do.
        radius: of the ℓ1 ball around each map that a stage begins with, as a share of that map's
            ℓ1 norm; > 0.
        smoothness: weight of the total variation of the images, ≥ 0.
    """

    latent: MatchSettings = MatchSettings(steps=300, rate=0.1, signed=False, restarts=4)
    maps: MatchSettings = MatchSettings(steps=300, rate=0.03, signed=False)
    last: int = 2
    radius: float = 0.1
    smoothness: float = 1e-2

    def __post_init__(self) -> None:
        for name in ("latent", "maps"):
            if getattr(self, name).optimiser != "adam":
                raise ConfigError(f"{name} searches by L-BFGS, which projections disturb; use adam")
        settle_int(self, "last", -1, 99)
        settle_float(self, "radius", 1e-9, 1e9)
        settle_float(self, "smoothness", 0, 1e6)


class Latent:
    """The input of a generator, kept within ±3.

    Args:
        generator: whose.
        start: (n, l) float32.
        dtype: of the images.
    """

    def __init__(
        self, generator: Generator, start: "torch.Tensor", dtype: "torch.dtype | None" = None
    ) -> None:
        self._generator = generator
        self._dtype = dtype or start.dtype
        self.value = start.detach().clone().requires_grad_(True)

    def tensors(self) -> "list[torch.Tensor]":
        """Return the one leaf, the latent (n, l)."""
        return [self.value]

    def images(self) -> "torch.Tensor":
        """Generate images (n, channels, side, side) from the latent, cast to `dtype`."""
        return self._generator.run(self.value).to(self._dtype)

    def project(self) -> None:
        """Clamp every entry of the latent into ±3, in place."""
        import torch

        with torch.no_grad():
            self.value.clamp_(-_WIDEST, _WIDEST)


class FeatureMap:
    """Input of a later stage, kept in an ℓ1 ball around its start.

    Args:
        generator: whose.
        first: the stage that takes it, ≥ 1.
        start: (n, channels, h, w) float32.
        radius: of each image's ball, as a share of ‖start‖₁.
        dtype: of the images.
    """

    def __init__(
        self,
        generator: Generator,
        first: int,
        start: "torch.Tensor",
        radius: float,
        dtype: "torch.dtype | None" = None,
    ) -> None:
        self._generator = generator
        self._first = first
        self._dtype = dtype or start.dtype
        self._start = start.detach().clone()
        self._radii = radius * self._start.flatten(1).abs().sum(dim=1)
        self.value = self._start.clone().requires_grad_(True)

    def tensors(self) -> "list[torch.Tensor]":
        """Return the one leaf, the feature map (n, channels, h, w)."""
        return [self.value]

    def images(self) -> "torch.Tensor":
        """Run the stages from `first` on: images (n, channels, side, side), cast to `dtype`."""
        return self._generator.run(self.value, self._first).to(self._dtype)

    def project(self) -> None:
        """Move each image's map to the nearest point of its ℓ1 ball, in place."""
        import torch

        with torch.no_grad():
            moved = (self.value - self._start).flatten(1)
            inside = project_l1(moved, self._radii).view_as(self.value)
            self.value.copy_(self._start + inside)


def project_l1(rows: "torch.Tensor", radii: "torch.Tensor") -> "torch.Tensor":
    """Project each row onto an ℓ1 ball around 0.

    Duchi et al., ICML 2008, figure 1.

    Args:
        rows: (n, d).
        radii: (n,), > 0.
    """
    import torch

    sizes = rows.abs()
    ordered = sizes.sort(dim=1, descending=True).values
    count = torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype)
    thresholds = (ordered.cumsum(dim=1) - radii[:, None]) / count
    kept = (ordered > thresholds).sum(dim=1, keepdim=True).clamp(min=1)
    threshold = thresholds.gather(1, kept - 1).clamp(min=0)
    return rows.sign() * (sizes - threshold).clamp(min=0)


@dataclass(frozen=True, eq=False)
class Generated:
    """The images that the search found.

    Attributes:
        images: (n, channels, h, w) in 0..1, those that match best of all stages.
        losses: what the search made least: by the latent, then by each map.
        stages: the images that each of them ended with; `images` is among them.
    """

    images: "torch.Tensor"
    losses: tuple[float, ...]
    stages: "tuple[torch.Tensor, ...]"


def invert_with_generator(
    victim: Victim,
    wanted: "torch.Tensor",
    labels: "torch.Tensor",
    generator: Generator,
    settings: GenerativeSettings | None = None,
) -> Generated:
    """Find images of which the victim's gradient points where the wanted one does.

    1 − cos and the total variation, as Inverting Gradients, over what the generator can make.

    Args:
        victim: at the parameters that the gradient was taken at.
        wanted: (p,) the gradient that was seen.
        labels: (n,) int64 of the images.
        generator: of images of the victim's shape.
        settings: by default `GenerativeSettings()`.

    Raises:
        ConfigError: the generator's images are of another shape, or as `match`.
    """
    import torch

    settings = settings or GenerativeSettings()
    card = generator.card
    if victim.shape != (card.channels, card.side, card.side):
        raise ConfigError(
            f"the generator makes images {[card.channels, card.side, card.side]}, the victim takes "
            f"{list(victim.shape)}; train one for these"
        )
    dtype = victim.parameters.dtype
    wanted = wanted.to(victim.parameters)
    prior = total_variation(settings.smoothness)

    def search(variables: Latent | FeatureMap, how: MatchSettings) -> "tuple[float, torch.Tensor]":
        once = msgspec.structs.replace(how, restarts=1)
        images = match(victim, wanted, labels, variables, cosine_distance, prior, once)
        loss = cosine_distance(victim.gradients(images, labels), wanted) + prior(images)
        return float(loss), images

    random = torch.Generator().manual_seed(settings.latent.seed)
    tries = []
    for _ in range(settings.latent.restarts):
        latent = Latent(
            generator, torch.randn(len(labels), card.recipe.latent, generator=random), dtype
        )
        tries.append((*search(latent, settings.latent), latent.value.detach()))
    loss, images, value = min(tries, key=lambda one: one[0])
    losses, found = [loss], [images]
    maps = len(generator.stages) - 1
    for first in range(1, min(settings.last + 1, maps) + 1):
        start = generator.run(value, first - 1, first)
        variables = FeatureMap(generator, first, start, settings.radius, dtype)
        loss, images = search(variables, settings.maps)
        # Where the search ended, which is next to the best it saw: its rate has fallen by then.
        value = variables.value.detach()
        losses.append(loss)
        found.append(images)
    best = min(range(len(losses)), key=losses.__getitem__)
    return Generated(found[best], tuple(losses), tuple(found))


@ATTACKS.register
class GradientGenerative(RowAttack):
    """Looks for the images among those that a generator of public ones can make.

    GIFD (Fang et al., ICCV 2023), see `invert_with_generator`. Labels are those of
    `labels_of_head`; of a sum of n clients the images are looked for together, as one batch.

    `Known.extra`, where the attack has no generator of its own: `generator`; or `public_images`
    (p, h, w, channels) in 0..1, of which one is trained, in minutes. A ConvNet of images of 8, 16
    or 32 pixels each way.

    Args:
        generator: of images of the victim's shape.
        settings: by default `GenerativeSettings()`.
        recipe: of the training where there is no generator yet.
        most: sums at most.
        max_rows: images of one sum at most; a sum of more is taken for one of so many.
    """

    name = "gradient-generative"
    wants = "a sum of updates of a ConvNet"
    assumes = ("public images of the same kind",)
    costly = True

    def __init__(
        self,
        generator: Generator | None = None,
        settings: GenerativeSettings | None = None,
        recipe: GeneratorRecipe | None = None,
        most: int = 4,
        max_rows: int = 16,
    ) -> None:
        super().__init__(most)
        self.generator = generator
        self.settings = settings or GenerativeSettings()
        self.recipe = recipe or GeneratorRecipe()
        self.max_rows = max_rows

    def takes(self, view: RunView) -> bool:
        """Return whether the run trained a ConvNet."""
        return isinstance(averaging_of(view)[0].architecture, ConvNet)

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> GradientClaim | None:
        """Return images of the sums.

        Raises:
            ConfigError: torch is missing, there is neither a generator nor public images, or they
                are of another shape than the run's.
        """
        if self.generator is not None or not has_gradients(view) or not self.takes(view):
            return super().claim(view, known, rng)
        generator = known.extra.get("generator") or self._trained(view, known)
        ready = type(self)(generator, self.settings, self.recipe, self.most, self.max_rows)
        return ready.claim(view, known, rng)

    def find(self, subset: SubsetSum, view: RunView, rng: np.random.Generator) -> Found:
        """Search the generator for the images behind one sum, by GIFD.

        Rows are float64 (n, h·w·channels) in 0..1; of more than `max_rows` labels chance keeps that
        many.

        Raises:
            ConfigError: torch is missing, the generator's images are of another shape than the
                run's, or the gradient is zero or not finite.
        """
        import torch

        assert self.generator is not None, "claim sees to it"
        victim = victim_of(view)
        gradient = gradient_of(view, subset)
        labels = labels_of_head(gradient[-victim.classes :], rows_of(view, subset))
        if len(labels) > self.max_rows:
            labels = np.sort(rng.choice(labels, self.max_rows, replace=False))
        images = invert_with_generator(
            victim,
            torch.from_numpy(gradient),
            torch.from_numpy(labels),
            self.generator,
            self.settings,
        ).images
        rows = images.permute(0, 2, 3, 1).flatten(1).numpy()
        return Found(subset.clients, labels, rows)

    def _trained(self, view: RunView, known: Known) -> Generator:
        images = known.extra.get("public_images")
        if images is None:
            raise ConfigError(
                f"{self.name} knows neither a generator nor public images; give "
                "Known.extra['generator'] or Known.extra['public_images']"
            )
        channels, height, width = victim_of(view).shape
        if height != width or images.shape[3] != channels:
            raise ConfigError(
                f"public images are {list(images.shape)}, the run's {[height, width, channels]}; "
                "give square ones with the same channels"
            )
        stack = np.ascontiguousarray(resize_stack(images, height).transpose(0, 3, 1, 2))
        key = hashlib.sha256(repr((self.recipe, stack.shape)).encode() + stack.tobytes()).digest()
        if key not in _TRAINED:
            _TRAINED[key] = train_generator(stack, self.recipe)
        return _TRAINED[key]


# Several views of one run are attacked with the same public images.
_TRAINED: dict[bytes, Generator] = {}
