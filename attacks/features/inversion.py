"""Attacks that make images of the features that a view gives away. Need torch."""

import hashlib
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attacks.attack import ATTACKS, Attack, Known, Measure, Picture, Truth
from attacks.features.decoder import Decoder, Recipe, train_decoder
from attacks.features.differentiable import ImageShape, differentiable
from attacks.features.leaks import Leak, find_leaks
from attacks.features.optimise import Settings, invert
from attacks.features.stacks import resize_stack
from attacks.measures.images import mean_of_others, psnr, ranks, ssim
from attacks.measures.metrics import centred_cosine, match_rows, mean_of, share
from attacks.views.run import RunView
from secure_afl.analytic.quantise import Floats
from secure_afl.data.dataset import Dataset
from secure_afl.errors import ConfigError
from secure_afl.features.backbone import Backbone

Images = NDArray[np.floating[Any]]

# Images are compared at this many pixels each way, or fewer where the true ones have fewer.
JUDGED_SIDE = 64

# An image at this PSNR cannot be told from the true one: what success is measured against.
_GOOD_PSNR = 40.0
_RETRIEVED = (1, 5)


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """Images that an attack made of a view.

    Attributes:
        leaks: the features that it began with.
        images: (m, h, w, channels) in 0..1, one for each.
        cosines: (m,) of each image's own feature to its leak, where they were computed.
    """

    leaks: Sequence[Leak]
    images: Images
    cosines: Floats | None = None

    def __repr__(self) -> str:
        return f"<Rebuilt: {len(self.leaks)} images>"


