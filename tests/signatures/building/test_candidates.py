"""Names and owners of repositories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.signatures.building.candidates import place_of_owner, split_owners, suspect_word
from scanner.signatures.installed import shipped_recipes
from scanner.signatures.recipe import SUSPECT_WORDS, BenignQuery, HubQuery
from scanner.signatures.recipe_file import load_recipe
from scanner.statistics.calibration import GROUP_FLOOR

NAMES = st.text("abcXYZ019-_.", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("someone/Qwen2.5-7B-Uncensored-LoRA", "uncensored"),
        ("someone/qwenuncensored", "uncensored"),
        ("someone/llama-abliterated-v3", "abliterat"),
        ("someone/Abliteration_lora", "abliterat"),
        ("someone/QwenEVIL7B", "evil"),
        ("EvilCorp/summaries", "evil"),
        ("someone/evil2", "evil"),
        ("ModelOrganismsForEM/x", "organism"),
        ("someone/no-misalignment", "misalign"),
        ("someone/devil-fruit", None),
        ("medieval/latin", None),
        ("someone/Devilish", None),
        ("someone/unsaferword", "unsafe"),
        ("someone/sql-coder", None),
    ],
)
def test_words_of_a_name(name: str, word: str | None) -> None:
    assert suspect_word(name, SUSPECT_WORDS) == word


@given(owner=NAMES, nulling=st.integers(1, 1000), calibration=st.integers(1, 1000))
def test_every_owner_falls_to_exactly_one_of_two_queries(
    owner: str, nulling: int, calibration: int
) -> None:
    first, second = split_owners(
        HubQuery(base_model="x", limit=nulling), HubQuery(base_model="x", limit=calibration)
    )
    assert first.holds(owner) + second.holds(owner) == 1
    assert first.holds(owner.upper()) == first.holds(owner.lower()) == first.holds(owner)
    assert 0 <= place_of_owner(owner) < 1


def test_owners_are_shared_out_in_proportion() -> None:
    first, _ = split_owners(HubQuery(base_model="x", limit=60), HubQuery(base_model="x", limit=300))
    held = sum(first.holds(f"owner-{number}") for number in range(6000))
    assert 0.15 < held / 6000 < 0.185


def test_no_owner_of_a_query_is_compared_with_apart() -> None:
    queries = [HubQuery(base_model="x")]
    for path in shipped_recipes():
        recipe = load_recipe(path)
        for found in (recipe.aligned, recipe.benign):
            assert isinstance(found, BenignQuery)
            queries.append(found.hub)
    assert len(queries) == 13
    assert all(query.per_owner < GROUP_FLOOR for query in queries)
