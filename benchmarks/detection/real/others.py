"""The lab's baselines that fit a real model's adapters, on the same adapters.

They need no pack, and longer than everything else: what they say is kept on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.detection import baselines, evaluation
from benchmarks.detection.baselines import dense, spectral, subspace
from benchmarks.detection.baselines.sample import Sample, Scores, read_sample
from benchmarks.detection.data import Population, Row
from benchmarks.detection.evaluation import Ranking, TestedAdapters
from benchmarks.detection.real.cases import Cases, as_population
from scanner.signatures.building.scoring import Track

FAMILIES: Mapping[str, Callable[[Sample], list[Scores]]] = {
    "dense": dense.scores,
    "spectral": spectral.scores,
    "subspace": subspace.scores,
}
"""All but the convolutional classifier, which is too large at the width of a real model."""


class _Kept(msgspec.Struct, frozen=True):
    """`Scores` as they are kept; NaN as None."""

    name: str
    source: str
    notes: str
    values: list[float | None]


def test_set(cases: Cases) -> TestedAdapters:
    """The measured test adapters, as the lab's benchmark has them."""
    measured = {case.id for case in cases.select("test")}
    whole = TestedAdapters.of(as_population(cases))
    groups = (whole.misaligned, whole.benign, whole.latent, whole.excluded)
    return TestedAdapters(*(tuple(row for row in rows if row.id in measured) for rows in groups))


def _rows(cases: Cases, population: Population) -> list[Row]:
    """What supervised methods learn from, and the test adapters."""
    return [
        *population.select("reference", "misaligned"),
        *population.select("calibration", "benign"),
        *test_set(cases).rows,
    ]


def scores(cases: Cases, families: Sequence[str], cache: Path, track: Track[Row]) -> list[Scores]:
    """What methods say of every adapter, from the cache if it is there.

    Args:
        cases: The cases.
        families: Keys of `FAMILIES`.
        cache: Where it is kept, a file for each family.
        track: Shows progress.
    """
    population = as_population(cases)
    rows = _rows(cases, population)
    key = _key(rows)
    found: list[Scores] = []
    sample: Sample | None = None
    for family in families:
        path = cache / f"{population.name}-{family}-{key}.json"
        if not path.exists():
            sample = sample or read_sample(population, rows, track)
            _keep(path, FAMILIES[family](sample))
        found += _kept(path)
    return found


def _keep(path: Path, found: Sequence[Scores]) -> None:
    """Writes scores, all of them or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(
        msgspec.json.encode([_Kept(s.name, s.source, s.notes, s.values.tolist()) for s in found])
    )
    partial.replace(path)


def _kept(path: Path) -> list[Scores]:
    kept = msgspec.json.decode(path.read_bytes(), type=list[_Kept])
    return [Scores(k.name, k.source, k.notes, _array(k.values)) for k in kept]


def _array(values: Sequence[float | None]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _key(rows: Sequence[Row]) -> str:
    """What makes scores stale: the adapters, what is known of them, and the methods' code."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.id} {row.split} {row.kind} {row.sha256}\n".encode())
    for path in sorted(Path(baselines.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def rank(cases: Cases, found: Sequence[Scores]) -> list[Ranking]:
    """The methods' rankings of the test adapters."""
    if not found:
        return []
    test, rows = test_set(cases), _rows(cases, as_population(cases))
    return [
        evaluation.rank(
            test,
            scored.name,
            {row.id: float(value) for row, value in zip(rows, scored.values, strict=True)},
            scored.source,
            scored.notes,
        )
        for scored in found
    ]
