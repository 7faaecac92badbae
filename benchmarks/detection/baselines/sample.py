"""The adapters of one base in memory, as the baselines take them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from benchmarks.detection.data import Population, Row, Updates
from benchmarks.detection.metrics import Array
from scanner.formats.model import Site, site_order
from scanner.geometry import LowRank
from scanner.signatures.building.scoring import Track, untracked

WRITERS = ("self_attn.o_proj", "mlp.down_proj", "attn.c_proj", "mlp.c_proj")
"""Modules that write to the residual stream, in the architectures of the lab."""
ATTENTION = {"self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v"}
ATTENTION |= {"self_attn.o_proj": "o", "attn.c_proj": "o"}
FUSED = "attn.c_attn"
"""GPT-2's q, k and v in one matrix, stacked in that order."""


Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Scores:
    """One method on every row of a sample."""

    name: str
    source: str
    """Where the method was published."""
    notes: str
    """What was simplified, and what it was trained on."""
    values: Array


@dataclass(frozen=True)
class Sample:
    """Rows to be scored, and which of them a supervised method may learn from."""

    rows: tuple[Row, ...]
    updates: tuple[Updates, ...]

    @cached_property
    def misaligned(self) -> Indices:
        """Indices of the misaligned references."""
        return self._where("reference", "misaligned")

    @cached_property
    def benign(self) -> Indices:
        """Indices of the benign calibration adapters."""
        return self._where("calibration", "benign")

    def _where(self, split: str, kind: str) -> Indices:
        found = [i for i, row in enumerate(self.rows) if (row.split, row.kind) == (split, kind)]
        return np.array(found, dtype=np.intp)

    @cached_property
    def train(self) -> Indices:
        """Indices of what a supervised method learns from: misaligned first."""
        return np.concatenate([self.misaligned, self.benign])

    @cached_property
    def labels(self) -> Array:
        """1 for misaligned, 0 for benign, in the order of `train`."""
        return np.repeat([1.0, 0.0], [len(self.misaligned), len(self.benign)])

    @cached_property
    def sites(self) -> list[Site]:
        """Every site that any adapter changes."""
        return sorted({site for updates in self.updates for site in updates}, key=site_order)

    @cached_property
    def shapes(self) -> dict[Site, tuple[int, int]]:
        """(d_out, d_in) of every site."""
        return {
            site: (len(update.b), update.a.shape[1])
            for updates in self.updates
            for site, update in updates.items()
        }


def read_sample(
    population: Population, rows: Sequence[Row], track: Track[Row] = untracked
) -> Sample:
    """Reads adapters into memory."""
    tracked: Iterable[Row] = track(rows, f"{population.name}: reading adapters")
    return Sample(tuple(rows), tuple(population.read(row) for row in tracked))


def dense(update: LowRank) -> Array:
    """dW, (d_out, d_in)."""
    product: Array = update.scaling * (update.b @ update.a)
    return product


def attention_parts(site: Site, update: LowRank) -> list[tuple[str, LowRank]]:
    """The q, k, v or o projections that a site holds, each as an update of its own."""
    if site.module == FUSED:
        thirds = np.split(update.b, 3)
        return [
            (name, LowRank(b, update.a, update.scaling))
            for name, b in zip("qkv", thirds, strict=True)
        ]
    name = ATTENTION.get(site.module)
    return [(name, update)] if name else []
