"""Low-rank adapters of a frozen vision transformer: what a client sends a round, by protocol.

Needs the extra 'vision'. Drawn weights stand in for a pretrained network, for which there is
`timm.create_model(NAME, pretrained=True)`.

python examples/adapters.py
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from secure_afl import Additive, Ckks, ClientData, Federation, Pairwise, Training

RANK, ROUNDS = 4, 2


class LowRank(nn.Module):
    """A frozen layer, and an adapter beside it that begins as nothing (LoRA, Hu et al. 2022)."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, RANK, bias=False)
        self.up = nn.Linear(RANK, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Add what the adapter says to what the layer says."""
        adapted: torch.Tensor = self.layer(rows) + self.up(self.down(rows))
        return adapted


class Adapted(nn.Module):
    """A frozen transformer on digits of 8 × 8 pixels, with adapters of its attention and a head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = VisionTransformer(
            img_size=8,
            patch_size=2,
            in_chans=1,
            embed_dim=64,
            depth=4,
            num_heads=4,
            num_classes=classes,
        )
        self.network.requires_grad_(False)
        self.network.head.requires_grad_(True)
        for block in self.network.blocks:
            attention = block.get_submodule("attn")
            layer = attention.get_submodule("qkv")
            assert isinstance(layer, nn.Linear), "queries, keys and values come from one layer"
            attention.qkv = LowRank(layer)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Score rows of 64 pixels: (n, C)."""
        scores: torch.Tensor = self.network(rows.reshape(-1, 1, 8, 8))
        return scores


def train(module: nn.Module, data: ClientData, seed: int) -> None:
    """Pass once over a client's rows."""
    rows, labels = torch.as_tensor(data.features), torch.as_tensor(data.labels)
    optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-2)
    for batch in torch.split(torch.randperm(len(rows)), 32):
        optimiser.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(module(rows[batch]), labels[batch]))
        optimiser.step()


digits = load_digits()
features, labels = digits.data.astype(np.float32), digits.target.astype(np.int64)
clients = [
    ClientData(name, features[start:600:4], labels[start:600:4])
    for start, name in enumerate(("north", "south", "west", "east"))
]
lora = Training("lora", lambda task: Adapted(len(task.classes)), train)

whole = sum(parameter.numel() for parameter in Adapted(10).parameters())
print(f"the whole network: {whole:,} parameters, {4 * whole:,} bytes as float32")
for protocol in (Pairwise(), Additive(), Ckks()):
    result = Federation(lora.averaging(rounds=ROUNDS), protocol).run(clients)
    layout = result.rounds[0].session.layout
    sent = result.report.bytes.upload_per_client / ROUNDS
    print(
        f"{protocol.name}: {layout.blocks[0].length:,} parameters travel, "
        f"{sent:,.0f} bytes a client and round, exact: {result.report.exact}"
    )
