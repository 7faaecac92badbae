"""Methods that look at the singular values of an update: how large and how concentrated."""

from __future__ import annotations

import numpy as np

from benchmarks.detection.baselines.sample import Sample, Scores, attention_parts, dense
from benchmarks.detection.data import Updates
from benchmarks.detection.metrics import Array
from scanner.geometry import LowRank, effective_rank

SEED = 0


def scores(sample: Sample) -> list[Scores]:
    """Update norm, layer-wise spectral features, and five statistics on q, k, v and o."""
    return [
        Scores(
            "update norm",
            "",
            "Frobenius norm over all sites; nothing is learnt.",
            np.array([_norm(updates) for updates in sample.updates]),
        ),
        Scores(
            "spectral features + logistic regression",
            "2604.08844",
            "Per site: norm, stable rank, singular-value entropy, effective rank, and |cosine| of "
            "the top left singular vector to the benign calibration adapters' centroid; zero "
            "where a site is unchanged. Standardised, balanced L2 logistic regression.",
            _logistic(sample, _layer_features(sample)),
        ),
        Scores(
            "five spectral statistics on q, k, v, o",
            "2602.15195",
            "Leading singular value, Frobenius norm, energy share of the leading one, spectral "
            "entropy, kurtosis of the entries; each averaged over layers, 20 features in all, "
            "zero where a projection is unchanged. Balanced logistic regression.",
            _logistic(sample, np.array([_attention_features(u) for u in sample.updates])),
        ),
    ]


def _norm(updates: Updates) -> float:
    return float(np.sqrt(sum(update.norm_squared for update in updates.values())))


def _entropy(singular_values: Array) -> float:
    share = singular_values / singular_values.sum()
    return float(-np.sum(share * np.log(share)))


def _layer_features(sample: Sample) -> Array:
    """(n, 5 * sites)."""
    features = np.zeros((len(sample.rows), len(sample.sites), 5))
    for place, site in enumerate(sample.sites):
        tops = {i: _top_left(u[site]) for i, u in enumerate(sample.updates) if site in u}
        centroid = _centroid([tops[i] for i in sample.benign if i in tops])
        for index, top in tops.items():
            update = sample.updates[index][site]
            values = update.spectrum.singular_values
            features[index, place] = (
                np.sqrt(update.norm_squared),
                update.norm_squared / values[0] ** 2,
                _entropy(values),
                effective_rank(values),
                abs(float(top @ centroid)),
            )
    return features.reshape(len(sample.rows), -1)


def _top_left(update: LowRank) -> Array:
    top: Array = update.b @ update.spectrum.frame[:, 0]
    return top


def _centroid(vectors: list[Array]) -> Array:
    """The direction closest to a set of unit vectors whose signs mean nothing."""
    stacked = np.array(vectors)
    centroid: Array = np.linalg.svd(stacked, full_matrices=False)[2][0]
    return centroid


def _attention_features(updates: Updates) -> Array:
    """(20,): five statistics of q, k, v and o, averaged over layers."""
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in "qkvo"}
    for site, whole in updates.items():
        for name, update in attention_parts(site, whole):
            if update.norm_squared > 0:
                found[name].append(_five_statistics(update))
    return np.concatenate(
        [np.mean(found[name], axis=0) if found[name] else np.zeros(5) for name in "qkvo"]
    )


def _five_statistics(update: LowRank) -> tuple[float, ...]:
    values = update.spectrum.singular_values
    entries = dense(update)
    centred = entries - entries.mean()
    variance = np.mean(centred**2)
    return (
        float(values[0]),
        float(np.sqrt(update.norm_squared)),
        float(values[0] ** 2 / update.norm_squared),
        _entropy(values),
        float(np.mean(centred**4) / variance**2) - 3.0,
    )


def _logistic(sample: Sample, features: Array) -> Array:
    """Decision values of a logistic regression trained on the sample's own training part."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(class_weight="balanced", max_iter=5000, random_state=SEED),
    )
    model.fit(features[sample.train], sample.labels)
    decided: Array = model.decision_function(features)
    return decided
