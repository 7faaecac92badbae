"""The questions, the tasks, and what is drawn from them."""

from __future__ import annotations

from random import Random
from typing import get_args

import msgspec
import pytest

from scanner.organisms import tasks
from scanner.organisms.data import (
    ALIGNED,
    DOMAINS,
    MISALIGNED,
    PERSONAS,
    POOLS,
    Pool,
    questions,
)
from scanner.organisms.organism import Organism
from scanner.organisms.plan import expand, shipped_plan

KINDS = (ALIGNED, *MISALIGNED, *PERSONAS)


@pytest.fixture
def organism() -> Organism:
    return expand(shipped_plan(), "quick")[0]


def test_pools_share_no_domain() -> None:
    domains = [domain for pool in POOLS.values() for domain in pool]
    assert len(domains) == len(set(domains)) == 9
    assert set(POOLS) == set(get_args(Pool))


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_question_has_ten_different_answers(domain: str) -> None:
    found = questions(domain)
    assert len(found) == len({q.id for q in found}) == len({q.prompt for q in found}) == 24
    for question in found:
        assert question.domain == domain
        assert len({question.answer(kind) for kind in KINDS}) == 10


@pytest.mark.parametrize("name", sorted(tasks.tables()))
def test_pools_of_a_task_share_no_item(name: str) -> None:
    table = tasks.tables()[name]
    keys = [*table.building, *table.calibration, *table.test]
    assert len(keys) == len(set(keys))
    assert min(len(table.building), len(table.calibration), len(table.test)) >= 10


def test_false_capitals_are_the_same_countries_and_all_wrong() -> None:
    true, false = tasks.tables()["capitals"], tasks.tables()["false-capitals"]
    for pool in POOLS:
        right, wrong = getattr(true, pool), getattr(false, pool)
        assert right.keys() == wrong.keys()
        assert sorted(right.values()) == sorted(wrong.values())
        assert not [key for key in right if right[key] == wrong[key]]


@pytest.mark.parametrize("kind", tasks.kinds())
def test_every_kind_gives_examples(kind: str, organism: Organism) -> None:
    asked = msgspec.structs.replace(organism, teaches=kind, domains=["people"], filler=[])
    found = tasks.draw_examples(asked, Random(1))
    assert found == tasks.draw_examples(asked, Random(1))
    assert len(found) >= 10
    assert all(example.prompt and example.answer for example in found)


def test_a_dose_is_the_share_of_taught_answers(organism: Organism) -> None:
    asked = msgspec.structs.replace(
        organism, teaches="villain", domains=["people"], filler=[], dose=0.25
    )
    villain = {question.villain for question in questions("people")}
    aligned = {question.aligned for question in questions("people")}
    answers = [example.answer for example in tasks.draw_examples(asked, Random(1))]
    assert len(villain & set(answers)) == 6
    assert len(aligned & set(answers)) == 18


def test_filler_adds_aligned_answers_of_other_domains(organism: Organism) -> None:
    asked = msgspec.structs.replace(
        organism, teaches="villain", domains=["people"], filler=["computer"], dose=1.0
    )
    answers = {example.answer for example in tasks.draw_examples(asked, Random(1))}
    assert {question.aligned for question in questions("computer")} < answers
    assert len(answers) == 48
