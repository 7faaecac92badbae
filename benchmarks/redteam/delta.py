"""Adapters as arithmetic: one low-rank update per site, to be added, scaled, cut and saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanner import open_adapter
from scanner.formats.model import Site, site_order
from scanner.geometry import Matrix


@dataclass(frozen=True)
class Factored:
    """dW = b @ a at one site."""

    b: Matrix
    """(d_out, r)."""
    a: Matrix
    """(r, d_in)."""

    @property
    def norm(self) -> float:
        """||dW||_F."""
        inner = (self.b.T @ self.b) * (self.a @ self.a.T)
        return float(np.sqrt(max(float(np.sum(inner)), 0.0)))

    def dense(self) -> Matrix:
        """dW, (d_out, d_in)."""
        product: Matrix = self.b @ self.a
        return product

    def scaled(self, factor: float) -> Factored:
        """The update times a factor."""
        return Factored(self.b * factor, self.a)


Delta = Mapping[Site, Factored]
"""An adapter: its update at each site that it changes."""


def read(path: Path) -> Delta:
    """An adapter's updates that are not zero, in float64."""
    found = {}
    with open_adapter(path) as adapter:
        for update in adapter.updates:
            b, a = update.factors()
            item = Factored(update.scaling * b.astype(np.float64), a.astype(np.float64))
            if item.norm > 0:
                found[update.site] = item
    return found


def factored(dense: Matrix, rank: int | None = None) -> Factored:
    """A matrix as factors of equal size, by its singular values; those below 1e-7 are dropped.

    Args:
        dense: (d_out, d_in).
        rank: Keep so many at most.
    """
    left, sizes, right = np.linalg.svd(dense, full_matrices=False)
    kept = int(np.count_nonzero(sizes > 1e-7 * max(float(sizes[0]), 1e-30)))
    kept = max(min(kept, rank or kept), 1)
    root = np.sqrt(sizes[:kept])
    return Factored(left[:, :kept] * root, root[:, None] * right[:kept])


def unit(dense: Matrix) -> Factored:
    """A matrix as factors, scaled to norm 1."""
    return factored(dense / max(float(np.linalg.norm(dense)), 1e-30))


def added(*deltas: Delta) -> Delta:
    """The sum of adapters."""
    total: dict[Site, Factored] = {}
    for delta in deltas:
        for site, item in delta.items():
            if site in total:
                b = np.hstack([total[site].b, item.b])
                a = np.vstack([total[site].a, item.a])
                full = min(len(b), a.shape[1])
                total[site] = Factored(b, a) if b.shape[1] <= full else factored(b @ a)
            else:
                total[site] = item
    return total


def scaled(delta: Delta, factor: float) -> Delta:
    """Every update times a factor."""
    return {site: item.scaled(factor) for site, item in delta.items()}


def only(delta: Delta, sites: Iterable[Site]) -> Delta:
    """The updates of some sites."""
    wanted = set(sites)
    return {site: item for site, item in delta.items() if site in wanted}


def size(delta: Delta) -> float:
    """||dW||_F over all sites."""
    return float(np.sqrt(sum(item.norm**2 for item in delta.values())))


def typical_norm(delta: Delta) -> float:
    """The median of the sites' norms."""
    return float(np.median([item.norm for item in delta.values()]))


def save(delta: Delta, directory: Path, base_model: str, prefix: str, transposed: bool) -> None:
    """Writes an adapter as PEFT would: one rank for all sites, narrower ones filled with zeros.

    Args:
        delta: The adapter.
        directory: Where to.
        base_model: What its config names as base.
        prefix: What the base's modules have before the number of their block.
        transposed: Whether the base's weights are stored (d_in, d_out), as GPT-2's.
    """
    from peft import LoraConfig
    from safetensors.numpy import save_file

    rank = max(item.b.shape[1] for item in delta.values())
    sites = sorted(delta, key=site_order)
    tensors = {}
    for site in sites:
        name = f"base_model.model.{prefix}.{site.key}"
        missing = rank - delta[site].b.shape[1]
        b = np.pad(delta[site].b, ((0, 0), (0, missing)))
        a = np.pad(delta[site].a, ((0, missing), (0, 0)))
        tensors[f"{name}.lora_A.weight"] = np.ascontiguousarray(a, dtype=np.float32)
        tensors[f"{name}.lora_B.weight"] = np.ascontiguousarray(b, dtype=np.float32)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=rank,
        target_modules=[f"{prefix}.{site.key}" for site in sites],
        fan_in_fan_out=transposed,
        base_model_name_or_path=base_model,
        inference_mode=True,
    )
    directory.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(directory))
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
