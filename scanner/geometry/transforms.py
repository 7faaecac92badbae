"""Matrices that are few coefficients of a transform."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scanner.geometry.update import AnyMatrix, Matrix
from scanner.geometry.whole_matrix import Index, Sparse


@dataclass(frozen=True)
class Fourier:
    """Real part of the inverse Fourier transform of few coefficients (2405.03003)."""

    rows: Index
    columns: Index
    values: AnyMatrix
    """Real coefficients at (rows, columns), no place twice."""
    shape: tuple[int, int]

    @cached_property
    def _even(self) -> Sparse:
        """The even part of the coefficients, which is what makes the real part."""
        (d_out, d_in), half = self.shape, self.values.astype(np.float64) / 2
        rows = np.concatenate([self.rows, -self.rows % d_out])
        columns = np.concatenate([self.columns, -self.columns % d_in])
        return Sparse(rows, columns, np.concatenate([half, half]), self.shape)

    @property
    def norm_squared(self) -> float:
        """||M||_F^2, by Parseval's theorem."""
        return self._even.norm_squared / (self.shape[0] * self.shape[1])

    @property
    def parts_squared(self) -> float:
        """The same of the coefficients, half of each of which is even unless two meet."""
        return self._even.parts_squared / (self.shape[0] * self.shape[1])

    def written(self, u: AnyMatrix) -> Matrix:
        """U^T M: the transform of U at the coefficients' rows, then the one along the rows."""
        left = np.fft.ifft(u.astype(np.float64), axis=0)
        found = []
        for column in left.T:
            weights = self.values * column[self.rows]
            real, imaginary = (
                np.bincount(self.columns, part, self.shape[1])
                for part in (weights.real, weights.imag)
            )
            found.append(np.fft.ifft(real + 1j * imaginary).real)
        return np.stack(found)

    def formed(self) -> AnyMatrix:
        """M itself."""
        coefficients = np.zeros(self.shape)
        coefficients[self.rows, self.columns] = self.values
        return np.fft.ifft2(coefficients).real.astype(np.float32)


def inverse_haar(rows: Index, columns: Index, values: AnyMatrix, shape: tuple[int, int]) -> Sparse:
    """One level of the two-dimensional inverse Haar transform of few coefficients.

    Coefficients stand in four quadrants: averages top left, differences between neighbouring
    rows top right, between neighbouring columns bottom left, of both bottom right. Each makes
    four entries of half its size.

    Args:
        rows: Of the coefficients, among d_out + d_out % 2.
        columns: Of the coefficients, among d_in + d_in % 2.
        values: The coefficients.
        shape: (d_out, d_in): what an odd size was padded by is cut off.
    """
    half_rows, half_columns = (size // 2 + size % 2 for size in shape)
    found_rows, found_columns, found_values = [], [], []
    for row in (0, 1):
        for column in (0, 1):
            found_rows.append(2 * (rows % half_rows) + row)
            found_columns.append(2 * (columns % half_columns) + column)
            sign = np.where(columns >= half_columns, 1 - 2 * row, 1)
            mark = np.where(rows >= half_rows, 1 - 2 * column, 1)
            found_values.append(values * (sign * mark / 2))
    row_of, column_of = np.concatenate(found_rows), np.concatenate(found_columns)
    inside = (row_of < shape[0]) & (column_of < shape[1])
    return Sparse(row_of[inside], column_of[inside], np.concatenate(found_values)[inside], shape)
