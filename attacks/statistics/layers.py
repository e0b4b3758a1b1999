"""What a layer's sums give away of the images behind them: whole images, and whose they are.

The sums over the positions of a region, one for every offset in a patch, are box sums of the image
at every shift that a patch reaches. For each class that is a linear system for the class's summed
image: with small regions it has one solution. The Gram matrix by itself holds correlations of
pixels near to one another, and no place.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from attacks.attack import ATTACKS, Attack, Known, Measure, Picture, Truth
from attacks.measures.images import correlations, fitted, mean_of_others
from attacks.measures.metrics import mean_of, share
from attacks.statistics.membership import MembershipAttack, Scores
from attacks.views.knowledge import finest, subset_sums, task_of
from attacks.views.run import RunView
from secure_afl.analytic.layers.maps import MapShape, standardised, whole
from secure_afl.analytic.layers.patches import LayerShape, LayerStatistics, patches, region_sums
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError
from secure_afl.methods.fedacnnl import FedACnnL

# Of the system's mean diagonal entry: enough to fill in what the sums leave open, by smoothness,
# and too little to change what they say.
_SMOOTHNESS = 1e-7
# From this correlation on an image counts as recovered.
RECOVERED = 0.9
_PICTURES = 6


@dataclass(frozen=True, eq=False)
class LayerTarget:
    """A first layer's sums over a set of clients that a coalition has, to be attacked.

    Attributes:
        clients: whose images they are of.
        statistics: in integers, as summed.
        shape: of the layer.
    """

    clients: frozenset[str]
    statistics: LayerStatistics
    shape: LayerShape

    def __repr__(self) -> str:
        return f"<LayerTarget of {len(self.clients)} clients>"

    @property
    def counts(self) -> Floats:
        """Images of each class, (C,): the constant's sums over the positions of an image."""
        masses = self.statistics.cross[-1].sum(axis=1)
        return np.asarray(masses / (self.shape.maps.positions * self.shape.steps))


def layer_targets(view: RunView) -> list[LayerTarget]:
    """List the finest sums of the first layer that the coalition has; none without such a layer."""
    method = view.method
    if not (view.publics and isinstance(method, FedACnnL) and method.kind.needs_sum):
        return []
    task, layout = task_of(view), view.rounds[0].session.layout
    shape = method.network(task).layer(0)
    return [
        LayerTarget(
            found.clients,
            LayerStatistics.unpack(found.vector, layout, len(task.classes)),
            shape,
        )
        for found in finest(subset_sums(view, 0))
    ]


@dataclass(frozen=True, eq=False)
class ClassImage:
    """The image that a class's sums are those of, (h, w, channels), and of how many images."""

    clients: frozenset[str]
    label: int
    image: Floats
    count: float

    def __repr__(self) -> str:
        return f"<ClassImage of class {self.label}>"


def class_images(target: LayerTarget) -> list[ClassImage]:
    """Rebuild each class's mean image from its sums by region."""
    found = []
    for label, count in enumerate(target.counts):
        if count >= 0.5:
            sums = target.statistics.cross[:-1, label].astype(np.float64)
            image = deconvolved(sums, target.shape) / (count * target.shape.steps)
            found.append(ClassImage(target.clients, label, image, float(count)))
    return found


def deconvolved(sums: Floats, shape: LayerShape) -> Floats:
    """Solve for the image (h, w, channels) of sums (p, R), the smoothest where several fit."""
    height, width, channels = shape.maps
    grey = replace(shape, maps=MapShape(height, width, 1))
    system, factor = _system(grey)
    by_channel = sums.reshape(shape.kernel**2, channels, -1)
    image = np.empty(shape.maps)
    for channel in range(channels):
        right = system.T @ by_channel[:, channel].ravel()
        image[..., channel] = cho_solve(factor, right).reshape(height, width)
    return image


@lru_cache(maxsize=4)
def _system(shape: LayerShape) -> tuple[Floats, tuple[Floats, bool]]:
    """Return the map from a grey image to its sums (p·R, h·w), and a factor of its equations."""
    height, width, _ = shape.maps
    size = height * width
    rows = []
    for start in range(0, size, 128):
        units = np.eye(size)[start : start + 128].reshape(-1, height, width, 1)
        summed = region_sums(patches(units, shape.kernel), shape.regions)
        rows.append(summed.transpose(0, 2, 1).reshape(len(units), -1))
    system = np.concatenate(rows).T
    normal = system.T @ system
    grid = np.arange(size).reshape(height, width)
    for near, far in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        step = np.zeros((near.size, size))
        step[np.arange(near.size), near.ravel()] = 1.0
        step[np.arange(near.size), far.ravel()] = -1.0
        normal = normal + _SMOOTHNESS * np.trace(system.T @ system) / size * (step.T @ step)
    normal += 1e-12 * np.trace(normal) / size * np.eye(size)
    return system, cho_factor(normal)


