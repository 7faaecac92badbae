"""The fuzz targets hold on their own seeds, on damaged ones, and on noise, without Atheris."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fuzz.seeds import SEEDS, seeds
from fuzz.targets import TARGETS, run_one

CASES = [(target, path.name) for target in TARGETS for path in sorted((SEEDS / target).iterdir())]


def test_the_committed_seeds_are_those_the_command_writes() -> None:
    committed = {t: {p.name: p.read_bytes() for p in Path(SEEDS / t).iterdir()} for t in TARGETS}
    assert committed == seeds()


@pytest.mark.parametrize(("target", "name"), CASES)
def test_damaged_seeds(target: str, name: str) -> None:
    seed = (SEEDS / target / name).read_bytes()
    run_one(target, seed)
    generator = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(seed)
        for place in generator.integers(0, len(seed), generator.integers(1, 6)):
            damaged[place] = generator.integers(0, 256)
        cut = int(generator.integers(0, len(seed) + 1)) if generator.random() < 0.3 else len(seed)
        run_one(target, bytes(damaged[:cut]))


@pytest.mark.parametrize("target", TARGETS)
def test_noise(target: str) -> None:
    generator = np.random.default_rng(1)
    for length in (0, 1, 7, 8, 9, 100, 2000):
        run_one(target, generator.bytes(length))
