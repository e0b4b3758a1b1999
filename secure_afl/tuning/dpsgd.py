"""DP-SGD of a linear head on the same frozen features: the peer that noisy statistics must meet.

Abadi et al., Deep Learning with Differential Privacy, CCS 2016, by Opacus: Poisson sampling,
gradients of single rows clipped, Gaussian noise on their sum. All rows lie in one place, which no
federation has: this measures what privacy costs, and is no way to train over several clients.

The guarantee is one of the algorithm and not of this implementation. Opacus' `secure_mode` needs
torchcsprng, which is no longer kept up, and is off: noise and samples come from PyTorch's Mersenne
Twister, which keeps 32 bits of its seed, and the noise is floating point. A model to be released
wants a better source.
"""

import importlib
import secrets
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import expm1, sqrt
from time import perf_counter
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.rows import check_rows
from secure_afl.checks import settle_float, settle_int
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.sensitivity import Neighbours, Unit

if TYPE_CHECKING:
    import torch

MIN_EPSILON, MAX_EPSILON = 0.01, 20.0
MIN_DELTA, MAX_DELTA = 1e-12, 0.1

# With less noise the accountant needs much memory, and few samples and a large delta ask for none.
MIN_NOISE_MULTIPLIER = 0.2

# The noise multiplier is found to this part of itself, from above.
_TOLERANCE = 1e-4

# The privacy loss is counted on a grid of this part of a step's deviation, or of this width; finer
# ones change epsilon by less than a part in 1,000.
_GRID, _WIDEST_GRID = 0.02, 1e-3

_OPACUS_WARNINGS = (
    # Said by the module's docstring.
    "Secure RNG turned off",
    # The features need no gradient, and that of the weights is not touched by this.
    "Full backward hook is firing when gradients are computed with respect to module outputs",
)


