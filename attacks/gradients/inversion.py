"""Attacks on gradients: who took a step sees what it was taken on. Those by search need torch."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import linear_sum_assignment

from attacks.attack import ATTACKS, Attack, Known, Measure, Picture, Truth
from attacks.gradients.analytic import (
    class_sums_of_head,
    columns_of_head,
    labels_of_head,
    labels_of_weights,
    row_of_head,
)
from attacks.gradients.matching import (
    MatchSettings,
    Objective,
    Pixels,
    Prior,
    cosine_distance,
    match,
    squared_error,
    total_variation,
)
from attacks.gradients.updates import averaging_of, gradient_of, has_gradients, rows_of
from attacks.gradients.victim import ConvNetVictim, Victim
from attacks.measures.images import correlations, fitted, mean_of_others, psnr, ranks, ssim
from attacks.measures.metrics import mean_of, share
from attacks.views.knowledge import SubsetSum, finest, subset_sums
from attacks.views.run import RunView
from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.features.pixels import Pixels as PixelBackbone
from secure_afl.methods import ConvNet, FedSGD, Linear

# Height, width and channels.
ImageShape = tuple[int, int, int]
Images = NDArray[np.floating[Any]]

LABELS = "label accuracy"
ROWS = "SNR of the row, dB"
PSNR, PSNR_OVER_MEAN, SSIM = "PSNR, dB", "PSNR over the mean image, dB", "SSIM"
RETRIEVAL = "retrieval@1"

# An image at this PSNR cannot be told from the true one: what success is measured against.
_GOOD_PSNR = 40.0
# What integers of 24 bits leave of a row: complete success.
_GOOD_SNR = 100.0
# Rows that are equal in every bit count as this many dB.
_MAX_SNR = 320.0
# More than all correlations together could make up for: labels go first where rows are matched.
_OTHER_LABEL = 10.0


@dataclass(frozen=True, eq=False)
class Found:
    """The images and rows rebuilt of one sum.

    Attributes:
        clients: whose gradients are in it.
        labels: (n,) int64.
        rows: (n, d) as the model was given them, at a scale and an offset that may be unknown;
            none where only labels are claimed.
    """

    clients: frozenset[str]
    labels: Integers
    rows: Images | None = None

    def __repr__(self) -> str:
        return f"<Found {len(self.labels)} rows of {len(self.clients)} clients>"


@dataclass(frozen=True, eq=False)
class GradientClaim:
    """The claim that an attack made of a view.

    Attributes:
        found: one for each sum, no client in two.
        classes: C.
        shape: of the images that rows are, None where they are none.
    """

    found: Sequence[Found]
    classes: int
    shape: ImageShape | None = None

    def __repr__(self) -> str:
        return f"<GradientClaim on {len(self.found)} sums>"


class _Pair(NamedTuple):
    """A rebuilt row and the place of the one it is judged against.

    The place is among all clients' rows.

    Attributes:
        alone: the sum was of this row only, so that there was nothing to choose.
    """

    row: Images
    place: int
    alone: bool


class GradientAttack(Attack[GradientClaim]):
    """Base of attacks on the finest sums of gradients that a coalition has, in the first round.

    Args:
        most: how many sums are attacked at most; chance decides which.
    """

    wants: ClassVar[str] = "a sum of FedSGD's or FedAvg's updates"

    def __init__(self, most: int = 1000) -> None:
        self.most = most

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> GradientClaim | None:
        """Find what each sum gives away.

        Raises:
            ConfigError: torch is missing.
        """
        if not has_gradients(view) or not self.takes(view):
            return None
        sums = finest(subset_sums(view))
        if not sums:
            return None
        chosen = sorted(rng.permutation(len(sums))[: self.most])
        found = [self.find(sums[index], view, rng) for index in chosen]
        classes = len(view.publics[0].task.classes)
        return GradientClaim(found, classes, _image_shape(view, known))

    def takes(self, view: RunView) -> bool:
        """Say whether the attack knows what to do with this architecture."""
        return True

    @abstractmethod
    def find(self, subset: SubsetSum, view: RunView, rng: np.random.Generator) -> Found:
        """Find what one sum gives away."""

    def judge(
        self, claim: GradientClaim | None, truth: Truth, confidence: float = 0.95
    ) -> list[Measure]:
        """Judge labels by the number right, rows and images against the likest true ones.

        The number is of a sum's labels.

        Rows of one sum are matched to the true ones, by label first and then by correlation. Images
        are compared at the brightness and contrast that fit best, for a gradient may tell neither;
        the same is done for the mean of all other images, which a guess would show.
        """
        return [self._judge_labels(claim, truth, confidence)]

    def _judge_labels(
        self, claim: GradientClaim | None, truth: Truth, confidence: float
    ) -> Measure:
        right, of, expected = 0, 0, 0.0
        for found in [] if claim is None else claim.found:
            assert claim is not None
            true = _true_labels(found.clients, truth)
            right += _overlap(found.labels, true, claim.classes)
            expected += _chance_overlap(len(found.labels), true, claim.classes)
            of += len(found.labels)
        chance = expected / of if of else 1 / max(1, _classes(claim, truth))
        return share(right, of, chance, 1.0, confidence, LABELS)


class RowAttack(GradientAttack):
    """Base of attacks that rebuild rows, which are images where the model sees pixels."""

    def judge(
        self, claim: GradientClaim | None, truth: Truth, confidence: float = 0.95
    ) -> list[Measure]:
        """Score labels, then rows by SNR in dB or images by PSNR and SSIM.

        Images, where the claim has a shape, are also scored by retrieval among all true ones. A
        claim that rebuilt no row is scored as images without a trial.
        """
        labels = self._judge_labels(claim, truth, confidence)
        pairs = [] if claim is None else _pairs(claim, truth)
        if claim is None or not pairs:
            return [labels, *_nothing(confidence)]
        stack = np.concatenate([data.features for data in truth.clients.values()])
        if claim.shape is None:
            decibels = [_snr(stack[pair.place], pair.row) for pair in pairs]
            return [labels, mean_of(decibels, 0.0, _GOOD_SNR, confidence, ROWS)]
        return [labels, *_judge_images(pairs, _as_images(stack, claim.shape), confidence)]

    def pictures(self, claim: GradientClaim | None, truth: Truth) -> list[Picture]:
        """Pair each rebuilt image with the true one that it is judged against.

        Rebuilt images have the brightness and contrast that fit best. Rows that are features, not
        pixels, give no pictures.
        """
        if claim is None or claim.shape is None:
            return []
        stack = np.concatenate([data.features for data in truth.clients.values()])
        shown = []
        for found in claim.found:
            who = next(iter(found.clients)) if len(found.clients) == 1 else None
            of = who or f"{len(found.clients)} clients"
            one = GradientClaim([found], claim.classes, claim.shape)
            for row, place, _ in _pairs(one, truth):
                true, rebuilt = (_as_images(x, claim.shape)[0] for x in (stack[place], row))
                caption = f"{of}: one of {len(found.labels)} rows"
                shown.append(Picture(caption, true, fitted(true, rebuilt)))
        return shown


@ATTACKS.register
class GradientLabels(GradientAttack):
    """Reads the classes off the gradient of the last layer (iDLG, Zhao et al. 2020).

    Of one row exactly: its class has the only negative entry. Of n rows by how negative each is,
    see `labels_of_head`.
    """

    name = "gradient-labels"

    def find(self, subset: SubsetSum, view: RunView, rng: np.random.Generator) -> Found:
        """Read the labels (n,) of one sum off its gradient; claim no rows."""
        gradient = gradient_of(view, subset)
        return Found(subset.clients, _labels(view, gradient, rows_of(view, subset)))


@ATTACKS.register
class GradientLinear(RowAttack):
    """Reads rows off the gradient of a linear head, where it has rank one.

    The head here is a softmax without bias, trained on features: of one row f of class y its
    gradient is f(p − y)ᵀ, which gives f up to what rounding took (`row_of_head`). A sum of several
    rows gives each class's column, a blend (`columns_of_head`); and in the first round, where a
    class is absent, the very sum of each class's rows (`class_sums_of_head`).

    `Known.extra`: with `image_shape` (h, w, channels), rows of so many values are taken for pixels.
    """

    name = "gradient-linear"
    wants = "a sum of updates of a linear head"

    def takes(self, view: RunView) -> bool:
        """Return whether the run trained a linear head."""
        return isinstance(averaging_of(view)[0].architecture, Linear)

    def find(self, subset: SubsetSum, view: RunView, rng: np.random.Generator) -> Found:
        """Read labels (n,) and rows (n, d) float64 off one sum's gradient (d, C).

        A sum of one row gives it with its length; a sum of more gives, for each label, a direction
        of norm 1.
        """
        _, public = averaging_of(view)
        shape = (public.task.feature_dim, len(public.task.classes))
        gradient = gradient_of(view, subset)
        number = rows_of(view, subset)
        labels = _labels(view, gradient, number)
        if number > 1:
            columns = gradient.reshape(shape)
            if not public.parameters.any() and len(np.unique(labels)) < shape[1]:
                columns = -class_sums_of_head(columns, number)
            return Found(subset.clients, labels, columns_of_head(columns, labels))
        weights = public.parameters.reshape(shape)
        row = row_of_head(gradient.reshape(shape), weights, int(labels[0]))
        return Found(subset.clients, labels, row.feature[None])


class GradientMatching(RowAttack):
    """Base of attacks that look for the images whose gradient is the one seen, of a ConvNet.

    Labels are those of `labels_of_head`. Of a sum of n clients the images are looked for together,
    as one batch: the mean of the clients' gradients is that of all their rows.

    Args:
        settings: of the optimisation.
        most: sums at most.
        max_rows: images of one sum at most; a sum of more is taken for one of so many.
    """

    wants = "a sum of updates of a ConvNet"
    costly = True

    def __init__(
        self, settings: MatchSettings | None = None, most: int = 4, max_rows: int = 16
    ) -> None:
        super().__init__(most)
        self.settings = settings or self.default()
        self.max_rows = max_rows

    @classmethod
    @abstractmethod
    def default(cls) -> MatchSettings:
        """Return settings where none are given."""

    @abstractmethod
    def objective(self, view: RunView, subset: SubsetSum) -> Objective:
        """Return what is minimised."""

    def prior(self) -> Prior | None:
        """Return what images are taken to be like."""
        return None

    def takes(self, view: RunView) -> bool:
        """Return whether the run trained a ConvNet."""
        return isinstance(averaging_of(view)[0].architecture, ConvNet)

    def find(self, subset: SubsetSum, view: RunView, rng: np.random.Generator) -> Found:
        """Optimise images from uniform noise until their gradient matches one sum's.

        Rows are float64 (n, h·w·channels) in 0..1; of more than `max_rows` labels chance keeps that
        many.

        Raises:
            ConfigError: torch is missing, or the gradient is zero or not finite.
        """
        victim = victim_of(view)
        import torch

        gradient = gradient_of(view, subset)
        labels = _labels(view, gradient, rows_of(view, subset))
        if len(labels) > self.max_rows:
            labels = np.sort(rng.choice(labels, self.max_rows, replace=False))
        start = Pixels.noise((len(labels), *victim.shape), int(rng.integers(2**31)))
        images = match(
            victim,
            torch.from_numpy(gradient),
            torch.from_numpy(labels),
            start,
            self.objective(view, subset),
            self.prior(),
            self.settings,
        )
        rows = images.permute(0, 2, 3, 1).flatten(1).numpy()
        return Found(subset.clients, labels, rows)


@ATTACKS.register
class GradientDlg(GradientMatching):
    """Deep leakage from gradients: least squared distance, by L-BFGS (Zhu et al., NeurIPS 2019).

    Labels are read off first, as iDLG does. An update that reached the clip is compared with found
    gradients that are clipped in the same way. The ConvNet's ReLU and max-pooling have no curvature
    for L-BFGS to use; with sigmoids, as in that paper, it comes much closer.
    """

    name = "gradient-dlg"

    @classmethod
    def default(cls) -> MatchSettings:
        """Return 30 steps of L-BFGS at rate 1, begun once."""
        return MatchSettings(steps=30, rate=1.0, optimiser="lbfgs", restarts=1)

    def objective(self, view: RunView, subset: SubsetSum) -> Objective:
        """Return the squared error, with FedSGD's clip for a single client's gradient."""
        method, _ = averaging_of(view)
        # Of several clients each gradient was clipped by itself: nothing is known of their sum.
        if isinstance(method, FedSGD) and len(subset.clients) == 1:
            return clipped_error(method.update_clip)
        return squared_error


@ATTACKS.register
class GradientCosine(GradientMatching):
    """Inverting Gradients: the angle between gradients, and smooth images, by signed Adam.

    Geiping et al., NeurIPS 2020, eq. 4, with total variation as the prior. Clipping changes the
    length of a gradient and not its angle.

    Args:
        smoothness: weight of the total variation.
    """

    name = "gradient-cosine"

    def __init__(
        self,
        settings: MatchSettings | None = None,
        most: int = 4,
        max_rows: int = 16,
        smoothness: float = 1.0,
    ) -> None:
        super().__init__(settings, most, max_rows)
        self.smoothness = smoothness

    @classmethod
    def default(cls) -> MatchSettings:
        """Return 3000 steps of signed Adam at rate 0.03."""
        return MatchSettings(steps=3000, rate=0.03, optimiser="adam", signed=True)

    def objective(self, view: RunView, subset: SubsetSum) -> Objective:
        """Return 1 − cos (Geiping et al. 2020, eq. 4), whatever the view and sum."""
        return cosine_distance

    def prior(self) -> Prior | None:
        """Return the total variation, weighted by `smoothness`."""
        return total_variation(self.smoothness)


def victim_of(view: RunView) -> Victim:
    """Return the ConvNet of a run at the parameters of its first round.

    Raises:
        ConfigError: torch is missing, or the run trained something else.
    """
    method, public = averaging_of(view)
    assert isinstance(method.architecture, ConvNet), "attacks look at the architecture first"
    return ConvNetVictim.of(method.architecture, public.task, public.parameters)


def clipped_error(clip: float) -> Objective:
    """Return `squared_error` of found gradients that are shortened to norm `clip`.

    Clients shorten theirs in the same way.
    """

    def objective(found: Any, wanted: Any) -> Any:
        return squared_error(found * (clip / found.norm().clamp(min=clip)), wanted)

    return objective


def _labels(view: RunView, gradient: Floats, rows: int) -> Integers:
    method, public = averaging_of(view)
    classes = len(public.task.classes)
    if isinstance(method.architecture, Linear):
        return labels_of_weights(gradient.reshape(-1, classes), rows)
    return labels_of_head(gradient[-classes:], rows)


def _image_shape(view: RunView, known: Known) -> ImageShape | None:
    """Return the shape of the pixels that the model saw; None where it saw features."""
    method, public = averaging_of(view)
    if isinstance(method.architecture, ConvNet):
        return method.architecture.shape(public.task.feature_dim)
    backbone = known.extra.get("backbone")
    if backbone is not None and not isinstance(backbone.front, PixelBackbone):
        return None
    shape: ImageShape | None = known.extra.get("image_shape")
    return shape if shape and np.prod(shape) == public.task.feature_dim else None


def _classes(claim: GradientClaim | None, truth: Truth) -> int:
    if claim is not None:
        return claim.classes
    return 1 + max((int(data.labels.max()) for data in truth.clients.values()), default=0)


def _true_labels(clients: frozenset[str], truth: Truth) -> Integers:
    labels: Integers = np.concatenate([truth.clients[name].labels for name in sorted(clients)])
    return labels


def _overlap(claimed: Integers, true: Integers, classes: int) -> int:
    counts = [np.bincount(labels, minlength=classes) for labels in (claimed, true)]
    return int(np.minimum(*counts).sum())


def _chance_overlap(number: int, true: Integers, classes: int) -> float:
    """Return how many labels are right if each is drawn from all classes alike."""
    # E min(B, k) is the sum over j < k of P(B > j).
    counts = np.bincount(true, minlength=classes)
    above = special.bdtrc(np.arange(number + 1), number, 1 / classes)
    return float(sum(above[:count].sum() for count in counts))


def _pairs(claim: GradientClaim, truth: Truth) -> list[_Pair]:
    """Pair each rebuilt row with the true row that it is judged against."""
    places: dict[str, range] = {}
    begin = 0
    for name, data in truth.clients.items():
        places[name] = range(begin, begin + len(data))
        begin += len(data)
    pairs = []
    for found in claim.found:
        names = [name for name in truth.clients if name in found.clients]
        if found.rows is None or not names:
            continue
        true = np.concatenate([truth.clients[name].features for name in names])
        labels = np.concatenate([truth.clients[name].labels for name in names])
        at = [place for name in names for place in places[name]]
        cost = _OTHER_LABEL * (found.labels[:, None] != labels) - _likeness(found.rows, true)
        alone = cost.shape == (1, 1)
        for mine, theirs in zip(*linear_sum_assignment(cost), strict=True):
            pairs.append(_Pair(found.rows[mine], at[theirs], alone))
    return pairs


def _likeness(rows: Images, true: Images) -> Floats:
    """Return (n, m) correlations."""
    return correlations(rows[:, :, None, None], true[:, :, None, None])


def _as_images(rows: Images, shape: ImageShape) -> Images:
    return np.asarray(rows, dtype=np.float64).reshape(-1, *shape)


def _snr(true: Images, row: Images) -> float:
    """Return the signal-to-noise ratio in dB of two rows brought to norm 1.

    The model was given rows of norm 1. A row of zeros stays zero.
    """
    error = float(np.linalg.norm(_unit(true) - _unit(row)))
    return min(_MAX_SNR, -20 * np.log10(error)) if error > 0 else _MAX_SNR


def _unit(row: Images) -> Floats:
    wide = np.asarray(row, dtype=np.float64)
    length = float(np.linalg.norm(wide))
    unit: Floats = wide / length if length > 0 else wide
    return unit


def _judge_images(pairs: Sequence[_Pair], stack: Images, confidence: float) -> list[Measure]:
    """Judge against all true images (n, h, w, c).

    Retrieval counts those that were alone in their sums: others are judged against the image that
    they are most like, which it would be idle to find again.
    """
    if len(stack) < 2:
        return _nothing(confidence)
    others = mean_of_others(stack)
    decibels, guess, alike, guess_alike = [], [], [], []
    retrieved = []
    for row, place, alone in pairs:
        true, image = stack[place], row.reshape(stack.shape[1:])
        fit, mean = fitted(true, image), fitted(true, others[place])
        decibels.append(psnr(true, fit))
        guess.append(psnr(true, mean))
        alike.append(ssim(true, fit))
        guess_alike.append(ssim(true, mean))
        if alone:
            retrieved.append(ranks(image[None], stack, np.array([place]))[0] == 0)
    least, least_alike = float(np.mean(guess)), float(np.mean(guess_alike))
    gain = np.subtract(decibels, guess)
    found = int(np.sum(retrieved))
    return [
        mean_of(gain, 0.0, _GOOD_PSNR - least, confidence, PSNR_OVER_MEAN),
        mean_of(decibels, least, _GOOD_PSNR, confidence, PSNR),
        mean_of(alike, least_alike, 1.0, confidence, SSIM, (-1.0, 1.0)),
        share(found, len(retrieved), 1 / len(stack), 1.0, confidence, RETRIEVAL),
    ]


def _nothing(confidence: float) -> list[Measure]:
    """Return what is said of images that nobody rebuilt."""
    return [
        mean_of([], 0.0, _GOOD_PSNR, confidence, PSNR_OVER_MEAN),
        mean_of([], 0.0, 1.0, confidence, SSIM, (-1.0, 1.0)),
    ]
