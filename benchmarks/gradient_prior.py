"""What a generative prior gains over none, on the same gradients of hand signs; and R-GAP.

SECURE_AFL_DATA=… python -m benchmarks.gradient_prior

The generator is trained on the training sites, once (six minutes on one core). Attacked are people
of the test set, one image each, at the LeNet of Zhu et al. 2019 or at the project's ConvNet, both
untrained. The ConvNet does not see brightness and contrast, so there both are fitted to the true
image, for every search and for the mean image alike.
"""

import re
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.features.stacks import load_stack, resize_stack
from attacks.gradients.generative import GenerativeSettings, invert_with_generator
from attacks.gradients.generator import Generator, train_generator
from attacks.gradients.matching import (
    MatchSettings,
    Pixels,
    cosine_distance,
    match,
    total_variation,
)
from attacks.gradients.rgap import RgapNetwork, undo
from attacks.gradients.victim import ConvNetVictim, LeNetVictim, Victim
from attacks.measures.images import fitted, psnr
from attacks.measures.metrics import mean_of
from benchmarks.record import POINTS, data_folder, write
from secure_afl.analytic.quantise import Quantiser
from secure_afl.data import files as data_files
from secure_afl.data.dataset import Dataset
from secure_afl.methods import ConvNet, Task

SIDE, IMAGES, SEED = 32, 8, 1
GENERATOR = POINTS / "generator_signs.safetensors"
# Gaussian noise of so many times ‖gradient‖/√p, and the weights of the total variation that
# Inverting Gradients is tried with there: the first is also the generative search's.
NOISES: dict[str, dict[float, tuple[float, ...]]] = {
    "lenet": {0.0: (0.01, 0.003), 0.1: (0.01, 0.003), 1.0: (0.01, 0.3)},
    "convnet": {0.0: (0.01, 0.001), 1.0: (0.01, 0.1)},
}
# Of the ℓ1 balls, and the last map that is looked for.
BALLS = {"lenet": (0.03, 99), "convnet": (0.1, 2)}
# Rows that smoothness and radius were chosen on; their people are not attacked.
TUNED = (100, 200, 300)
# 960 steps in all, as without the prior.
PIXELS = MatchSettings(steps=960, rate=0.1)
LATENT = MatchSettings(steps=120, rate=0.1, signed=False, restarts=4)
MAPS = MatchSettings(steps=120, rate=0.03, signed=False)


def one_of_each(test: Dataset) -> list[int]:
    """Rows of so many people, one each."""
    assert isinstance(test.examples, tuple)
    names = [re.findall(r"person\d+", str(path))[0] for path in test.examples]
    people = sorted(set(names) - {names[row] for row in TUNED})
    rng = np.random.default_rng(SEED)
    chosen = rng.permutation(len(people))[:IMAGES]
    return [int(rng.choice([r for r, n in enumerate(names) if n == people[c]])) for c in chosen]


def victim_at(network: str, classes: tuple[str, ...], seed: int) -> Victim:
    """An untrained one, in float32: twice as fast as the default."""
    victim: Victim
    if network == "lenet":
        victim = LeNetVictim.random((3, SIDE, SIDE), len(classes), seed)
    else:
        architecture = ConvNet((SIDE, SIDE, 3))
        task = Task(3 * SIDE**2, classes, Quantiser(12), 1, 1, 1, bytes(32))
        parameters = architecture.initial(task, np.random.default_rng(seed))
        victim = ConvNetVictim.of(architecture, task, parameters)
    victim.parameters = victim.parameters.float()
    return victim


def main() -> None:
    """Write `results/gradient_prior.json`."""
    torch.set_num_threads(1)
    signs = data_folder() / "sign_digits"
    sites = data_files.load_clients(str(signs / "train" / "site_*"))
    public = np.concatenate([load_stack(site, SIDE) for site in sites])
    if not GENERATOR.exists():
        GENERATOR.parent.mkdir(exist_ok=True)
        train_generator(public.transpose(0, 3, 1, 2)).save(GENERATOR)
    generator = Generator.load(GENERATOR)
    test = data_files.load(signs / "test")
    write(
        "gradient_prior",
        {
            "generator": generator.digest.hex(),
            "r_gap": r_gap(test),
            **{network: prior_gains(network, generator, test, public) for network in NOISES},
        },
    )


