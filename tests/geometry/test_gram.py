"""Products in float32 give what float64 gives, to a millionth, and float64 takes over elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner import geometry
from scanner.geometry import Direction, LowRank
from scanner.geometry.gram import GramMatrix

Array = npt.NDArray[Any]
EXACTNESS = 1e-6


def trained(generator: np.random.Generator, rows: int, rank: int) -> Array:
    """Columns of all sizes that have most of themselves in common, as of a factor that grew."""
    spread = np.geomspace(1.0, 1e-3, rank)
    mixing = generator.standard_normal((rank, rank)) * spread[:, np.newaxis]
    return generator.standard_normal((rows, rank)) @ mixing


def matrices(seed: int, kind: str, rows: int, rank: int) -> Array:
    """A tall matrix in float32."""
    generator = np.random.default_rng(seed)
    normal = generator.standard_normal((rows, rank))
    made = {
        "normal": normal,
        "uniform": generator.uniform(0.2, 1.0, (rows, rank)),
        "trained": trained(generator, rows, rank),
        "one number": np.full((rows, rank), 1 / 3),
        "signs": 0.0137 * np.sign(normal),
        "two numbers": generator.choice([0.1, 0.3], (rows, rank)),
        "heavy tails": generator.standard_cauchy((rows, rank)),
        "zero columns": normal * (np.arange(rank) % 3 > 0),
        "sizes": normal * np.geomspace(1e-12, 1e12, rank),
        "tiny": normal * 1e-30,
        "huge": normal * 1e30,
        "dependent": normal[:, :3] @ generator.standard_normal((3, rank)),
        "sixteen bits": normal.astype(np.float16),
    }
    return made[kind].astype(np.float32)


KINDS = (
    "normal", "uniform", "trained", "one number", "signs", "two numbers", "heavy tails",
    "zero columns", "sizes", "tiny", "huge", "dependent", "sixteen bits",
)  # fmt: skip


def in_double(b: Array, a: Array, scaling: float) -> LowRank:
    """The same update, whose factors are float64: all products are too."""
    return LowRank(b.astype(np.float64), a.astype(np.float64), scaling)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KINDS),
    st.sampled_from(KINDS),
    st.sampled_from([16, 24, 64]),
)
@settings(max_examples=40)
def test_every_statistic_is_that_of_float64(seed: int, left: str, right: str, rank: int) -> None:
    b = matrices(seed, left, 5000, rank)
    a = matrices(seed + 1, right, 4200, rank).T
    generator = np.random.default_rng(seed + 2)
    u, v = (np.linalg.qr(generator.standard_normal((n, 3)))[0] for n in (len(b), a.shape[1]))
    direction = Direction(u, np.array([2.0, 1.0, 0.5]), v)
    with np.errstate(over="ignore", invalid="ignore"):
        found = geometry.project(LowRank(b, a, 0.5), direction)
        expected = geometry.project(in_double(b, a, 0.5), direction)
    for name in ("norm_squared", "written_squared", "matched_squared", "cancellation"):
        exact = getattr(expected, name)
        assert getattr(found, name) == pytest.approx(exact, rel=EXACTNESS, nan_ok=True), name
    size = np.sqrt(expected.norm_squared * expected.direction_norm_squared)
    assert found.inner == pytest.approx(expected.inner, abs=EXACTNESS * size, nan_ok=True)
    assert found.rank == expected.rank


@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
@settings(max_examples=30)
def test_quadratic_forms_are_those_of_float64(seed: int, kind: str) -> None:
    matrix = matrices(seed, kind, 4500, 32)
    generator = np.random.default_rng(seed)
    exact = geometry.gram(matrix.astype(np.float64))
    # Some vectors at random, and the one whose parts cancel each other the most.
    weakest = np.linalg.eigh(exact)[1][:, :1].T
    vectors = np.vstack([generator.standard_normal((4, 32)), weakest])
    expected = np.diagonal(vectors @ exact @ vectors.T)
    found = np.diagonal(GramMatrix(matrix).along(vectors))
    # What float64 itself does not keep of the weakest is nobody's.
    floor = 1e-12 * np.square(vectors) @ np.diagonal(exact)
    assert np.all(np.abs(found - expected) <= EXACTNESS * np.abs(expected) + floor)


def test_what_is_not_finite_stays_so() -> None:
    b = matrices(0, "normal", 5000, 16)
    a = matrices(1, "normal", 4200, 16).T.copy()
    a[3, 5] = np.nan
    with np.errstate(invalid="ignore"):
        assert np.isnan(LowRank(b, a, 1.0).norm_squared)
