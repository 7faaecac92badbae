"""A convolutional classifier on dense updates, after PEFTGuard (arXiv 2411.17453)."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from torch import nn

from benchmarks.detection.baselines.sample import Indices, Sample, Scores, dense
from benchmarks.detection.metrics import Array
from scanner.formats.model import Site

EPOCHS = 30
BATCH = 32
LEARNING_RATE = 3e-4
SEED = 0
CHANNELS = 16
STRIDE = 8

Shape = tuple[int, int]


def scores(sample: Sample) -> list[Scores]:
    """The network's log-odds for every adapter."""
    return [
        Scores(
            "classifier on dense deltas (PEFTGuard)",
            "2411.17453",
            f"Dense dW of all modules (the paper: q and v), sites of one shape stacked as channels "
            f"of one {STRIDE}x{STRIDE} convolution with stride {STRIDE}, then 512, 128 and 2 "
            f"units; class-weighted cross-entropy, Adam, {EPOCHS} epochs, seed {SEED}.",
            _train_and_score(sample),
        )
    ]


class _Network(nn.Module):
    """One reducing convolution per matrix shape, then a three-layer classifier."""

    def __init__(self, channels: dict[Shape, int]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(count, CHANNELS, STRIDE, STRIDE) for count in channels.values()
        )
        reduced = sum(CHANNELS * (rows // STRIDE) * (cols // STRIDE) for rows, cols in channels)
        self.classifier = nn.Sequential(
            nn.LeakyReLU(),
            nn.Linear(reduced, 512),
            nn.LeakyReLU(),
            nn.Linear(512, 128),
            nn.LeakyReLU(),
            nn.Linear(128, 2),
        )

    def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
        """Logits (n, 2) of a batch, one stack of images per shape."""
        reduced = [
            convolution(image).flatten(1)
            for convolution, image in zip(self.convolutions, images, strict=True)
        ]
        logits: torch.Tensor = self.classifier(torch.cat(reduced, dim=1))
        return logits


def _train_and_score(sample: Sample) -> Array:
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    groups: dict[Shape, list[Site]] = defaultdict(list)
    for site in sample.sites:
        groups[sample.shapes[site]].append(site)
    scale = 1.0 / _root_mean_square(sample)
    network = _Network({shape: len(sites) for shape, sites in groups.items()})
    labels = torch.tensor(sample.labels, dtype=torch.long)
    weight = torch.tensor(
        [len(sample.train) / 2 / len(sample.benign), len(sample.train) / 2 / len(sample.misaligned)]
    )
    loss_of = nn.CrossEntropyLoss(weight.float())
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    for _ in range(EPOCHS):
        order = rng.permutation(len(sample.train))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            optimiser.zero_grad()
            images = _images(sample, groups, sample.train[batch], scale)
            loss_of(network(images), labels[torch.from_numpy(batch)]).backward()
            optimiser.step()
    return _log_odds(network, sample, groups, scale)


@torch.no_grad()
def _log_odds(
    network: _Network, sample: Sample, groups: dict[Shape, list[Site]], scale: float
) -> Array:
    found = []
    for start in range(0, len(sample.rows), BATCH):
        indices = np.arange(start, min(start + BATCH, len(sample.rows)))
        logits = network(_images(sample, groups, indices, scale))
        found.append((logits[:, 1] - logits[:, 0]).double().numpy())
    return np.concatenate(found)


def _root_mean_square(sample: Sample) -> float:
    entries = sum(rows * cols for rows, cols in sample.shapes.values())
    energies = [
        sum(update.norm_squared for update in sample.updates[index].values())
        for index in sample.train
    ]
    return float(np.sqrt(np.mean(energies) / entries))


def _images(
    sample: Sample, groups: dict[Shape, list[Site]], indices: Indices, scale: float
) -> list[torch.Tensor]:
    """Per shape, (n, sites, d_out, d_in); zero where an adapter leaves a site alone."""
    stacks = []
    for shape, sites in groups.items():
        stack = np.zeros((len(indices), len(sites), *shape), dtype=np.float32)
        for row, index in enumerate(indices):
            for channel, site in enumerate(sites):
                if (update := sample.updates[index].get(site)) is not None:
                    stack[row, channel] = dense(update) * scale
        stacks.append(torch.from_numpy(stack))
    return stacks
