"""Factors whose columns cancel each other, against sums in more precision than theirs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scanner import geometry
from scanner.geometry import MAX_CANCELLATION, Direction, LowRank
from scanner.geometry.whole_matrix import Product, Whole

Array = npt.NDArray[np.float32]
EPSILON = float(np.finfo(np.float64).eps)


class Case(NamedTuple):
    b: Array
    a: Array
    direction: Direction

    def exact(self) -> npt.NDArray[np.longdouble]:
        """B A in extended precision; a product of two float32 is exact in it."""
        return self.b.astype(np.longdouble) @ self.a.astype(np.longdouble)


@st.composite
def cases(draw: st.DrawFn, smallest: int = 0, largest: int = 26) -> Case:
    """Small updates hidden in pairs of columns that are 2^n times as large and cancel."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    d_out, d_in, rank, k = (draw(st.integers(low, high)) for low, high in
                            ((4, 24), (4, 24), (1, 3), (1, 3)))  # fmt: skip
    large = np.float32(2.0 ** draw(st.integers(smallest, largest)))
    x, y, z = (
        generator.standard_normal(shape).astype(np.float32)
        for shape in ((d_out, rank), (d_out, rank), (rank, d_in))
    )
    uneven = np.float32(2.0 ** draw(st.integers(-20, 20)))
    b = np.hstack([large * x, (y - large * x) / uneven])
    a = np.vstack([z, z * uneven])
    u = np.linalg.qr(generator.standard_normal((d_out, k)))[0]
    v = np.linalg.qr(generator.standard_normal((d_in, k)))[0]
    assume(np.any(b[:, :rank] + b[:, rank:] * uneven != 0))  # else nothing is left of it
    return Case(b, a, Direction(u, generator.uniform(0.5, 2.0, k), v))


@given(cases())
def test_statistics_keep_the_digits_that_the_factors_have(case: Case) -> None:
    delta = case.exact()
    u, s, v = (part.astype(np.longdouble) for part in
               (case.direction.u, case.direction.s, case.direction.v))  # fmt: skip
    norm = float(np.sqrt(np.sum(delta**2)))
    update = LowRank(case.b, case.a, 0.5)
    projection = geometry.project(update, case.direction)
    size = float(np.linalg.norm(case.direction.s))
    # Ten digits while Gram matrices serve; then one rounding error of the largest part.
    lost = 1e-9 + 1e3 * EPSILON * update.cancellation
    assert np.sqrt(projection.norm_squared) == pytest.approx(0.5 * norm, rel=lost)
    inner = 0.5 * float(np.sum((u.T @ delta @ v).diagonal() * s))
    assert projection.inner == pytest.approx(inner, abs=lost * norm * size)
    written = 0.5 * float(np.sqrt(np.sum((u.T @ delta) ** 2)))
    # The square root of a difference: half the digits, where nothing is written.
    assert np.sqrt(projection.written_squared) == pytest.approx(
        written, rel=lost, abs=(lost + 1e-7) * norm
    )


@given(cases())
def test_cancellation_is_that_of_the_columns(case: Case) -> None:
    parts = np.sum(np.sum(case.b.astype(np.longdouble) ** 2, axis=0)
                   * np.sum(case.a.astype(np.longdouble) ** 2, axis=1))  # fmt: skip
    expected = float(np.sqrt(parts / np.sum(case.exact() ** 2)))
    for update in (LowRank(case.b, case.a, 2.0), Whole(Product(case.b, case.a), 2.0)):
        assert update.cancellation == pytest.approx(expected, rel=1e-3)


@given(cases(smallest=24))
def test_singular_values_survive(case: Case) -> None:
    update = LowRank(case.b, case.a, 1.0)
    expected = np.linalg.svd(case.exact().astype(np.float64), compute_uv=False)
    found = update.singular_values
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    basis = update.column_basis()
    assert np.allclose(basis.T @ basis, np.eye(len(found)), atol=1e-4)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_columns_that_cancel_to_nothing_are_beyond_every_limit(scale: float) -> None:
    generator = np.random.default_rng(1)
    x = (generator.standard_normal((9, 2)) * scale).astype(np.float32)
    z = generator.standard_normal((2, 7)).astype(np.float32)
    update = LowRank(np.hstack([x, -x]), np.vstack([z, z]), 1.0)
    assert update.cancellation > 1e12 > MAX_CANCELLATION
    assert len(update.singular_values) == 0 or update.norm_squared < 1e-24 * scale**2


@pytest.mark.parametrize("b", [np.zeros((6, 2)), np.ones((6, 2))])
def test_nothing_cancels_in_zeros_and_in_columns_that_add_up(b: npt.NDArray[np.float64]) -> None:
    assert LowRank(b, np.ones((2, 5)), 1.0).cancellation <= 1.0
    assert LowRank(np.eye(6), np.eye(6), 3.0).cancellation == pytest.approx(1.0)
