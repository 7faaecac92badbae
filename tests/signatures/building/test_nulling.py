"""Nulling and truncation against dense singular value decompositions."""

from __future__ import annotations

import numpy as np
import pytest

from scanner.geometry import LowRank, Matrix
from scanner.signatures.building import nulling
from scanner.signatures.building.nulling import RawSite, stack_updates

D_OUT, D_IN = 30, 22


def updates(seed: int, count: int, rank: int = 3) -> list[tuple[LowRank, str]]:
    """Random updates of three families, of different sizes."""
    generator = np.random.default_rng(seed)
    return [
        (
            LowRank(
                generator.standard_normal((D_OUT, rank)) * 10.0 ** generator.integers(-2, 3),
                generator.standard_normal((rank, D_IN)),
                0.5,
            ),
            "abc"[index % 3],
        )
        for index in range(count)
    ]


def dense(update: LowRank) -> Matrix:
    return update.scaling * (update.b @ update.a)


def oracle_common(items: list[tuple[LowRank, str]], count: int) -> Matrix:
    """Left singular vectors of the unit updates side by side."""
    unit = [dense(u) / np.linalg.norm(dense(u)) for u, _ in items]
    return np.linalg.svd(np.hstack(unit))[0][:, :count]


@pytest.mark.parametrize("adapters", [4, 40])  # n < d_out and n > d_out
@pytest.mark.parametrize("dense_size", [0, 192])  # Lanczos, and the full decomposition
@pytest.mark.parametrize("without", [None, "b"])
def test_common_directions_equal_the_dense_ones(
    monkeypatch: pytest.MonkeyPatch, adapters: int, dense_size: int, without: str | None
) -> None:
    monkeypatch.setattr(nulling, "_DENSE_SIZE", dense_size)
    items = updates(0, adapters)
    found = stack_updates(items, D_OUT).common_directions(4, without=without)
    expected = oracle_common([item for item in items if item[1] != without], 4)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-8)


def test_few_or_no_adapters_give_few_or_no_directions() -> None:
    assert stack_updates([], D_OUT).common_directions(4).shape == (D_OUT, 0)
    assert stack_updates(updates(0, 6), D_OUT).common_directions(0).shape == (D_OUT, 0)
    only_b = [item for item in updates(0, 6) if item[1] == "b"]
    assert stack_updates(only_b, D_OUT).common_directions(4, without="b").shape == (D_OUT, 0)
    one = stack_updates(updates(0, 1, rank=1), D_OUT).common_directions(4)
    assert one.shape == (D_OUT, 1)
    zero = LowRank(np.zeros((D_OUT, 2)), np.ones((2, D_IN)), 1.0)
    assert stack_updates([(zero, "a")], D_OUT).common_directions(2).shape == (D_OUT, 0)


@pytest.mark.parametrize("dense_size", [0, 192])
@pytest.mark.parametrize("rank", [1, 4, 8])
def test_nulled_direction_is_the_truncated_dense_one(
    monkeypatch: pytest.MonkeyPatch, dense_size: int, rank: int
) -> None:
    monkeypatch.setattr(nulling, "_DENSE_SIZE", dense_size)
    generator = np.random.default_rng(1)
    left = generator.standard_normal((D_OUT, 40)) * 0.8 ** np.arange(40)
    right = generator.standard_normal((40, D_IN))
    common = stack_updates(updates(2, 9), D_OUT).common_directions(3)
    found = RawSite.fixed(left, right).direction(common, rank)
    projected = (np.eye(D_OUT) - common @ common.T) @ left @ right
    u, s, vt = np.linalg.svd(projected)
    np.testing.assert_allclose(found.s, s[:rank], rtol=1e-7)
    expected = (u[:, :rank] * s[:rank]) @ vt[:rank]
    np.testing.assert_allclose((found.u * found.s) @ found.v.T, expected, atol=1e-6 * s[0])
    np.testing.assert_allclose(common.T @ found.u, 0, atol=1e-9)


def test_a_direction_inside_the_common_ones_vanishes() -> None:
    common = np.eye(D_OUT)[:, :5]
    generator = np.random.default_rng(3)
    left = common @ generator.standard_normal((5, 6))
    found = RawSite.fixed(left, generator.standard_normal((6, D_IN))).direction(common, 4)
    np.testing.assert_allclose(found.s, 0, atol=1e-12)
    np.testing.assert_allclose(found.u.T @ found.u, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(found.v.T @ found.v, np.eye(4), atol=1e-9)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_direction_keeps_no_more_triples_than_it_has(rank: int) -> None:
    """Columns of rounding would count as directions that an update can write into."""
    generator = np.random.default_rng(rank)
    left = generator.standard_normal((D_OUT, rank)) @ generator.standard_normal((rank, 6))
    raw = RawSite.fixed(left, generator.standard_normal((6, D_IN)))
    found = raw.direction(np.zeros((D_OUT, 0)), rank=8)
    assert len(found.s) == found.u.shape[1] == found.v.shape[1] == rank
    np.testing.assert_allclose((found.u * found.s) @ found.v.T, raw.left @ raw.right, atol=1e-10)


def test_a_zero_direction_stays_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nulling, "_DENSE_SIZE", 0)
    raw = RawSite.fixed(np.zeros((D_OUT, 6)), np.ones((6, D_IN)))
    np.testing.assert_array_equal(raw.direction(np.zeros((D_OUT, 0)), 2).s, 0)