@ATTACKS.register
class LayerImages(Attack[list[ClassImage]]):
    """Whole images out of a layer's sums: each class's mean image, by a linear system.

    An image alone in its class is rebuilt itself, up to brightness and contrast, which the layer
    never sees; of several in a class their mean.
    """

    name = "layer-images"
    wants = "a layer's sums over patches"

    def claim(
        self, view: RunView, known: Known, rng: np.random.Generator
    ) -> list[ClassImage] | None:
        """Rebuild a mean image for every class of each of the finest sums; None without sums."""
        found = [image for target in layer_targets(view) for image in class_images(target)]
        return found or None

    def judge(
        self, claim: list[ClassImage] | None, truth: Truth, confidence: float = 0.95
    ) -> list[Measure]:
        """Correlate every true image with what was rebuilt of its class.

        Chance is the mean of the other true images.
        """
        pairs = _pairs(claim or [], truth)
        likeness = [_alike(true, rebuilt) for true, rebuilt in pairs]
        chance = 0.0
        if len(pairs) > 1:
            stack = np.array([true for true, _ in pairs])
            guessed = zip(stack, mean_of_others(stack), strict=True)
            chance = float(np.mean([_alike(true, other) for true, other in guessed]))
        recovered = sum(value >= RECOVERED for value in likeness)
        return [
            mean_of(
                likeness,
                chance,
                confidence=confidence,
                metric="image correlation",
                bounds=(-1.0, 1.0),
            ),
            share(recovered, len(pairs), 0.0, confidence=confidence, metric="images recovered"),
        ]

    def pictures(self, claim: list[ClassImage] | None, truth: Truth) -> list[Picture]:
        """Return the first images, at the brightness and contrast that fit best."""
        return [
            Picture("from a layer's sums", true, fitted(true, rebuilt))
            for true, rebuilt in _pairs(claim or [], truth)[:_PICTURES]
        ]


@ATTACKS.register
class LayerMembership(MembershipAttack):
    """A member's patches by region are part of its class's sums.

    Public images give the mean m and the deviations σ of the sums of one image. With S of the
    class, n its images and s of the candidate, all over σ, a = s − m and b = S − n·m:
    (⟨a, b⟩ − ½‖a‖²)/n − ½‖b‖²/n², which is 0 for the one image of a class and else below.
    """

    name = "layer-membership"
    wants = "a layer's sums over patches"
    assumes = (*MembershipAttack.assumes, "public images of the same kind")

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Scores | None:
        """Score each candidate (m,); None where the coalition has no layer's sums.

        Raises:
            ConfigError: candidates with labels, or public images, are missing.
        """
        found = layer_targets(view)
        if not found:
            return None
        images, public = known.extra.get("raw_candidates"), known.extra.get("raw_public")
        if images is None or public is None or known.candidate_labels is None:
            raise ConfigError(
                "an attack on a layer's membership needs candidates, their labels and public "
                "images as they come, which are missing"
            )
        scores = [_scores(target, images, known.candidate_labels, public) for target in found]
        clients = frozenset().union(*(target.clients for target in found))
        return Scores(np.max(scores, axis=0), clients)


def _scores(
    target: LayerTarget, images: Floats, labels: NDArray[np.int64], public: Floats
) -> Floats:
    own, others = _image_sums(images, target.shape), _image_sums(public, target.shape)
    mean, deviation = others.mean(axis=0), others.std(axis=0)
    deviation += 1e-3 * deviation.mean() + 1e-12
    counts = np.maximum(target.counts, 1.0)
    summed = target.statistics.cross[:-1].astype(np.float64).transpose(1, 0, 2)
    excess = (summed.reshape(len(counts), -1) - counts[:, None] * mean) / deviation
    apart = (own - mean) / deviation
    found: Floats = (apart * excess[labels]).sum(axis=1) - 0.5 * np.square(apart).sum(axis=1)
    found = found / counts[labels]
    found -= 0.5 * (np.square(excess).sum(axis=1) / counts**2)[labels]
    return found


def _image_sums(images: Floats, shape: LayerShape) -> Floats:
    """Return the sums (n, p·R) of each image (n, d) by itself, in integers."""
    maps = whole(standardised(images), shape.steps).reshape(-1, *shape.maps)
    found = np.empty((len(maps), shape.patch * shape.regions**2))
    for row in range(len(maps)):
        summed = region_sums(patches(maps[row : row + 1], shape.kernel), shape.regions)[0]
        found[row] = summed.T.ravel()
    return found


def _pairs(claim: list[ClassImage], truth: Truth) -> list[tuple[Floats, Floats]]:
    """Pair every true image of the sums with what was rebuilt of its class.

    Raises:
        ConfigError: the truth has no images, or has them at another size.
    """
    found = []
    for name, data in truth.clients.items():
        rebuilt = {image.label: image for image in claim if name in image.clients}
        if not rebuilt:
            continue
        if name not in truth.images:
            raise ConfigError(
                "an attack on images is judged against Truth.images, which is missing"
            )
        for true, label in zip(truth.images[name], data.labels.tolist(), strict=True):
            image = rebuilt.get(label)
            blank = np.zeros(true.shape)
            if image is not None and image.image.shape != true.shape:
                raise ConfigError(
                    f"images are {list(image.image.shape)} in the layer and {list(true.shape)} in "
                    "the truth; pass --image-size with the size of the images"
                )
            found.append(
                (np.asarray(true, dtype=np.float64), blank if image is None else image.image)
            )
    return found


def _alike(true: Floats, rebuilt: Floats) -> float:
    return float(correlations(true[None], rebuilt[None])[0, 0])
