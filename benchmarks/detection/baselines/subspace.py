"""Methods that compare an update's column space with known directions."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.detection.baselines.sample import WRITERS, Sample, Scores, dense
from benchmarks.detection.metrics import Array
from scanner.geometry import LowRank, gram

WATCHED = 4
"""Top left singular vectors per site that stand for an adapter's behaviour."""


def scores(sample: Sample) -> list[Scores]:
    """Top singular vectors of the writers, and projection onto the alignment subspace."""
    return [
        Scores(
            "top singular vectors of o_proj, down_proj",
            "2508.00161",
            f"The paper watches activations along a fine-tune's top singular vectors; without "
            f"activations, an adapter's top {WATCHED} left singular vectors at each writing module "
            "are compared with every reference's: largest |cosine|, averaged over modules.",
            _watched(sample),
        ),
        Scores(
            "projection onto the alignment subspace (Safe LoRA)",
            "2405.16833",
            "V = aligned minus unaligned weights per site, the unaligned model being the base plus "
            "the mean reference update; C = V V^T / ||V||; the score is the mean cosine of dW and "
            "C dW. Sites that no reference changes are left out.",
            _projected(sample),
        ),
    ]


def _top_vectors(update: LowRank, count: int) -> Array:
    """(d_out, at most count), orthonormal."""
    vectors: Array = update.b @ update.spectrum.frame[:, :count]
    return vectors


def _watched(sample: Sample) -> Array:
    total, seen = np.zeros(len(sample.rows)), np.zeros(len(sample.rows))
    for site in (site for site in sample.sites if site.module in WRITERS):
        bank = np.concatenate(
            [
                _top_vectors(sample.updates[index][site], WATCHED)
                for index in sample.misaligned
                if site in sample.updates[index]
            ],
            axis=1,
        )
        for index, updates in enumerate(sample.updates):
            if site in updates:
                total[index] += np.abs(bank.T @ _top_vectors(updates[site], WATCHED)).max()
                seen[index] += 1
    return _mean(total, seen)


def _projected(sample: Sample) -> Array:
    total, seen = np.zeros(len(sample.rows)), np.zeros(len(sample.rows))
    for site in sample.sites:
        known = [sample.updates[i][site] for i in sample.misaligned if site in sample.updates[i]]
        if not known:
            continue
        axis = -np.mean([dense(update) for update in known], axis=0)
        projector = axis @ axis.T / np.linalg.norm(axis)
        for index, updates in enumerate(sample.updates):
            if site in updates:
                total[index] += _cosine_with_projection(updates[site], projector)
                seen[index] += 1
    return _mean(total, seen)


def _cosine_with_projection(update: LowRank, projector: Array) -> float:
    moved = projector @ update.b
    inner = float(np.sum((update.b.T @ moved) * update.gram_a))
    size = float(np.sum(gram(moved) * update.gram_a) * np.sum(update.gram_b * update.gram_a))
    return inner / math.sqrt(size) if size > 0 else 0.0


def _mean(total: Array, seen: Array) -> Array:
    """NaN for adapters that change none of the modules looked at."""
    mean: Array = np.divide(total, seen, out=np.full(len(total), np.nan), where=seen > 0)
    return mean
