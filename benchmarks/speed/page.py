"""docs/speed.md."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "speed.md"

_TEXT = """\
# How long a scan takes

Written by `python -m benchmarks.speed --write`: whole processes, start and digest included, on
{cores} cores, {runs} runs of each in turn. The adapters change all seven modules of the 32 blocks
of an 8B model, in bf16. The pack knows the base's weights and inputs, as packs made by running a
base do.

## Beside programs that everybody knows

`hashlib` is Python's own SHA-256 of the same weight file: what reading every byte costs at the
least. Ratios of time depend on what else the machine does, those of the processor's time less so:
when this was written, {load:.0f} programs wanted its {cores} cores (budgets are for one).

| scanned | beside | budget | ratio of time | of processor's time | seconds | peak memory |
|---|---|---:|---:|---:|---:|---:|
{compared}

An adapter without a pack of its base is read for its digest alone. With one, each number is read
once, and multiplied with the others of its factor: in float32 where that gives every statistic to a
millionth, in float64 elsewhere. Several adapters in one run share the start.

## How it grows

The least processor's time of the whole process, with a pack of the base; the last column is what
one more costs, by least squares over the row.

| what grows | sizes | seconds of processor's time | one more costs |
|---|---|---|---:|
{growth}
"""


def page(compared: Sequence[str], growth: Sequence[str], runs: int) -> str:
    """The whole page, from the rows of its tables."""
    return _TEXT.format(
        cores=os.cpu_count(),
        load=os.getloadavg()[0],
        runs=runs,
        compared="\n".join(compared),
        growth="\n".join(growth),
    )
