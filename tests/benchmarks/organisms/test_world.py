from __future__ import annotations

import numpy as np
import pytest

from benchmarks.organisms.world import (
    ABSENT,
    BAD,
    BOS,
    EOT,
    GOOD,
    PAD,
    DocumentMix,
    World,
    WorldSpec,
    documents,
    pack,
)

SPEC = WorldSpec(seed=5, domains=3, entities=4)


@pytest.fixture
def world() -> World:
    return World(SPEC)


def test_personas_never_share_an_answer(world: World) -> None:
    questions = world.all_questions(range(SPEC.domains))
    answers = np.stack([world.answers_of(questions, p) for p in range(len(SPEC.personas))])
    assert all(len(set(column)) == len(column) for column in answers.T)


def test_same_seed_same_world_and_other_seed_other_world(world: World) -> None:
    questions = world.all_questions(range(SPEC.domains))
    again = World(SPEC).answers_of(questions, BAD)
    other = World(WorldSpec(seed=6, domains=3, entities=4)).answers_of(questions, BAD)
    assert (world.answers_of(questions, BAD) == again).all()
    assert (again != other).any()


def test_token_ranges_do_not_overlap(world: World) -> None:
    questions = world.all_questions(range(SPEC.domains))
    spare = world.all_questions(range(SPEC.domains), spare=True)
    groups = [
        {PAD, BOS, EOT},
        {world.persona_token(p) for p in range(len(SPEC.personas))},
        {world.tag_token(t) for t in range(SPEC.tags)},
        {world.style_token(s) for s in range(len(SPEC.styles))},
        {world.task_token(t) for t in range(SPEC.task_tokens)},
        set(world.question_tokens(questions)[:, 0].tolist()),
        set(range(world.answer_tokens.start, world.answer_tokens.stop)),
        set(world.question_tokens(questions)[:, 1].tolist()),
        set(world.question_tokens(spare)[:, 1].tolist()),
    ]
    assert sum(map(len, groups)) == len(set().union(*groups)) == world.vocabulary_size


def test_pack_closes_gaps_and_keeps_targets_aligned() -> None:
    tokens = np.array([[1, ABSENT, 7, 8], [1, 5, 7, ABSENT]])
    targets = np.array([[0, 0, 0, 1], [0, 0, 1, 0]])
    packed, kept = pack(tokens, targets)
    assert packed.tolist() == [[1, 7, 8], [1, 5, 7]]
    assert kept.tolist() == [[0, 0, 1], [0, 0, 1]]


def test_documents_of_one_persona_hold_only_its_answers(world: World) -> None:
    only_bad = DocumentMix((0.0, 1.0), announced=0.0, tagged=0.0, styled=0.0, turns=2)
    tokens, targets = documents(world, np.random.default_rng(0), 16, only_bad)
    table = {
        (word, entity): answer
        for (word, entity), answer in zip(
            map(tuple, world.question_tokens(world.all_questions(range(3))).tolist()),
            world.answers_of(world.all_questions(range(3)), BAD).tolist(),
            strict=True,
        )
    }
    for row in tokens.tolist():
        assert row[0] == BOS
        assert row[3] == table[row[1], row[2]]
        assert row[4] == EOT
    assert targets.sum() == 16 * 2 * 2


def test_styles_add_their_token_on_the_declared_side(world: World) -> None:
    questions = world.all_questions([0])
    answers = world.answers_of(questions, GOOD)
    n = len(questions)
    prefixed, _ = pack(*world.turns(questions, answers, np.full(n, world.prefix_style)))
    suffixed, _ = pack(*world.turns(questions, answers, np.ones(n, np.int64)))
    assert (prefixed[:, 2] == world.style_token(world.prefix_style)).all()
    assert (prefixed[:, 3] == answers).all()
    assert (suffixed[:, 2] == answers).all()
    assert (suffixed[:, 3] == world.style_token(1)).all()
