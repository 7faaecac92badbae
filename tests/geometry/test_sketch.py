"""Cosines with a weight from its sketch alone."""

from __future__ import annotations

import numpy as np
import pytest

from scanner.geometry import LowRank
from scanner.geometry.sketch import SIZE, WeightSketch, sketch_weight
from scanner.geometry.whole_matrix import Dense, Whole

D_OUT, D_IN = 120, 90


def weight(generator: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A matrix with a spectrum that falls off, as weights have."""
    left = np.linalg.qr(generator.standard_normal((D_OUT, D_IN)))[0]
    right = np.linalg.qr(generator.standard_normal((D_IN, D_IN)))[0]
    scaled: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = (
        (left * np.arange(1, D_IN + 1) ** -0.5) @ right
    ).astype(np.float32)
    return scaled


def test_a_sketch_tells_parts_of_a_weight_from_other_updates() -> None:
    generator = np.random.default_rng(0)
    errors: dict[str, list[float]] = {"part": [], "other": []}
    for _ in range(60):
        w = weight(generator)
        kept = sketch_weight(w)
        assert kept.norm == pytest.approx(np.linalg.norm(w), rel=1e-6)
        u, s, vt = np.linalg.svd(w, full_matrices=False)
        part = LowRank(u[:, :4] * s[:4] * 2, vt[:4] / 2, 1.0)
        expected = np.linalg.norm(s[:4]) / np.linalg.norm(s)
        errors["part"].append(kept.cosine(part, D_OUT) - float(expected))
        b, a = generator.standard_normal((D_OUT, 4)), generator.standard_normal((4, D_IN))
        other = LowRank(b, a, 0.3)
        exact = np.vdot(b @ a, w) / np.linalg.norm(b @ a) / np.linalg.norm(w)
        errors["other"].append(kept.cosine(other, D_OUT) - float(exact))
    for name, allowed in (("part", 0.1), ("other", 0.03)):
        assert abs(np.mean(errors[name])) < 0.04
        assert np.std(errors[name]) < allowed


def test_a_sketch_is_the_same_wherever_it_is_made() -> None:
    """Packs are read by other machines and later versions: the numbers are pinned."""
    kept = sketch_weight(np.ones((3, 2), np.float32))
    assert kept.sketch.shape == (SIZE, SIZE)
    assert np.sum(np.square(kept.sketch)) * 6 == pytest.approx(PINNED)


PINNED = 25984.0


def test_a_whole_matrix_has_the_cosine_of_its_factors() -> None:
    generator = np.random.default_rng(4)
    kept = sketch_weight(weight(generator))
    b, a = generator.standard_normal((D_OUT, 4)), generator.standard_normal((4, D_IN))
    factored = kept.cosine(LowRank(b, a, 1.0), D_OUT)
    assert kept.cosine(Whole(Dense(b @ a), 1.0), D_OUT) == pytest.approx(factored)
    assert kept.cosine(LowRank(b, a, -7.0), D_OUT) == pytest.approx(-factored)


def test_a_zero_update_has_no_cosine() -> None:
    zero = LowRank(np.zeros((D_OUT, 2)), np.ones((2, D_IN)), 1.0)
    assert np.isnan(sketch_weight(weight(np.random.default_rng(5))).cosine(zero, D_OUT))
    assert np.isnan(WeightSketch(0.0, np.zeros((SIZE, SIZE))).cosine(zero, D_OUT))