class ImageAttack(Attack[Rebuilt]):
    """Base of attacks that make an image of each feature that `find_leaks` yields.

    Attributes:
        most: how many are made at most; single rows go first, and among equals chance decides.
        costly: takes minutes a view, and is left out of a suite that does not name it.
    """

    wants: ClassVar[str] = "a sum of statistics, or of FedSGD's gradients of a linear head"
    costly: ClassVar[bool] = True

    def __init__(self, most: int) -> None:
        self.most = most

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Rebuilt | None:
        """Return images of the features.

        Raises:
            ConfigError: torch is missing, or something that the attack assumes is not known.
        """
        leaks = find_leaks(view, rng)
        if not leaks:
            return None
        order = rng.permutation(len(leaks))
        chosen = sorted(order, key=lambda index: not leaks[index].single)[: self.most]
        return self.rebuild([leaks[index] for index in sorted(chosen)], view, known)

    @abstractmethod
    def rebuild(self, leaks: Sequence[Leak], view: RunView, known: Known) -> Rebuilt:
        """Make an image of each leak."""

    def judge(self, claim: Rebuilt | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        """Judge against one true image for each rebuilt one.

        A single row is judged against the row that it is most like, of its class and clients; a
        blend against the first of the rows that are in it, whatever it is like. Retrieval looks for
        the true image among all of the sum by correlation, everything less the mean image, which
        all have in common. PSNR, and PSNR over the mean of all other true images, in dB.
        """
        stack, places = _true_images(truth)
        found = [] if claim is None else _pairs(claim, truth)
        found = [pair for pair in found if pair[1] in places]
        # Leaks come with labels: who guesses among the images of the class is right that often.
        alike_in = np.bincount([truth.clients[name].labels[row] for name, row in places])
        sizes = [alike_in[truth.clients[n].labels[row]] for _, (n, row) in found] or [len(stack)]
        chances = {
            k: float(np.mean([min(1.0, k / max(1, size)) for size in sizes])) for k in _RETRIEVED
        }
        if claim is None or not found or len(stack) < 2:
            return [
                *(share(0, 0, chances[k], 1.0, confidence, _retrieval(k)) for k in _RETRIEVED),
                mean_of([], 0.0, _GOOD_PSNR, confidence, "PSNR over the mean image, dB"),
                mean_of([], 0.0, 1.0, confidence, "SSIM", (-1.0, 1.0)),
            ]
        rebuilt = _alike(claim.images, stack)[[index for index, _ in found]]
        own = np.array([places[pair] for _, pair in found], dtype=np.int64)
        others = mean_of_others(stack)
        common = stack.mean(axis=0)
        rank = ranks(rebuilt - common, stack - common, own)
        decibels = [psnr(stack[i], image) for i, image in zip(own, rebuilt, strict=True)]
        guess = [psnr(stack[i], others[i]) for i in own]
        alike = [ssim(stack[i], image) for i, image in zip(own, rebuilt, strict=True)]
        guess_alike = float(np.mean([ssim(stack[i], others[i]) for i in own]))
        least = float(np.mean(guess))
        claimed = np.stack([claim.leaks[index].feature for index, _ in found])
        true = np.stack([_unit(truth.clients[name].features)[row] for _, (name, row) in found])
        measures = [
            *(
                share(int((rank < k).sum()), len(rank), chances[k], 1.0, confidence, _retrieval(k))
                for k in _RETRIEVED
            ),
            mean_of(
                np.subtract(decibels, guess),
                0.0,
                _GOOD_PSNR - least,
                confidence,
                "PSNR over the mean image, dB",
            ),
            mean_of(decibels, least, _GOOD_PSNR, confidence, "PSNR, dB"),
            mean_of(alike, guess_alike, 1.0, confidence, "SSIM", (-1.0, 1.0)),
        ]
        if len(found) > 1:
            cosine = centred_cosine(claimed, true)
            name = "centred cosine of the feature"
            measures.append(mean_of(cosine, 0.0, 1.0, confidence, name, (-1.0, 1.0)))
        if claim.cosines is not None:
            reached = claim.cosines[[index for index, _ in found]]
            name = "cosine of the image's feature to the recovered one"
            measures.append(mean_of(reached, 0.0, 1.0, confidence, name, (-1.0, 1.0)))
        return measures

    def pictures(self, claim: Rebuilt | None, truth: Truth) -> list[Picture]:
        """Pair each rebuilt image with the true one that it is judged against.

        Both are square, of at most `JUDGED_SIDE` pixels. The list is empty without true images.
        """
        stack, places = _true_images(truth)
        if claim is None or not len(stack):
            return []
        rebuilt = _alike(claim.images, stack)
        return [
            Picture(_caption(claim.leaks[index], pair[0]), stack[places[pair]], rebuilt[index])
            for index, pair in _pairs(claim, truth)
            if pair in places
        ]


@ATTACKS.register
class FeatureInversion(ImageAttack):
    """Optimises an image until its feature points where the recovered one does.

    Gradient descent through the frozen backbone on 1 − cosine and the roughness of the image
    (Mahendran and Vedaldi 2015), see `invert`. From statistics or gradients of a linear head; the
    coalition needs a sum in which a class has few rows, best one.

    `Known.extra`: `backbone` (secure_afl.features.Backbone); `image_shape` (h, w, channels) where
    the backbone works on pixels. With `public_images` (p, h, w, channels) in 0..1 it begins with
    their mean, without with grey.

    Args:
        settings: of the optimisation, which takes about 10 s an image on one core for MobileNet at
            128 pixels.
        most: images at most.
    """

    name = "feature-inversion"
    assumes = ("the backbone", "the mean of public images, if there is one")

    def __init__(self, settings: Settings | None = None, most: int = 4) -> None:
        super().__init__(most)
        self.settings = settings or Settings()

    def rebuild(self, leaks: Sequence[Leak], view: RunView, known: Known) -> Rebuilt:
        """Optimise one image for each leak, with the cosine that its feature reached.

        Images are float32 (m, h, w, channels) in 0..1 at the backbone's size.

        Raises:
            ConfigError: torch or the backbone is missing, the backbone is not the run's, a backbone
                on pixels comes without `image_shape`, or public images do not fit its images.
        """
        backbone = _backbone(known, self.name)
        _check_digest("the backbone", backbone.digest, view)
        shape: ImageShape | None = known.extra.get("image_shape")
        function = differentiable(backbone, shape)
        features = np.stack([leak.feature for leak in leaks])
        public = known.extra.get("public_images")
        begin = None if public is None else _first_image(public, function.shape)
        images, cosines = invert(function, features, self.settings, begin)
        return Rebuilt(leaks, images, cosines)


@ATTACKS.register
class FeatureDecoder(ImageAttack):
    """Decodes the recovered feature with a network that was trained on public images.

    Dosovitskiy and Brox 2016, see `Decoder`. Takes milliseconds, once the decoder is there.

    `Known.extra`: `decoder`; or `backbone` and `public_images` (p, h, w, channels) in 0..1, of
    which one is trained.

    Args:
        recipe: of the training where there is no decoder yet.
        most: images at most.
    """

    name = "feature-decoder"
    assumes = ("the backbone", "public images of the same kind")

    def __init__(self, recipe: Recipe | None = None, most: int = 400) -> None:
        super().__init__(most)
        self.recipe = recipe or Recipe(side=32, steps=1000, copies=2)

    def rebuild(self, leaks: Sequence[Leak], view: RunView, known: Known) -> Rebuilt:
        """Decode each leak to an image, float32 (m, side, side, 3) in 0..1.

        A decoder trained here is kept for later views with the same backbone and public images.

        Raises:
            ConfigError: torch is missing, there is neither a decoder nor a backbone with public
                images, or the decoder reads features of another backbone than the run's.
            DataError: there are fewer than two public images to train on.
        """
        decoder = known.extra.get("decoder")
        if decoder is None:
            decoder = self._trained(known)
        _check_digest("the decoder's backbone", bytes.fromhex(decoder.card.backbone), view)
        features = np.stack([leak.feature for leak in leaks])
        return Rebuilt(leaks, decoder.decode(features))

    def _trained(self, known: Known) -> Decoder:
        images = known.extra.get("public_images")
        if images is None:
            raise ConfigError(
                f"{self.name} knows neither a decoder nor public images; train one with python -m "
                "attacks.features.train, or give Known.extra['public_images']"
            )
        backbone = _backbone(known, self.name)
        pixels = np.rint(255 * np.asarray(images)).astype(np.uint8)
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        seen = hashlib.sha256(backbone.digest + repr(self.recipe).encode() + pixels.tobytes())
        key = seen.digest()
        if key not in _TRAINED:
            labels = np.zeros(len(pixels), dtype=np.int64)
            public = Dataset("public images", pixels, labels, ("?",))
            _TRAINED[key] = train_decoder(backbone, public, self.recipe)
        return _TRAINED[key]


# Several views of one run are attacked with the same public images; training takes a minute.
_TRAINED: dict[bytes, Decoder] = {}


def _backbone(known: Known, attack: str) -> Backbone:
    backbone = known.extra.get("backbone")
    if not isinstance(backbone, Backbone):
        raise ConfigError(
            f"{attack} does not know the backbone; give Known.extra['backbone'], as "
            "secure_afl.features.parse_backbone makes it"
        )
    return backbone


def _first_image(public: Images, shape: ImageShape) -> Images:
    """Return the mean image, as the backbone takes images."""
    mean = np.asarray(public, dtype=np.float64).mean(axis=0, keepdims=True)
    if mean.shape[3] != shape[2]:
        mean = np.repeat(mean.mean(axis=3, keepdims=True), shape[2], axis=3)
    if mean.shape[1:3] != shape[:2] and shape[0] != shape[1]:
        raise ConfigError(
            f"public images are {list(public.shape[1:3])} and the backbone's {list(shape[:2])} "
            "pixels; give them at the backbone's size"
        )
    resized = mean if mean.shape[1:3] == shape[:2] else resize_stack(mean, shape[0])
    image: Images = resized[0]
    return image


def _check_digest(what: str, digest: bytes, view: RunView) -> None:
    wanted = view.publics[0].task.backbone
    if digest != wanted:
        raise ConfigError(
            f"{what} has the digest {digest.hex()[:12]}, the run's features are of "
            f"{wanted.hex()[:12]}; use the backbone, weights and image size of the run"
        )


def _pairs(claim: Rebuilt, truth: Truth) -> list[tuple[int, tuple[str, int]]]:
    """Pair each rebuilt image with its true row, of its client, to be judged against."""
    groups: dict[tuple[frozenset[str], int], list[int]] = defaultdict(list)
    for index, leak in enumerate(claim.leaks):
        groups[leak.clients, leak.label].append(index)
    pairs = []
    for (clients, label), members in groups.items():
        rows = [
            (name, int(row))
            for name in sorted(clients & truth.clients.keys())
            for row in np.flatnonzero(truth.clients[name].labels == label)
        ]
        if not rows:
            continue
        singles = [index for index in members if claim.leaks[index].single]
        pairs += [(index, rows[0]) for index in members if index not in singles]
        if singles:
            true = np.stack([_unit(truth.clients[name].features)[row] for name, row in rows])
            claimed = np.stack([claim.leaks[index].feature for index in singles])
            for mine, theirs in zip(*match_rows(claimed, true), strict=True):
                pairs.append((singles[mine], rows[theirs]))
    return sorted(pairs)


def _unit(rows: NDArray[np.floating]) -> Floats:
    wide = np.asarray(rows, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: Floats = wide / np.where(lengths > 0, lengths, 1.0)
    return unit


def _true_images(truth: Truth) -> tuple[Images, dict[tuple[str, int], int]]:
    """Return all true images at the side of judging, and where rows are.

    The places are those of each client's rows among the images.
    """
    names = sorted(truth.images)
    sides = [min(truth.images[name].shape[1:3]) for name in names]
    if not names:
        return np.empty((0, 0, 0, 0)), {}
    side = min([JUDGED_SIDE, *sides])
    stack = np.concatenate([resize_stack(truth.images[name], side) for name in names])
    rows = [(name, row) for name in names for row in range(len(truth.images[name]))]
    return stack, {row: place for place, row in enumerate(rows)}


def _alike(images: Images, stack: Images) -> Images:
    """Return rebuilt images at the size of the true ones, and grey where those are."""
    if images.shape[3] != stack.shape[3]:
        grey = images.mean(axis=3, keepdims=True)
        images = np.repeat(grey, stack.shape[3], axis=3)
    return resize_stack(images, stack.shape[1])


def _retrieval(k: int) -> str:
    return f"retrieval@{k}"


def _caption(leak: Leak, client: str) -> str:
    kind = "one row" if leak.single else "a class's rows, blended"
    if leak.single and len(leak.clients) == 1:
        return f"{client}, class {leak.label}: {kind}"
    return f"{len(leak.clients)} clients, class {leak.label}: {kind}"
