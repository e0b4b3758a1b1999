"""Gradient inversion on hand signs of 32 × 32 pixels: closed forms, DLG, Inverting Gradients.

Raw gradients in float64 of untrained networks, as the literature takes them, beside uploads of real
rounds of FedSGD, in plain and as one blind sum. Every client has one image.

SECURE_AFL_DATA=… python -m benchmarks.inversion
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from attacks.attack import Known, Measure, Truth
from attacks.features.stacks import load_stack
from attacks.gradients.analytic import dense_input, labels_of_head
from attacks.gradients.inversion import (
    LABELS,
    PSNR,
    PSNR_OVER_MEAN,
    SSIM,
    GradientAttack,
    GradientClaim,
    GradientCosine,
    GradientDlg,
    GradientLabels,
    GradientLinear,
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
from attacks.gradients.victim import DenseVictim, LeNetVictim, Victim
from attacks.measures.images import mean_of_others, psnr, ssim
from attacks.measures.metrics import mean_of, share
from attacks.views.run import Record
from benchmarks.record import data_folder, write
from protocols.protocol import Protocol
from protocols.schemes.additive.protocol import Additive
from protocols.schemes.plain import Plain
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.data.files import load_clients
from secure_afl.federation.simulation import Federation
from secure_afl.methods import ConvNet, FedSGD

SIDE = 32
SHAPE = (3, SIDE, SIDE)
CLASSES = 10
SEED = 0
# For closed forms, for optimisation, and in the blind sum.
MANY, FEW, SUMMED = 50, 8, 10
# Of an image that is read off exactly, in dB: what is asked for, and what a good one has.
EXACT, GOOD = 100.0, 40.0

# Quoted, on other images than ours.
PUBLISHED = {
    "linear_layer": {"psnr_db": "> 140", "source": "closed form of Phong et al. 2018, in float64"},
    "dlg": {"psnr_db": "about 23", "source": "Zhu et al., NeurIPS 2019, CIFAR, batch of 1"},
    "inverting_gradients": {
        "psnr_db": "about 18 to 20",
        "source": "Geiping et al., NeurIPS 2020, table 1, CIFAR-10",
    },
    "r_gap": {"psnr_db": "about 49", "source": "Zhu and Blaschko, ICLR 2021, own small network"},
    "idlg_labels": {"accuracy": 1.0, "source": "Zhao et al. 2020, table 1"},
}

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


def main() -> None:
    """Measure all and write it down."""
    torch.set_num_threads(1)
    begin = time.perf_counter()
    images, labels = signs(MANY)
    one_of_each = np.unique(labels, return_index=True)[1]
    assert len(one_of_each) == CLASSES
    assert len(np.unique(labels[:SUMMED])) < CLASSES, "a class is absent"
    write(
        "inversion",
        {
            "images": {"data": "sign_digits", "side": SIDE, "many": MANY, "few": FEW},
            "published": PUBLISHED,
            "raw_gradients": {
                "linear_layer": linear_layer(images, labels),
                "labels": raw_labels(images, labels),
                "dlg_lenet": matched(
                    images,
                    labels,
                    squared_error,
                    None,
                    MatchSettings(steps=80, rate=1.0, optimiser="lbfgs"),
                ),
                "inverting_gradients_lenet": matched(
                    images,
                    labels,
                    cosine_distance,
                    total_variation(0.01),
                    MatchSettings(steps=2000, rate=0.01),
                    # From almost grey: of full noise the prior leaves something.
                    spread=0.2,
                ),
            },
            "fedsgd_plain": uploads(images, labels, Plain(), "server"),
            "fedsgd_blind_sum": uploads(images[:SUMMED], labels[:SUMMED], Additive(3), "collector"),
            "fedsgd_blind_sum_of_all_classes": uploads(
                images[one_of_each], labels[one_of_each], Additive(3), "collector", heads_alone=True
            ),
            "seconds": round(time.perf_counter() - begin),
        },
    )


def signs(number: int) -> tuple[Images, Labels]:
    """So many hand signs, (n, 32, 32, 3) in 0..1, drawn evenly from all sites, and their digits."""
    sites = load_clients(str(data_folder() / "sign_digits" / "train" / "site_*"))
    rng = np.random.default_rng(SEED)
    drawn = [
        (site, np.array([int(rng.integers(len(site)))]))
        for site in (sites[index % len(sites)] for index in range(number))
    ]
    images = np.concatenate([load_stack(site.take(row), SIDE) for site, row in drawn])
    return images, np.array([int(site.labels[row[0]]) for site, row in drawn], dtype=np.int64)


def tensors(images: Images, labels: Labels) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each image as a batch of one, float64, with its label."""
    stack = torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)
    return [(stack[i : i + 1], torch.from_numpy(labels[i : i + 1])) for i in range(len(labels))]


def linear_layer(images: Images, labels: Labels) -> dict[str, Any]:
    """The images behind the first layer of an untrained network of linear layers with bias."""
    victim = DenseVictim.random(SHAPE, CLASSES, (256,), SEED)
    decibels = []
    for image, label in tensors(images, labels):
        weight, bias = victim.parts(victim.gradients(image, label))[:2]
        found = dense_input(weight.numpy(), bias.numpy())
        decibels.append(psnr(image.numpy(), found.reshape(image.shape)))
    exact = sum(value > EXACT for value in decibels)
    return {
        "psnr": plain(mean_of(decibels, 0.0, GOOD, metric=PSNR)),
        "least_psnr_db": min(decibels),
        "above_100_db": plain(share(exact, len(decibels), 0.0, metric="above 100 dB")),
    }


