"""Methods that see the whole dense update: a centroid, a linear classifier, a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.detection.baselines.sample import Sample, Scores, dense
from benchmarks.detection.metrics import Array
from scanner.formats.model import Site
from scanner.geometry import AnyMatrix, LowRank


def scores(sample: Sample) -> list[Scores]:
    """Cosine to a benign centroid, and a linear classifier on unit updates."""
    cosines = cosine_kernel(sample)
    return [
        Scores(
            "cosine to a benign centroid",
            "",
            "One minus the cosine of dW and the mean unit dW of the benign calibration adapters.",
            _distance_to_centroid(sample, cosines),
        ),
        Scores(
            "linear SVM on dense deltas",
            "",
            "Balanced linear support vector machine on unit dense dW of all sites; not published "
            "for this purpose, the plainest supervised use of the same data.",
            _linear(sample, cosines),
        ),
    ]


def cosine_kernel(sample: Sample) -> Array:
    """Cosines of every adapter with every training adapter over all sites, (n, n_train)."""
    inner = np.zeros((len(sample.rows), len(sample.train)))
    squared = np.zeros(len(sample.rows))
    for site in sample.sites:
        for index, updates in enumerate(sample.updates):
            if site in updates:
                squared[index] += updates[site].norm_squared
        inner += (
            products_of_factors(sample, site) if _thin(sample, site) else products(sample, site)
        )
    norms = np.sqrt(np.where(squared > 0, squared, 1.0))
    kernel: Array = inner / norms[:, None] / norms[sample.train][None, :]
    return kernel


def _thin(sample: Sample, site: Site) -> bool:
    """Whether the products at a site take less work from the factors than from whole updates."""
    d_out, d_in = sample.shapes[site]
    ranks = [u[site].b.shape[1] if site in u else 0 for u in sample.updates]
    of_train = sum(ranks[index] for index in sample.train)
    whole = len(ranks) * len(sample.train) * d_out * d_in
    return bool(sum(ranks) * of_train * (d_out + d_in) < whole)


def products(sample: Sample, site: Site) -> Array:
    """<dW_i, dW_j> at a site, every adapter with every training adapter, (n, n_train)."""
    flat = np.zeros((len(sample.rows), int(np.prod(sample.shapes[site]))), dtype=np.float32)
    for index, updates in enumerate(sample.updates):
        if site in updates:
            flat[index] = dense(updates[site]).ravel()
    found: Array = (flat @ flat[sample.train].T).astype(np.float64)
    return found


def products_of_factors(sample: Sample, site: Site) -> Array:
    """The same from factors: <B A, B' A'> is the sum of (B^T B') * (A A'^T), entry by entry."""
    found = np.zeros((len(sample.rows), len(sample.train)))
    there = [index for index, updates in enumerate(sample.updates) if site in updates]
    places = [place for place, index in enumerate(sample.train) if site in sample.updates[index]]
    if places:
        b, a, starts = _stacked([sample.updates[index][site] for index in there])
        own = [sample.updates[sample.train[place]][site] for place in places]
        b_train, a_train, starts_train = _stacked(own)
        entries = (b.T @ b_train) * (a @ a_train.T)
        summed = np.add.reduceat(np.add.reduceat(entries, starts, axis=0), starts_train, axis=1)
        found[np.ix_(there, places)] = summed
    return found


def _stacked(updates: Sequence[LowRank]) -> tuple[AnyMatrix, AnyMatrix, list[int]]:
    """Factors beside one another, scaled, and where each update's begin."""
    ranks = [update.b.shape[1] for update in updates]
    return (
        np.concatenate([update.scaling * update.b for update in updates], axis=1),
        np.concatenate([update.a for update in updates], axis=0),
        [0, *np.cumsum(ranks)[:-1].tolist()],
    )


def _distance_to_centroid(sample: Sample, cosines: Array) -> Array:
    benign = slice(len(sample.misaligned), None)
    size = np.sqrt(cosines[sample.benign][:, benign].mean())
    distance: Array = 1.0 - cosines[:, benign].mean(axis=1) / size
    return distance


def _linear(sample: Sample, cosines: Array) -> Array:
    from sklearn.svm import SVC

    model = SVC(kernel="precomputed", class_weight="balanced")
    model.fit(cosines[sample.train], sample.labels)
    decided: Array = model.decision_function(cosines)
    return decided