def r_gap(test: Dataset) -> dict[str, Any]:
    """PSNR of the recursive closed form on its own small network, 20 images at 16 × 16."""
    images = resize_stack(load_stack(test, SIDE)[:400:20], 16).transpose(0, 3, 1, 2)
    figures: dict[str, Any] = {"surplus_of_equations": RgapNetwork().surplus}
    precisions: tuple[type[np.floating[Any]], ...] = (np.float64, np.float32)
    for precision in precisions:
        decibels, right = [], 0
        for index, image in enumerate(images):
            network = RgapNetwork()
            weights = network.initial(np.random.default_rng(index))
            label = 1 if index % 2 else -1
            gradient = [part.astype(precision) for part in network.gradient(weights, image, label)]
            undone = undo(network, weights, gradient)
            decibels.append(psnr(image, undone.image))
            right += undone.label == label
        figures[precision.__name__] = {
            "images": len(images),
            "least_psnr_db": min(decibels),
            "mean_psnr_db": float(np.mean(decibels)),
            "labels_right": right,
        }
    return figures


def prior_gains(
    network: str, generator: Generator, test: Dataset, public: NDArray[np.floating[Any]]
) -> dict[str, Any]:
    """What each search scores on one image each of people that are not public, and the gains."""
    images, mean = load_stack(test, SIDE), public.mean(axis=0)
    radius, last = BALLS[network]
    scores: dict[str, list[float]] = {}

    def score(true: np.ndarray, picture: np.ndarray) -> float:
        return psnr(true, picture if network == "lenet" else fitted(true, picture))

    def note(noise: float, name: str, true: np.ndarray, found: torch.Tensor) -> None:
        picture = found[0].permute(1, 2, 0).numpy()
        scores.setdefault(f"noise {noise:g}, {name}", []).append(score(true, picture))

    for row in one_of_each(test):
        true = images[row]
        scores.setdefault("mean of the public images", []).append(score(true, mean))
        labels = torch.tensor([test.labels[row]])
        victim = victim_at(network, test.classes, row)
        gradient = victim.gradients(torch.from_numpy(true).permute(2, 0, 1)[None], labels)
        for noise, weights in NOISES[network].items():
            random = torch.Generator().manual_seed(row)
            scale = noise * gradient.norm() / len(gradient) ** 0.5
            wanted = gradient + scale * torch.randn(len(gradient), generator=random)
            for weight in weights:
                start = Pixels.noise((1, 3, SIDE, SIDE), row, torch.float32)
                prior = total_variation(weight)
                found = match(victim, wanted, labels, start, cosine_distance, prior, PIXELS)
                note(noise, f"pixels, smoothness {weight:g}", true, found)
            settings = GenerativeSettings(LATENT, MAPS, last, radius, weights[0])
            best = invert_with_generator(victim, wanted, labels, generator, settings)
            note(noise, "generator", true, best.images)
            note(noise, "generator, latent only", true, best.stages[0])
        print(network, len(scores["mean of the public images"]), file=sys.stderr, flush=True)
    return {"psnr": scores, "gains": _gains(scores, NOISES[network])}


def _gains(
    scores: dict[str, list[float]], noises: dict[float, tuple[float, ...]]
) -> dict[str, list[float]]:
    """Mean and 95 % interval in dB of the generator over each search without, pair by pair."""
    gains = {}
    for noise, weights in noises.items():
        ours = np.array(scores[f"noise {noise:g}, generator"])
        names = [f"noise {noise:g}, pixels, smoothness {weight:g}" for weight in weights]
        others = {name: np.array(scores[name]) for name in names}
        others[f"noise {noise:g}, the better of them for each image"] = np.max(
            list(others.values()), axis=0
        )
        others[f"noise {noise:g}, latent only"] = np.array(
            scores[f"noise {noise:g}, generator, latent only"]
        )
        for name, theirs in others.items():
            if len(ours) > 1:
                one = mean_of(ours - theirs, 0.0, 40.0)
                gains[name] = [round(value, 2) for value in (one.value, one.low, one.high)]
    return gains


if __name__ == "__main__":
    main()