def raw_labels(images: Images, labels: Labels) -> dict[str, Any]:
    """Labels behind single gradients of an untrained LeNet."""
    victim = LeNetVictim.random(SHAPE, CLASSES, SEED)
    right = 0
    for image, label in tensors(images, labels):
        bias = victim.parts(victim.gradients(image, label))[-1]
        right += int(labels_of_head(bias.numpy(), 1)[0]) == int(label)
    return plain(share(right, len(labels), 1 / CLASSES, metric=LABELS))


def matched(
    images: Images,
    labels: Labels,
    objective: Objective,
    prior: Prior | None,
    settings: MatchSettings,
    spread: float = 1.0,
) -> dict[str, Any]:
    """Images found behind single gradients of an untrained LeNet; brightness is not fitted."""
    victim: Victim = LeNetVictim.random(SHAPE, CLASSES, SEED)
    begin = time.perf_counter()
    found = []
    for number, (image, label) in enumerate(tensors(images[:FEW], labels[:FEW])):
        start = Pixels.noise((1, *SHAPE), SEED + number, spread=spread)
        wanted = victim.gradients(image, label)
        rebuilt = match(victim, wanted, label, start, objective, prior, settings)
        found.append(rebuilt[0].permute(1, 2, 0).numpy())
    taken = (time.perf_counter() - begin) / FEW
    return {
        "settings": msgspec.to_builtins(settings),
        "seconds_an_image": round(taken, 1),
        "measures": compared(images, found),
    }


def compared(images: Images, found: Sequence[Floats]) -> list[dict[str, Any]]:
    """PSNR and SSIM of the first images against the mean of all others."""
    guesses = mean_of_others(images)
    pairs = list(zip(images, found, strict=False))
    decibels = np.array([psnr(true, rebuilt) for true, rebuilt in pairs])
    guess = np.array([psnr(true, other) for (true, _), other in zip(pairs, guesses, strict=False)])
    alike = [ssim(true, rebuilt) for true, rebuilt in pairs]
    least = float(np.mean([ssim(images[i], guesses[i]) for i in range(len(pairs))]))
    return [
        plain(mean_of(decibels, float(guess.mean()), GOOD, metric=PSNR)),
        plain(mean_of(decibels - guess, 0.0, GOOD - float(guess.mean()), metric=PSNR_OVER_MEAN)),
        plain(mean_of(alike, least, metric=SSIM, bounds=(-1.0, 1.0))),
    ]


def uploads(
    images: Images, labels: Labels, protocol: Protocol, who: str, *, heads_alone: bool = False
) -> dict[str, Any]:
    """The suite's attacks on one round of FedSGD with integers of up to 24 bits, as it comes."""
    clients = [
        ClientData(f"client{number}", images[number].reshape(1, -1), labels[number : number + 1])
        for number in range(len(labels))
    ]
    truth = Truth({client.name: client for client in clients})
    known = Known(extra={"image_shape": (SIDE, SIDE, 3)})
    figures: dict[str, Any] = {"clients": len(clients), "protocol": protocol.name, "seen_by": who}
    cases: list[tuple[str, FedSGD, tuple[GradientAttack, ...]]] = [
        ("linear_head", FedSGD(rounds=1), (GradientLabels(), GradientLinear())),
        (
            "convnet",
            FedSGD(rounds=1, architecture=ConvNet()),
            (GradientLabels(), GradientDlg(most=FEW), GradientCosine(most=FEW)),
        ),
    ]
    for title, method, attacks in cases[:1] if heads_alone else cases:
        names = [str(label) for label in range(CLASSES)]
        result = Federation(method, protocol).run(clients, classes=names, max_rows=1, record=True)
        view = Record(method, protocol, result).view([who])
        for attack in attacks:
            begin = time.perf_counter()
            claim = attack.claim(view, known, np.random.default_rng(SEED))
            figures[f"{title}/{attack.name}"] = {
                "seconds": round(time.perf_counter() - begin, 1),
                "measures": [plain(measure) for measure in attack.judge(claim, truth)],
                **exactness(attack, claim, truth),
            }
    return figures


def exactness(attack: GradientAttack, claim: GradientClaim | None, truth: Truth) -> dict[str, Any]:
    """Of closed forms: how many images are above 100 dB, and how exact the rows are."""
    if claim is None or not isinstance(attack, GradientLinear):
        return {}
    decibels = [psnr(one.true, one.rebuilt) for one in attack.pictures(claim, truth)]
    exact = sum(value > EXACT for value in decibels)
    rows = replace(claim, shape=None)
    return {
        "least_psnr_db": min(decibels),
        "above_100_db": plain(share(exact, len(decibels), 0.0, metric="above 100 dB")),
        "rows": [plain(measure) for measure in attack.judge(rows, truth)],
    }


def plain(measure: Measure) -> dict[str, Any]:
    """Ready for JSON, which knows no infinity."""
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in msgspec.structs.asdict(measure).items()
    }


if __name__ == "__main__":
    main()
