"""A module's victim has the module's own scores and gradients, and matching finds its input."""

import numpy as np
import pytest
import torch
from torch import nn

from attacks.gradients.matching import MatchSettings, Pixels, match
from attacks.gradients.modules import ModuleVictim, relative_error
from secure_afl.errors import ConfigError


class Small(nn.Module):
    """A frozen layer with a trained one beside it, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(8, 12)
        self.frozen.requires_grad_(False)
        self.beside = nn.Linear(8, 12, bias=False)
        self.head = nn.Linear(12, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(torch.tanh(self.frozen(rows) + self.beside(rows)))
        return scores


def victim(module: nn.Module, channels: int = 2) -> ModuleVictim:
    flat = [p.detach().double().numpy().ravel() for p in module.parameters() if p.requires_grad]
    return ModuleVictim(module, np.concatenate(flat), (channels, 2, 8 // channels // 2), 3)


def made() -> Small:
    torch.manual_seed(0)
    return Small()


def test_scores_and_gradients_are_the_modules_own() -> None:
    module = made()
    found = victim(module)
    assert found.sizes() == [(12, 8), (3, 12), (3,)]
    images = torch.rand(4, 2, 2, 2, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 1])
    # Rows as the module takes them have their channels last.
    rows = images.permute(0, 2, 3, 1).reshape(4, 8)
    own = module.double()
    assert torch.allclose(found.scores(found.parameters, images), own(rows))
    trained = [p for p in own.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(nn.functional.cross_entropy(own(rows), labels), trained)
    wanted = torch.cat([slope.flatten() for slope in slopes])
    assert torch.allclose(found.gradients(images, labels), wanted)


def test_the_module_that_is_given_stays_as_it_is() -> None:
    module = made().train()
    victim(module)
    assert module.training
    assert next(module.parameters()).dtype == torch.float32


def test_another_number_of_parameters_is_refused() -> None:
    found = victim(made())
    with pytest.raises(ConfigError, match="parameters; this network has 135"):
        found.scores(torch.zeros(7, dtype=torch.float64), torch.zeros(1, 2, 2, 2))


def test_matching_finds_the_image_of_one_row() -> None:
    found = victim(made())
    image = torch.rand(1, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    label = torch.tensor([1])
    wanted = found.gradients(image, label)
    rebuilt = match(
        found,
        wanted,
        label,
        Pixels.noise((1, 2, 2, 2), 0),
        relative_error(found),
        None,
        MatchSettings(steps=1, rate=1.0, optimiser="lbfgs"),
    )
    assert float((rebuilt - image).abs().max()) < 1e-3


def test_the_error_counts_each_part_alike_and_none_without_a_gradient() -> None:
    found = victim(made())
    wanted = torch.cat([torch.zeros(96), 100 * torch.ones(36), torch.ones(3)]).double()
    other = torch.cat([torch.ones(96), 150 * torch.ones(36), 1.5 * torch.ones(3)]).double()
    assert float(relative_error(found)(other, wanted)) == pytest.approx(0.25 + 0.25)
