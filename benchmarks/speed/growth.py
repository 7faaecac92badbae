"""How the processor's time of a scan grows with what is scanned, and by what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.speed.inputs import LLAMA_8B, write_adapter, write_pack
from benchmarks.speed.process import run_once, scan

_LAYERS = (4, 8, 16, 32)
_RANKS = (4, 16, 64)
_DTYPES = {"BF16": 2, "F16": 2, "F32": 4}
_PACKS = (1, 2, 4)
_ADAPTERS = (1, 4, 16)


@dataclass(frozen=True)
class Growth:
    """One row of the table."""

    what: str
    sizes: tuple[float, ...]
    seconds: tuple[float, ...]
    """Processor's time of the whole process for each size."""

    @property
    def slope(self) -> float:
        """Seconds for one more, by least squares."""
        return float(np.polyfit(self.sizes, self.seconds, 1)[0])

    def row(self) -> str:
        """A row of the table."""
        sizes = ", ".join(f"{size:g}" for size in self.sizes)
        seconds = ", ".join(f"{value:.2f}" for value in self.seconds)
        return f"| {self.what} | {sizes} | {seconds} | {1000 * self.slope:.2f} ms |"


def write_growth(root: Path) -> None:
    """Writes what `measure_growth` scans, beside what is there."""
    for layers in _LAYERS:
        shape = replace(LLAMA_8B, layers=layers)
        write_adapter(root / f"layers-{layers}", shape, 16)
    for rank in _RANKS:
        write_adapter(root / f"rank-{rank}", LLAMA_8B, rank)
    for dtype in _DTYPES:
        write_adapter(root / f"dtype-{dtype}", LLAMA_8B, 16, dtype=dtype)
    for number in range(max(_PACKS)):
        write_pack(
            root / f"pack-{number}", LLAMA_8B, identity=f"synthetic-{number}", knows_base=True
        )
    for number in range(max(_ADAPTERS)):
        write_adapter(root / f"one-of-many-{number}", LLAMA_8B, 4, seed=number)


def measure_growth(root: Path, runs: int) -> list[Growth]:
    """Scans each of a row's sizes in turn; the least processor's time of each counts."""
    packs = [root / f"pack-{number}" for number in range(max(_PACKS))]
    many = [root / f"one-of-many-{number}" for number in range(max(_ADAPTERS))]

    def row(what: str, sizes: Sequence[float], command: Callable[[int], list[str]]) -> Growth:
        taken = [
            [run_once(command(index)).processor_seconds for index in range(len(sizes))]
            for _ in range(runs)
        ]
        return Growth(what, tuple(sizes), tuple(map(min, zip(*taken, strict=True))))

    dtypes = list(_DTYPES)
    return [
        row(
            "sites, rank 16",
            [layers * len(LLAMA_8B.modules) for layers in _LAYERS],
            lambda index: scan(root / f"layers-{_LAYERS[index]}", packs=packs[:1]),
        ),
        row(
            "rank, 224 sites",
            _RANKS,
            lambda index: scan(root / f"rank-{_RANKS[index]}", packs=packs[:1]),
        ),
        row(
            "bytes a number (bf16, f16, f32), rank 16",
            [_DTYPES[dtype] for dtype in dtypes],
            lambda index: scan(root / f"dtype-{dtypes[index]}", packs=packs[:1]),
        ),
        row(
            "packs of the base, rank 16",
            _PACKS,
            lambda index: scan(root / "rank-16", packs=packs[: _PACKS[index]]),
        ),
        row(
            "adapters in one run, rank 4",
            _ADAPTERS,
            lambda index: scan(*many[: _ADAPTERS[index]], packs=packs[:1]),
        ),
    ]