class DpSgdSettings(msgspec.Struct, frozen=True):
    """Length, batch size and speed of training; the defaults look at no data.

    They were found on chest X-rays, hand signs and digits, between epsilon 0.1 and 8. Fewer and
    larger batches need less noise for the same privacy; the default takes up to 8,192 rows at once.

    Attributes:
        epochs: 1 to 10,000.
        batch_size: greatest expected number of rows in a batch. An epoch has
            `ceil(rows / batch_size)` steps, and every step samples each row with the probability
            1 / that number.
        learning_rate: for the mean of the clipped gradients of a batch; > 0.
        clip: greatest L2 norm of the gradient of one row; > 0. For rows of norm 1 that gradient's
            norm is at most √2, and at most 1 before the first step.
        momentum: of PyTorch's SGD; 0 to 0.999.

    Raises:
        ConfigError: a value out of range.
    """

    epochs: int = 50
    batch_size: int = 8192
    learning_rate: float = 5.0
    clip: float = 0.3
    momentum: float = 0.9

    def __post_init__(self) -> None:
        settle_int(self, "epochs", 1, 10_000)
        settle_int(self, "batch_size", 1, 2**31)
        settle_float(self, "learning_rate", 1e-6, 1e6)
        settle_float(self, "clip", 1e-6, 1e6)
        settle_float(self, "momentum", 0.0, 0.999)

    def steps_per_epoch(self, rows: int) -> int:
        """Count the batches of an epoch over so many rows."""
        return -(-rows // self.batch_size)


# From cautious, where little noise gets in, to eager: each is best, or nearly so, somewhere. Taking
# the best by its accuracy looks at data, at a cost in privacy that no epsilon here includes.
SWEEP: tuple[DpSgdSettings, ...] = (
    DpSgdSettings(epochs=25, learning_rate=3.0),
    DpSgdSettings(learning_rate=2.0),
    DpSgdSettings(),
    DpSgdSettings(learning_rate=12.0),
    DpSgdSettings(epochs=100, learning_rate=10.0),
    DpSgdSettings(learning_rate=8.0, clip=1.0),
)


@dataclass(frozen=True, eq=False)
class DpSgdResult:
    """A private model and what it cost.

    Attributes:
        model: linear, without bias.
        epsilon: what the accountant says was spent at `delta`, ≤ what was asked.
        delta: as asked.
        noise_multiplier: standard deviation of the noise on a sum of gradients, over `clip`.
        sample_rate: probability of each row to be in a batch.
        steps: number of batches.
        seconds: of finding the noise multiplier and of training.
    """

    model: LinearModel
    epsilon: float
    delta: float
    noise_multiplier: float
    sample_rate: float
    steps: int
    seconds: float


def train_dpsgd(
    features: NDArray[np.floating],
    labels: Integers,
    classes: tuple[str, ...],
    epsilon: float,
    delta: float,
    neighbours: Neighbours = "add-remove",
    settings: DpSgdSettings | None = None,
    *,
    unit: Unit = "example",
    rows_bound: int | None = None,
    seed: int | None = None,
) -> DpSgdResult:
    """Train a linear head with (epsilon, delta)-differential privacy for single rows.

    Rows are normalised to norm 1 as a federation does. Training begins at zero and minimises the
    cross entropy; there is no bias, as `LinearModel` has none.

    The number of rows is private under `add-remove`. Without `rows_bound` the sampling rate, the
    number of steps and the learning rate come from it all the same, which is the customary
    concession of DP-SGD; with it nothing does.

    Args:
        features: (n, d), any float dtype, n ≥ 1.
        labels: (n,) int64 in 0..C−1.
        classes: names of the C classes, C ≥ 2.
        epsilon: 0.01 to 20.
        delta: 1e-12 to 0.1.
        neighbours: what differs between two data sets that shall look alike.
        settings: by default `DpSgdSettings()`.
        unit: what is protected; only `example`.
        rows_bound: a public bound on the number of rows.
        seed: repeats a training on the same machine, and makes its noise known: for tests and
            experiments. By default the generator is seeded by the operating system.

    Raises:
        ConfigError: a setting out of range, or Opacus or dp-accounting is not installed.
        DataError: rows or labels that cannot be used, or more rows than `rows_bound`.
    """
    settings = settings or DpSgdSettings()
    _check_privacy(epsilon, delta, neighbours, unit)
    _check_data(features, labels, classes, rows_bound)
    if seed is not None and not 0 <= seed < 2**32:
        raise ConfigError(f"seed {seed} of DP-SGD; allowed: 0..{2**32 - 1}, or None")
    _require("opacus", "dp_accounting")
    rows = Quantiser(1).scaled(features)

    begin = perf_counter()
    steps_per_epoch = settings.steps_per_epoch(rows_bound or len(rows))
    rate, steps = 1 / steps_per_epoch, settings.epochs * steps_per_epoch
    multiplier = find_noise_multiplier(epsilon, delta, neighbours, rate, steps)
    spent = epsilon_spent(multiplier, delta, neighbours, rate, steps)
    weights = _train(
        rows.astype(np.float32),
        labels,
        len(classes),
        settings,
        multiplier=multiplier,
        steps_per_epoch=steps_per_epoch,
        batch=(rows_bound or len(rows)) / steps_per_epoch,
        seed=secrets.randbits(32) if seed is None else seed,
    )
    seconds = perf_counter() - begin
    model = LinearModel(weights, classes)
    return DpSgdResult(model, spent, delta, multiplier, rate, steps, seconds)


def epsilon_spent(
    noise_multiplier: float, delta: float, neighbours: Neighbours, sample_rate: float, steps: int
) -> float:
    """Return the epsilon of so many steps, from their privacy loss distribution.

    The distribution is of Google's dp-accounting.

    The accountant rounds towards a larger epsilon. Opacus' own ask for up to 2 % (PRV, set to be
    as exact) or 9 % (RDP) more noise, and do not know `replace-one`. For that relation a step is
    accounted by the pair

        (1 − q) N(0, σ²) + q N(1, σ²)   against   (1 − q) N(0, σ²) + q N(−1, σ²)

    with q the sampling rate and σ the noise multiplier. No two rows are worse at any epsilon, so
    that steps compose (dominating pairs: Zhu, Dong & Wang, AISTATS 2022). Why: given the other rows
    that were sampled, the two data sets differ in gradients g and h of norm ≤ 1. Their divergence
    at e^ε ≥ 1 tests N(g, σ²I) against a mixture of N(h, σ²I) and N(0, σ²I), whose distances from g
    are ≤ 2 and ≤ 1: it is the mean of a convex function of the likelihood ratio under N(g, σ²I).
    That ratio is a sum of log-normal variables of given means, which in convex order is greatest if
    they move together (Dhaene et al., Insurance: Mathematics and Economics 31, 2002) and grows with
    their variances: all on one line, at the distances 2 and 1. At e^ε < 1 exchange g and h. Lastly,
    divergences are jointly convex, so that the random choice of the other rows adds nothing.

    Args:
        noise_multiplier: ≥ 0.2; less takes much memory.
        delta: 1e-12 to 0.1.
        neighbours: `add-remove` or `replace-one`.
        sample_rate: > 0, ≤ 1, of Poisson sampling.
        steps: ≥ 1.

    Raises:
        ConfigError: dp-accounting is not installed.
    """
    _require("dp_accounting")
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    relation = (
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
        if neighbours == "add-remove"
        else dp_accounting.NeighboringRelation.REPLACE_ONE
    )
    step = dp_accounting.PoissonSampledDpEvent(
        sample_rate, dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    # The deviation of the likelihood ratio, nearly that of its logarithm where it is small.
    deviation = sample_rate * sqrt(expm1(min(noise_multiplier**-2, 100.0)))
    grid = min(_WIDEST_GRID, _GRID * deviation)
    accountant = PLDAccountant(relation, value_discretization_interval=grid)
    epsilon: float = accountant.compose(step, steps).get_epsilon(delta)
    return epsilon


def find_noise_multiplier(
    epsilon: float, delta: float, neighbours: Neighbours, sample_rate: float, steps: int
) -> float:
    """Find the least noise multiplier ≥ 0.2 that spends no more than epsilon.

    It is the least up to a part in 10,000.

    `PrivacyEngine.make_private_with_epsilon` is not asked: it stops up to 0.01 below epsilon, which
    is a tenth of 0.1, warns or fails at such epsilons, and knows no `replace-one`.

    Args and errors as those of `epsilon_spent`.
    """
    _require("dp_accounting")
    import dp_accounting
    from scipy.optimize import brentq

    def excess(multiplier: float) -> float:
        return epsilon_spent(multiplier, delta, neighbours, sample_rate, steps) - epsilon

    # Enough without sampling, where `steps` releases are one with √steps times the sensitivity;
    # from there downwards, for the accountant's memory grows as the noise shrinks.
    sensitivity = 1.0 if neighbours == "add-remove" else 2.0
    enough = sensitivity * sqrt(steps) * dp_accounting.get_sigma_gaussian(epsilon, delta)
    while excess(enough) > 0:  # by what the accountant rounds up
        enough *= 1.01
    while enough > 2 * MIN_NOISE_MULTIPLIER and excess(enough / 2) <= 0:
        enough /= 2
    if enough <= 2 * MIN_NOISE_MULTIPLIER and excess(MIN_NOISE_MULTIPLIER) <= 0:
        return MIN_NOISE_MULTIPLIER
    too_little = max(enough / 2, MIN_NOISE_MULTIPLIER)
    root: float = brentq(excess, too_little, enough, xtol=_TOLERANCE / 4 * enough)
    while excess(root) > 0:  # the root may lie on either side
        root *= 1 + _TOLERANCE / 4
    return root


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows that PyTorch's loader takes a batch at a time, and not one by one."""

    features: "torch.Tensor"
    labels: "torch.Tensor"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple["torch.Tensor", "torch.Tensor"]:
        return self.features[index], self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple["torch.Tensor", "torch.Tensor"]:
        return self.features[indices], self.labels[indices]


def _train(
    rows: NDArray[np.float32],
    labels: Integers,
    classes: int,
    settings: DpSgdSettings,
    *,
    multiplier: float,
    steps_per_epoch: int,
    batch: float,
    seed: int,
) -> Floats:
    """Train (d, C) weights.

    `batch` is the public number of rows that a sum of gradients stands for.
    """
    import torch
    from opacus import PrivacyEngine
    from opacus.utils.uniform_sampler import UniformWithReplacementSampler
    from torch.utils.data import DataLoader

    generator = torch.Generator().manual_seed(seed)
    # The number of batches is given and not left to be found from the number of rows.
    sampler = UniformWithReplacementSampler(
        num_samples=len(rows),
        sample_rate=1 / steps_per_epoch,
        generator=generator,
        steps=steps_per_epoch,
    )
    loader: Any = DataLoader(
        _Rows(torch.from_numpy(rows), torch.from_numpy(labels)),  # type: ignore[arg-type]
        batch_sampler=sampler,
        collate_fn=_as_it_is,
        generator=generator,
    )
    # Made without values, so that PyTorch's own generator is not touched.
    head = torch.nn.Linear(rows.shape[1], classes, bias=False, device="meta").to_empty(device="cpu")
    torch.nn.init.zeros_(head.weight)
    # Sums, for a mean over the rows of a batch would tell how many they are.
    optimiser = torch.optim.SGD(
        head.parameters(), lr=settings.learning_rate / batch, momentum=settings.momentum
    )
    with _without_opacus_warnings():
        # "ghost" clips without holding the gradient of every row (Li et al., ICLR 2022).
        private_head, private_optimiser, loss_of, private_loader = PrivacyEngine().make_private(
            module=head,
            optimizer=optimiser,
            criterion=torch.nn.CrossEntropyLoss(reduction="sum"),
            data_loader=loader,
            noise_multiplier=multiplier,
            max_grad_norm=settings.clip,
            loss_reduction="sum",
            noise_generator=generator,
            grad_sample_mode="ghost",
        )
        for examples, truth in _batches(private_loader, settings.epochs * steps_per_epoch):
            private_optimiser.zero_grad()
            loss_of(private_head(examples), truth).backward()
            private_optimiser.step()
    weights: Floats = head.weight.detach().numpy().T.astype(np.float64)
    return weights


def _batches(loader: Any, steps: int) -> Iterator[Any]:
    """Yield so many batches; Opacus' loader begins anew whenever it ends."""
    while steps:
        for batch in loader:
            yield batch
            steps -= 1
            if not steps:
                return


def _as_it_is(batch: Any) -> Any:
    return batch


@contextmanager
def _without_opacus_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in _OPACUS_WARNINGS:
            warnings.filterwarnings("ignore", message, UserWarning)
        yield


def _check_privacy(epsilon: float, delta: float, neighbours: str, unit: str) -> None:
    if unit in ("patient", "client"):
        raise ConfigError(
            f"unit {unit} of DP-SGD; allowed: example. It bounds what one row changes; a {unit} "
            "with many rows changes as many gradients in every step. Compare with unit example, or "
            f"train --method fedavg with unit {unit}"
        )
    for field, value, choices in (
        ("unit", unit, get_args(Unit)),
        ("neighbours", neighbours, get_args(Neighbours)),
    ):
        if value not in choices:
            raise ConfigError(f"{field} is {value!r}, allowed: {', '.join(choices)}")
    if not MIN_EPSILON <= epsilon <= MAX_EPSILON:
        raise ConfigError(f"epsilon is {epsilon!r}, allowed: {MIN_EPSILON:g}..{MAX_EPSILON:g}")
    if not MIN_DELTA <= delta <= MAX_DELTA:
        raise ConfigError(f"delta is {delta!r}, allowed: {MIN_DELTA:g}..{MAX_DELTA:g}")


def _check_data(
    features: NDArray[np.floating],
    labels: Integers,
    classes: tuple[str, ...],
    rows_bound: int | None,
) -> None:
    if len(classes) < 2:
        raise ConfigError(f"{len(classes)} class; DP-SGD needs at least two to tell apart")
    check_rows(features, labels, len(classes))
    if rows_bound is not None and len(features) > rows_bound:
        raise DataError(
            f"{len(features)} rows, but rows_bound is {rows_bound}; declare a greater bound, from "
            "what is public and not from this number"
        )


def _require(*modules: str) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"DP-SGD needs {module.replace('_', '-')}; install 'secure-afl[tune]'"
            ) from error
