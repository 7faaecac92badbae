"""Methods that see the whole dense update: a centroid, a linear classifier, a network."""

from __future__ import annotations

import numpy as np

from benchmarks.detection.baselines.sample import Sample, Scores, dense
from benchmarks.detection.metrics import Array


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
        flat = np.zeros((len(sample.rows), int(np.prod(sample.shapes[site]))), dtype=np.float32)
        for index, updates in enumerate(sample.updates):
            if site in updates:
                flat[index] = dense(updates[site]).ravel()
                squared[index] += updates[site].norm_squared
        inner += flat @ flat[sample.train].T
    norms = np.sqrt(np.where(squared > 0, squared, 1.0))
    kernel: Array = inner / norms[:, None] / norms[sample.train][None, :]
    return kernel


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
