"""What an update makes of its site's inputs, against inputs that are drawn one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.geometry import (
    Direction,
    LowRank,
    Matrix,
    SiteInputs,
    felt_score,
    felt_write,
    project,
)
from scanner.geometry.whole_matrix import Dense, Whole

D_OUT, D_IN, K = 14, 20, 4


def drawn_inputs(rng: np.random.Generator) -> tuple[Matrix, SiteInputs]:
    """Many inputs near few directions, and what a pack keeps of them."""
    basis = np.linalg.qr(rng.standard_normal((D_IN, D_IN)))[0]
    sizes = np.array([9.0, 4.0, 2.0, 1.0] + [0.1] * (D_IN - K))
    x = rng.standard_normal((400, D_IN)) * sizes @ basis.T + 3 * basis[:, 0]
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    kept = SiteInputs(
        vectors[:, ::-1][:, :K], values[::-1][:K], float(values[:-K].mean()), x.mean(0), answer=2.0
    )
    return x, kept


def direction(rng: np.random.Generator) -> Direction:
    """Of rank 2."""
    u = np.linalg.qr(rng.standard_normal((D_OUT, 2)))[0]
    v = np.linalg.qr(rng.standard_normal((D_IN, 2)))[0]
    return Direction(u, np.array([2.0, 0.5]), v)


@given(seed=st.integers(0, 2**32 - 1), rank=st.integers(1, 6))
def test_what_is_felt_is_the_mean_over_the_inputs(seed: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    x, kept = drawn_inputs(rng)
    d = direction(rng)
    b, a = rng.standard_normal((D_OUT, rank)), rng.standard_normal((rank, D_IN))
    felt = project(LowRank(b, a, 0.5), d, kept).felt
    assert felt is not None
    dense = 0.5 * b @ a
    answers = x @ dense.T
    # The eigenvalues that are not kept are replaced by their mean: they are small here.
    assert felt.squared == pytest.approx(np.sum(answers**2) / len(x), rel=0.02)
    matched = answers @ (d.u * d.s)
    assert felt.matched_squared == pytest.approx(np.sum(matched**2) / len(x), rel=0.05, abs=0.05)
    mean = x.mean(0)
    steady = np.sum((dense @ np.outer(mean, mean)) * ((d.u * d.s) @ d.v.T)) / (mean @ mean)
    assert felt.steady == pytest.approx(steady, abs=1e-9)
    assert felt.share == pytest.approx(np.sqrt(felt.squared) / 2.0)


@given(seed=st.integers(0, 2**32 - 1))
def test_it_depends_on_the_update_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    _, kept = drawn_inputs(rng)
    d = direction(rng)
    b, a = rng.standard_normal((D_OUT, 3)), rng.standard_normal((3, D_IN))
    g = np.linalg.qr(rng.standard_normal((3, 3)))[0] * rng.uniform(0.5, 2.0, 3)
    one = project(LowRank(b, a, 1.0), d, kept).felt
    other = project(LowRank(b @ g, np.linalg.solve(g, a), 1.0), d, kept).felt
    assert one is not None
    assert other is not None
    for name in ("squared", "matched_squared", "spread", "steady"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-8)


def test_inputs_that_hardly_occur_add_nothing_that_is_felt() -> None:
    rng = np.random.default_rng(1)
    _, kept = drawn_inputs(rng)
    d = direction(rng)
    quiet = np.linalg.qr(np.column_stack([kept.vectors, rng.standard_normal((D_IN, 3))]))[0][:, K:]
    b, a = rng.standard_normal((D_OUT, 1)), kept.vectors[:, :1].T
    alone = project(LowRank(b, a, 1.0), d, kept)
    noise = 3 * np.column_stack([b, rng.standard_normal((D_OUT, 3))])
    hidden = np.hstack([b, noise[:, 1:]]), np.vstack([a, quiet.T])
    diluted = project(LowRank(*hidden, 1.0), d, kept)
    assert diluted.norm_squared > 5 * alone.norm_squared
    assert alone.felt is not None
    assert diluted.felt is not None
    assert diluted.felt.squared == pytest.approx(alone.felt.squared, rel=0.05)
    matched = [np.sqrt(item.felt.matched_squared) for item in (alone, diluted) if item.felt]
    assert matched[1] == pytest.approx(matched[0], rel=0.1)


def test_spread_counts_the_directions_that_are_moved() -> None:
    rng = np.random.default_rng(2)
    _, kept = drawn_inputs(rng)
    d = direction(rng)
    out = np.linalg.qr(rng.standard_normal((D_OUT, K)))[0]
    for count in (1, 2, 4):
        a = kept.vectors[:, :count].T / np.sqrt(kept.values[:count, np.newaxis])
        felt = project(LowRank(out[:, :count], a, 1.0), d, kept).felt
        assert felt is not None
        assert felt.spread == pytest.approx(count)


def test_a_zero_update_is_not_felt() -> None:
    rng = np.random.default_rng(3)
    _, kept = drawn_inputs(rng)
    d = direction(rng)
    projection = project(LowRank(np.zeros((D_OUT, 2)), np.ones((2, D_IN)), 1.0), d, kept)
    assert projection.felt is not None
    assert (projection.felt.squared, projection.felt.spread) == (0.0, 1.0)
    assert np.isnan(felt_write(projection))


def test_of_a_whole_matrix_it_is_estimated() -> None:
    """32 random projections see an update of rank 3 to within a third, mostly."""
    rng = np.random.default_rng(4)
    _, kept = drawn_inputs(rng)
    b, a = rng.standard_normal((D_OUT, 3)), rng.standard_normal((3, D_IN))
    wide = np.vstack([b] * 40) / np.sqrt(40)  # the estimate is for many outputs
    d = Direction(np.vstack([direction(rng).u] * 40) / np.sqrt(40), np.ones(2), direction(rng).v)
    exact = project(LowRank(wide, a, 1.0), d, kept).felt
    estimate = project(Whole(Dense(wide @ a), 1.0), d, kept).felt
    assert exact is not None
    assert estimate is not None
    assert estimate.squared == pytest.approx(exact.squared, rel=0.5)
    assert estimate.matched_squared == pytest.approx(exact.matched_squared, rel=1e-6)
    assert estimate.steady == pytest.approx(exact.steady, rel=1e-6)


def test_without_a_sign_nothing_is_steady() -> None:
    rng = np.random.default_rng(5)
    _, kept = drawn_inputs(rng)
    signed = direction(rng)
    unsigned = Direction(signed.u, signed.s, signed.u[:0])
    felt = project(LowRank(np.ones((D_OUT, 1)), np.ones((1, D_IN)), 1.0), unsigned, kept).felt
    assert felt is not None
    assert np.isnan(felt.steady)
    assert felt.squared > 0


def test_a_site_whose_inputs_are_not_known_does_not_void_the_others() -> None:
    rng = np.random.default_rng(6)
    _, kept = drawn_inputs(rng)
    d = direction(rng)
    b, a = d.u[:, :1] + 0.1 * rng.standard_normal((D_OUT, 1)), d.v[:, :1].T
    known = [project(LowRank(size * b, a, 1.0), d, kept) for size in (1.0, 2.0)]
    unknown = project(LowRank(-b, a, 1.0), d)
    assert felt_score(known) > 0
    assert felt_score([*known, unknown]) == pytest.approx(felt_score(known))
    assert np.isnan(felt_score([unknown]))
    assert np.isnan(felt_score([]))
