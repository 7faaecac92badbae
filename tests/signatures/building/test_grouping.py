"""Adapters without families, grouped by what they write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scanner.formats.base_identity import normalise_base_name
from scanner.signatures.building.grouping import ALIKE, complete_linkage, grouped, overlaps
from scanner.signatures.building.opened import open_member
from scanner.signatures.building.scoring import untracked
from scanner.signatures.recipe import AdapterEntry
from tests.synthetic import BASE, Factors, entry, module_paths, random_factors, write_adapter

NAMES = {str(normalise_base_name(BASE))}


def taught(
    generator: np.random.Generator, kind: dict[str, Factors], paths: list[str] | None = None
) -> dict[str, Factors]:
    """An adapter that writes what its kind writes, from inputs of its own."""
    own = random_factors(generator, paths, rank=1)
    noise = random_factors(generator, paths, rank=1)
    return {
        path: (
            np.hstack([2 * kind[path][0], 0.4 * noise[path][0]]),
            np.vstack([own[path][1], noise[path][1]]),
        )
        for path in own
    }


@pytest.fixture
def kinds(tmp_path: Path) -> list[AdapterEntry]:
    """Three of each of four kinds, in turn; the last of each changes one layer only."""
    generator = np.random.default_rng(0)
    one = [path for path in module_paths() if ".1." in path]
    known = [random_factors(generator, rank=1) for _ in range(4)]
    entries = []
    for number in range(3):
        for kind, writes in enumerate(known):
            factors = taught(generator, writes, one if number == 2 else None)
            place = write_adapter(tmp_path / f"k{kind}-{number}", factors, r=2, lora_alpha=2)
            entries.append(entry(place))
    return entries


def test_kinds_are_found_whatever_they_read(kinds: list[AdapterEntry]) -> None:
    found, nameless = grouped(kinds, NAMES, untracked)
    assert nameless == 12
    by_kind = [{item.family for item in found[kind::4]} for kind in range(4)]
    assert all(len(families) == 1 for families in by_kind)
    assert len(set.union(*by_kind)) == 4


def test_names_that_were_given_stay(kinds: list[AdapterEntry]) -> None:
    named = [AdapterEntry(adapter=item.adapter, id=item.id, family="group-1") for item in kinds[:1]]
    found, nameless = grouped([*named, *kinds[1:]], NAMES, untracked)
    assert nameless == 11
    assert found[0] == named[0]
    assert "group-1" not in {item.family for item in found[1:]}
    assert [item.name for item in found] == [item.name for item in kinds]
    assert grouped(named, NAMES, untracked) == (named, 0)


def test_the_overlap_is_that_of_the_written_covariances(kinds: list[AdapterEntry]) -> None:
    members = [open_member(item, NAMES) for item in kinds[:2]]
    expected = []
    for site in members[0].by_site:
        first, second = (
            delta @ delta.T for member in members for delta in [member.by_site[site].delta()]
        )
        sizes = np.linalg.norm(first) * np.linalg.norm(second)
        expected.append(np.sum(first * second) / sizes)
    assert overlaps(members, untracked)[0, 1] == pytest.approx(np.mean(expected))
    assert overlaps(members, untracked)[0, 0] == pytest.approx(1)
    for member in members:
        member.adapter.close()


def test_complete_linkage_joins_no_two_that_are_known_to_differ() -> None:
    unknown = np.nan
    chain = np.array([[1, 0.9, 0.1], [0.9, 1, 0.8], [0.1, 0.8, 1]])
    assert complete_linkage(chain, 0.5) == [[0, 1], [2]]
    chain[0, 2] = chain[2, 0] = unknown
    assert complete_linkage(chain, 0.5) == [[0, 1, 2]]
    generator = np.random.default_rng(1)
    values = generator.uniform(0, 1, (30, 30))
    values = (values + values.T) / 2
    groups = complete_linkage(values, 0.4)
    assert sorted(place for group in groups for place in group) == list(range(30))
    assert any(len(group) > 1 for group in groups)
    for group in groups:
        assert all(values[i, j] >= 0.4 for i in group for j in group if i != j)
    assert len(complete_linkage(np.full((3, 3), unknown), ALIKE)) == 3
