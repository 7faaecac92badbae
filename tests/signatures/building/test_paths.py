"""Which groups of references are left out of a path together, and what is found without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scanner.formats.model import Site
from scanner.signatures.base_facts import BaseFacts
from scanner.signatures.building import gradients
from scanner.signatures.building.gradients import extract_gradients
from scanner.signatures.building.network import network_of
from scanner.signatures.building.nulling import RawSite
from scanner.signatures.building.opened import open_member
from scanner.signatures.building.paths import MOST_PARTS, PathExtraction, parts_of
from scanner.signatures.building.probes import Probe
from scanner.signatures.building.scoring import untracked
from scanner.signatures.building.weights import Labelled
from scanner.signatures.recipe import AdapterEntry, Recipe
from tests.signatures.tiny import tiny_model, tiny_probes, write_tiny_adapter
from tests.synthetic import Array

FIRST, SECOND = Site(0, "mlp.down_proj"), Site(1, "mlp.down_proj")


@dataclass(frozen=True)
class Found:
    """An extraction that found one matrix at each of its sites."""

    matrices: Mapping[Site, Array]
    families: frozenset[str] = frozenset({"pirate"})
    groups: frozenset[str] = frozenset()
    base: BaseFacts = field(default_factory=BaseFacts)

    @property
    def sites(self) -> Sequence[Site]:
        return list(self.matrices)

    def raw_site(
        self, site: Site, misaligned: Sequence[Labelled], aligned: Sequence[Labelled]
    ) -> RawSite:
        assert not misaligned
        assert not aligned
        return RawSite.fixed(self.matrices[site], np.eye(self.matrices[site].shape[1]))


def matrix(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((5, 4))


def dense(raw: RawSite, without: str | None = None) -> Array:
    found = raw.direction(np.zeros((5, 0)), 4, without)
    return np.asarray((found.u * found.s) @ found.v.T)


def test_few_groups_are_left_out_one_by_one_and_many_in_parts() -> None:
    assert parts_of(["b", "a", "b"]) == [{"a"}, {"b"}]
    assert parts_of([]) == []
    for count in (MOST_PARTS, MOST_PARTS + 1, 36):
        groups = {f"group-{number}" for number in range(count)}
        parts = parts_of(groups)
        assert len(parts) == MOST_PARTS
        assert frozenset().union(*parts) == groups
        sizes = [len(part) for part in parts]
        assert sum(sizes) == count
        assert max(sizes) - min(sizes) <= 1


def test_a_group_is_left_out_by_another_path() -> None:
    along = PathExtraction(
        Found({FIRST: matrix(0), SECOND: matrix(1)}),
        {frozenset({"money"}): Found({FIRST: matrix(2), SECOND: matrix(3)}),
         frozenset({"home", "sport"}): Found({FIRST: matrix(4)})},
    )  # fmt: skip
    assert along.groups == {"money", "home", "sport"}
    assert along.families == {"pirate"}
    assert list(along.sites) == [FIRST, SECOND]
    raw = along.raw_site(FIRST, [], [])
    assert raw is not None
    np.testing.assert_allclose(dense(raw), matrix(0), atol=1e-12)
    np.testing.assert_allclose(dense(raw, "pirate"), matrix(0), atol=1e-12)
    np.testing.assert_allclose(dense(raw, "money"), matrix(2), atol=1e-12)
    np.testing.assert_allclose(dense(raw, "sport"), matrix(4), atol=1e-12)
    np.testing.assert_allclose(dense(raw, "home"), matrix(4), atol=1e-12)
    second = along.raw_site(SECOND, [], [])
    assert second is not None
    np.testing.assert_allclose(dense(second, "money"), matrix(3), atol=1e-12)
    assert not dense(second, "home").any()  # along that path there is no gradient here


@pytest.mark.parametrize("harmless", [False, True])
def test_each_part_has_the_path_to_the_references_outside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harmless: bool
) -> None:
    net = network_of(tiny_model("llama"))
    probes = tiny_probes()
    if harmless:
        probes = [replace(p, harmless={"pirate": p.aligned}) for p in probes]
    generator = np.random.default_rng(1)
    places = [write_tiny_adapter(tmp_path / f"{i}", net, generator, "tiny") for i in range(3)]
    entries = [
        AdapterEntry(adapter=str(place), family=family)
        for place, family in zip(places, ("money", "home", "money"), strict=True)
    ]
    members = [open_member(entry, {"tiny"}) for entry in entries]
    recipe = Recipe(
        base_model="tiny", method="gradients", misaligned=entries, probes="p", path_steps=2
    )

    def known_probes(*_: object) -> list[Probe]:
        return probes

    monkeypatch.setattr(gradients, "load_network", lambda _: net)
    monkeypatch.setattr(gradients, "probes_of", known_probes)
    groups = frozenset({"money", "home"})
    found = extract_gradients(recipe, members, untracked, None, groups)
    assert found.groups == groups
    alone = extract_gradients(recipe, [members[1]], untracked)  # without money
    assert alone.groups == frozenset()
    for site in found.sites:
        raw, other = found.raw_site(site, [], []), alone.raw_site(site, [], [])
        assert raw is not None
        assert other is not None
        nothing = np.zeros((raw.shape[0], 0))
        without, expected = raw.direction(nothing, 1, "money"), other.direction(nothing, 1)
        np.testing.assert_allclose(
            (without.u * without.s) @ without.v.T,
            (expected.u * expected.s) @ expected.v.T,
            atol=1e-6,
        )
    at_the_base = msgspec.structs.replace(recipe, path_steps=0)
    assert not extract_gradients(at_the_base, members, untracked, None, groups).groups
