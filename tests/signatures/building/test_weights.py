"""The weights method against dense algebra, and what its parts are for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from scanner.formats.model import Site
from scanner.geometry import LowRank
from scanner.signatures.building.nulling import RawSite
from scanner.signatures.building.weights import Labelled, WeightsExtraction

Array = npt.NDArray[np.float64]

SITE = Site(0, "mlp.down_proj")
D_OUT, D_IN = 14, 11


def random_updates(seed: int, labels: Sequence[str]) -> list[Labelled]:
    generator = np.random.default_rng(seed)
    return [
        (
            LowRank(
                generator.standard_normal((D_OUT, rank)),
                generator.standard_normal((rank, D_IN)),
                float(generator.uniform(0.5, 4.0)),
            ),
            label,
        )
        for label, rank in zip(labels, (1, 2, 3, 1, 2, 3, 1, 2), strict=False)
    ]


def unit(update: LowRank) -> Array:
    delta = update.scaling * update.b @ update.a
    return delta / np.linalg.norm(delta)


def dense_direction(
    misaligned: Sequence[Labelled], aligned: Sequence[Labelled], contrast: set[str]
) -> Array:
    """The module's formula, written with whole matrices."""

    def mean_by_label(updates: Sequence[Labelled], labels: set[str]) -> list[Array]:
        return [
            np.mean([unit(update) for update, own in updates if own == label], axis=0)
            for label in sorted(labels)
        ]

    families = {family for _, family in aligned} & contrast
    subtracted = np.mean(mean_by_label(aligned, families), axis=0) if families else 0.0
    groups = [m - subtracted for m in mean_by_label(misaligned, {g for _, g in misaligned})]
    mean: Array = np.mean(groups, axis=0)
    if len(groups) < 2:
        return mean
    pairs = [np.sum(a * b) for a, b in combinations(groups, 2)]
    agreement = np.clip(np.mean(pairs) / np.sum(mean * mean), 0, 1)
    return mean * agreement**2


def as_dense(raw: RawSite | None, without: str | None = None) -> Array:
    assert raw is not None
    direction = raw.direction(np.zeros((D_OUT, 0)), rank=99, without=without)
    return (direction.u * direction.s) @ direction.v.T


def extract(
    misaligned: Sequence[Labelled], aligned: Sequence[Labelled], contrast: set[str]
) -> RawSite | None:
    return WeightsExtraction([SITE], frozenset(contrast)).raw_site(SITE, misaligned, aligned)


@pytest.mark.parametrize("groups", [["a", "a", "b", "c"], ["a", "b"], ["a", "a", "a"]])
@pytest.mark.parametrize("contrast", [set(), {"poet"}, {"poet", "pirate"}])
def test_direction_equals_the_formula_with_whole_matrices(
    groups: list[str], contrast: set[str]
) -> None:
    misaligned = random_updates(1, groups)
    aligned = random_updates(2, ["poet", "facts", "pirate", "poet"])
    # Shared content, so that the groups agree at all.
    for update, _ in misaligned:
        update.b[:, 0] += 5.0
        update.a[0] += 5.0
    misaligned = [(LowRank(u.b, u.a, u.scaling), group) for u, group in misaligned]
    np.testing.assert_allclose(
        as_dense(extract(misaligned, aligned, contrast)),
        dense_direction(misaligned, aligned, contrast),
        atol=1e-7,
    )


def test_leaving_a_family_out_is_building_without_it() -> None:
    misaligned = random_updates(3, ["a", "a", "b"])
    aligned = random_updates(4, ["poet", "pirate", "poet", "hermit"])
    contrast = {"poet", "pirate", "hermit"}
    without = [item for item in aligned if item[1] != "poet"]
    np.testing.assert_allclose(
        as_dense(extract(misaligned, aligned, contrast), without="poet"),
        as_dense(extract(misaligned, without, contrast)),
        atol=1e-7,
    )


def test_leaving_a_group_out_is_building_without_it() -> None:
    misaligned = random_updates(8, ["a", "a", "b", "c"])
    without = [item for item in misaligned if item[1] != "b"]
    np.testing.assert_allclose(
        as_dense(extract(misaligned, [], set()), without="b"),
        as_dense(extract(without, [], set())),
        atol=1e-7,
    )


def planted(label: str, shared: Array, own: Array) -> Labelled:
    """An update that is a shared matrix plus one of its own, as exact factors."""
    left, singular, right = np.linalg.svd(shared + own)
    return LowRank(left[:, : len(singular)] * singular, right[: len(singular)], 1.0), label


def test_agreement_silences_a_site_where_groups_share_nothing() -> None:
    generator = np.random.default_rng(5)
    shared = generator.standard_normal((D_OUT, D_IN))
    noise = [generator.standard_normal((D_OUT, D_IN)) * 3 for _ in range(3)]
    agreeing = [planted(f"g{i}", 5 * shared, own) for i, own in enumerate(noise)]
    strangers = [planted(f"g{i}", 0 * shared, own) for i, own in enumerate(noise)]
    loud = np.linalg.norm(as_dense(extract(agreeing, [], set())))
    quiet = np.linalg.norm(as_dense(extract(strangers, [], set())))
    assert loud > 0.5
    assert quiet < 0.1 * loud


def test_contrast_removes_what_harmless_personas_share_with_misaligned_ones() -> None:
    generator = np.random.default_rng(6)
    someone_else, bad = generator.standard_normal((2, D_OUT, D_IN))
    zero = np.zeros((D_OUT, D_IN))
    misaligned = [planted(f"g{i}", 3 * someone_else, bad) for i in range(2)]
    aligned = [planted("poet", 3 * someone_else, zero)]

    def cosine(found: Array, target: Array) -> float:
        return float(np.sum(found * target) / np.linalg.norm(found) / np.linalg.norm(target))

    plain = as_dense(extract(misaligned, aligned, set()))
    contrasted = as_dense(extract(misaligned, aligned, {"poet"}))
    assert cosine(plain, someone_else) > 0.9
    assert abs(cosine(contrasted, someone_else)) < 0.4
    assert cosine(contrasted, bad) > 0.9


def test_a_longer_training_does_not_speak_louder() -> None:
    updates = random_updates(7, ["a", "b"])
    louder = [(LowRank(u.b * 50, u.a, u.scaling), label) for u, label in updates[:1]] + updates[1:]
    np.testing.assert_allclose(
        as_dense(extract(updates, [], set())), as_dense(extract(louder, [], set())), atol=1e-9
    )


def test_untrained_references_have_no_direction() -> None:
    zero = [(LowRank(np.zeros((D_OUT, 2)), np.ones((2, D_IN)), 1.0), "a")]
    assert extract(zero, [], set()) is None
