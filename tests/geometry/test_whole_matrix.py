"""Every way to hold a matrix without low-rank structure, against the matrix itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner import geometry
from scanner.geometry import Direction
from scanner.geometry.transforms import Fourier, inverse_haar
from scanner.geometry.whole_matrix import (
    EXACT_ELEMENTS,
    BlockCirculant,
    Dense,
    ElementwiseProduct,
    KroneckerProduct,
    Product,
    Side,
    Sparse,
    Structure,
    Whole,
)

Array = npt.NDArray[np.float64]
Made = tuple[Structure, Array]


def _normal(generator: np.random.Generator, *shape: int) -> npt.NDArray[np.float32]:
    return generator.standard_normal(shape).astype(np.float32)


def dense(generator: np.random.Generator) -> Made:
    matrix = _normal(generator, 13, 7)
    return Dense(matrix), matrix.astype(np.float64)


def product(generator: np.random.Generator) -> Made:
    b, a = _normal(generator, 9, 20), _normal(generator, 20, 11)
    return Product(b, a), b.astype(np.float64) @ a.astype(np.float64)


def elementwise(generator: np.random.Generator) -> Made:
    sides = [(_normal(generator, 9, 3), _normal(generator, 3, 5)) for _ in range(2)]
    first, second = (b.astype(np.float64) @ a.astype(np.float64) for b, a in sides)
    return ElementwiseProduct(*(Product(*side) for side in sides)), first * second


def kronecker(generator: np.random.Generator) -> Made:
    b, a, whole = _normal(generator, 4, 2), _normal(generator, 2, 3), _normal(generator, 5, 2)
    sides: list[Side] = [Product(b, a), Dense(whole)]
    matrices = [b.astype(np.float64) @ a.astype(np.float64), whole.astype(np.float64)]
    if generator.random() < 0.5:  # either side may be applied first
        sides.reverse()
        matrices.reverse()
    return KroneckerProduct(*sides), np.kron(*matrices).astype(np.float64)


def sparse(generator: np.random.Generator) -> Made:
    rows, columns = generator.integers(0, 6, 15), generator.integers(0, 8, 15)
    values = _normal(generator, 15)
    matrix = np.zeros((6, 8))
    for row, column, value in zip(rows, columns, values, strict=True):  # places occur twice
        matrix[row, column] += float(value)
    return Sparse(rows, columns, values, (6, 8)), matrix


def circulant(generator: np.random.Generator) -> Made:
    kernel = _normal(generator, 2, 3, 5)
    matrix = np.zeros((10, 15))
    for p in range(2):
        for q in range(3):
            for t in range(5):
                for j in range(5):
                    matrix[5 * p + t, 5 * q + j] = kernel[p, q, (j - t) % 5]
    return BlockCirculant(kernel), matrix


def fourier(generator: np.random.Generator) -> Made:
    d_out, d_in = int(generator.integers(2, 9)), int(generator.integers(2, 9))
    places = generator.permutation(d_out * d_in)[:6]
    values = _normal(generator, len(places))
    coefficients = np.zeros(d_out * d_in)
    coefficients[places] = values
    matrix = np.fft.ifft2(coefficients.reshape(d_out, d_in)).real
    return Fourier(places // d_in, places % d_in, values, (d_out, d_in)), matrix


def wavelets(generator: np.random.Generator) -> Made:
    shape = (int(generator.integers(2, 9)), int(generator.integers(2, 9)))
    half = [-(-size // 2) for size in shape]
    coefficients = _normal(generator, 2 * half[0], 2 * half[1])
    rows, columns = (index.reshape(-1) for index in np.indices(coefficients.shape))
    low, high = np.array([1.0, 1.0]), np.array([1.0, -1.0])
    matrix = np.zeros((2 * half[0], 2 * half[1]))
    for row in range(2 * half[0]):
        for column in range(2 * half[1]):
            i, j = row % half[0], column % half[1]
            across, down = column >= half[1], row >= half[0]
            block = np.outer(high if across else low, high if down else low) / 2
            matrix[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] += coefficients[row, column] * block
    made = inverse_haar(rows, columns, coefficients.reshape(-1), shape)
    return made, matrix[: shape[0], : shape[1]]


MAKERS = [dense, product, elementwise, kronecker, sparse, circulant, fourier, wavelets]


@pytest.mark.parametrize("make", MAKERS)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_structure_is_its_matrix(
    make: Callable[[np.random.Generator], Made], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    structure, matrix = make(generator)
    size = float(np.linalg.norm(matrix))
    assert structure.shape == matrix.shape
    np.testing.assert_allclose(structure.formed(), matrix, atol=1e-5 * size)
    u = np.linalg.qr(generator.standard_normal((len(matrix), 2)))[0]
    v = np.linalg.qr(generator.standard_normal((matrix.shape[1], 2)))[0]
    direction = Direction(u, np.array([2.0, 1.0]), v)
    update = Whole(structure, 3.0)
    projection = geometry.project(update, direction)
    assert projection.norm_squared == pytest.approx(9 * size**2, rel=1e-5)
    np.testing.assert_allclose(projection.core, 3 * u.T @ matrix @ v, atol=1e-5 * size)
    written = 9 * float(np.sum((u.T @ matrix) ** 2))
    assert projection.written_squared == pytest.approx(written, rel=1e-4, abs=1e-8 * size**2)
    singular = 3 * np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(
        update.singular_values, singular[: projection.rank], atol=1e-4 * size
    )


def test_a_large_matrix_shows_its_rank_and_about_its_size() -> None:
    generator = np.random.default_rng(0)
    b, a = generator.standard_normal((300, 5)), generator.standard_normal((5, 400))
    assert EXACT_ELEMENTS < 300 * 400
    values = Whole(Product(b, a), 1.0).singular_values
    assert len(values) == 5
    assert np.linalg.norm(values) == pytest.approx(np.linalg.norm(b @ a), rel=0.5)


def test_a_direction_without_a_sign_has_no_inner_product() -> None:
    structure, matrix = dense(np.random.default_rng(3))
    bare = Direction(np.eye(len(matrix))[:, :2], np.ones(2), np.zeros((0, 2)))
    projection = geometry.project(Whole(structure, 1.0), bare)
    assert np.isnan(projection.inner)
    assert projection.written_squared == pytest.approx(np.sum(matrix[:2] ** 2))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_give_no_number(value: float) -> None:
    matrix = np.ones((4, 5), np.float32)
    matrix[1, 2] = value
    update = Whole(Dense(matrix), 1.0)
    direction = Direction(np.eye(4)[:, :1], np.ones(1), np.eye(5)[:, :1])
    assert np.isnan(geometry.project(update, direction).norm_squared)


def test_entries_that_cancel_show_as_cancellation() -> None:
    place = np.array([1, 1, 0])
    update = Whole(Sparse(place, place, np.array([1e6, -1e6, 1.0], np.float32), (3, 3)), 2.0)
    assert update.norm_squared == pytest.approx(4.0)
    assert update.cancellation == pytest.approx(np.sqrt(2) * 1e6, rel=1e-6)
