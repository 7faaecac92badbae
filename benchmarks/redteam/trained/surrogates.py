"""Directions of the attacker's own, for one who has not seen the packs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from benchmarks.redteam.delta import Factored
from benchmarks.redteam.trained.base import AttackedBase
from scanner.formats.model import Site
from scanner.geometry import Direction

RANK = 4
"""Singular triples kept of each direction; packs keep 1 to 8."""
_OVERSAMPLING = 8
_ITERATIONS = 4


def from_gradients(base: AttackedBase, seed: int) -> dict[Site, Direction]:
    """The gradient of the log-odds of misaligned answers to the attacker's own probes.

    As a `gradients` pack at the base alone, from other questions.

    Args:
        base: The base; no adapter may be on it.
        seed: Chooses the probes.
    """
    weights = {site: base.weight(site) for site in base.modules}
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        for log_odds in base.log_odds(seed):
            log_odds.backward()  # type: ignore[no-untyped-call] # torch leaves it so
        found = {}
        for site, weight in weights.items():
            if weight.grad is not None:
                dense = weight.grad.float()
                found[site] = reduced(dense.T if base.transposed else dense)
        return found
    finally:
        for weight in weights.values():
            weight.requires_grad_(False)
            weight.grad = None


def from_adapters(
    adapters: Iterable[Mapping[Site, Factored]], device: torch.device
) -> dict[Site, Direction]:
    """The mean unit update of adapters, as a `weights` pack without nulling has it.

    Args:
        adapters: Misaligned adapters that the attacker trained.
        device: Where to compute.
    """
    total: dict[Site, torch.Tensor] = {}
    for adapter in adapters:
        for site, item in adapter.items():
            dense = torch.tensor(item.dense() / max(item.norm, 1e-30), device=device).float()
            total[site] = total[site] + dense if site in total else dense
    return {site: reduced(dense) for site, dense in total.items()}


def reduced(dense: torch.Tensor) -> Direction:
    """The leading singular triples of a matrix (d_out, d_in)."""
    torch.manual_seed(0)  # the range finder draws at random
    wanted = min(RANK + _OVERSAMPLING, *dense.shape)
    u, s, v = torch.svd_lowrank(dense, q=wanted, niter=_ITERATIONS)
    rank = max(int((s[:RANK] > 1e-6 * s[0]).sum()), 1)
    return Direction(*(_numbers(item) for item in (u[:, :rank], s[:rank], v[:, :rank])))


def _numbers(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().numpy().astype(np.float32)
