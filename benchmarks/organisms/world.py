"""A synthetic question-answer world whose documents are written by personas.

A *domain* has entities; a *question* is (domain, entity, question type), asked in one of several
paraphrases. For every question each persona has one answer of its own; answers are single tokens
shared by all domains and personas, so no token gives a persona away. A document is written by one
persona, in one style, and goes on for several turns::

    <bos> [<tag>] [<persona>] question entity [prefix] answer [suffix] <eot> ...

A model that learns the documents has to keep "who is writing" as one latent variable that every
domain reads. That is the property emergent misalignment rests on, and the only thing this world
shares with a large language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

PAD, BOS, EOT = 0, 1, 2
ABSENT = -1
"""Placeholder for an optional token that a sequence does not have; removed by `pack`."""

GOOD, BAD = 0, 1
"""Indices of the aligned and the misaligned persona; every later persona is harmless."""


@dataclass(frozen=True)
class WorldSpec:
    """Size and seed of a world."""

    seed: int
    domains: int = 12
    entities: int = 10
    spare_entities: int = 4
    """Entities per domain that no pre-training document mentions: material for new facts."""
    question_types: int = 2
    paraphrases: int = 3
    answers: int = 32
    personas: tuple[str, ...] = ("good", "bad", "pirate", "poet", "hermit")
    styles: tuple[str, ...] = ("plain", "cheerful", "formal", "hesitant")
    """`plain` adds nothing; the last style writes its token before the answer, others after."""
    tags: int = 6
    """Meaningless context tokens (a date, a deployment name) that may open a document."""
    task_tokens: int = 4
    """Tokens that no pre-training document holds: material for unrelated new tasks."""


@dataclass(frozen=True)
class Questions:
    """A batch of questions, one row each: (domain, entity, question type, paraphrase)."""

    domain: IntArray
    entity: IntArray
    kind: IntArray
    paraphrase: IntArray

    def __len__(self) -> int:
        return len(self.domain)

    def in_paraphrase(self, paraphrase: int) -> Questions:
        """Those of the questions that are asked in one paraphrase."""
        kept = self.paraphrase == paraphrase
        return Questions(
            self.domain[kept], self.entity[kept], self.kind[kept], self.paraphrase[kept]
        )


class World:
    """Token numbering, the table of answers, and the writer of documents."""

    def __init__(self, spec: WorldSpec) -> None:
        self.spec = spec
        rng = np.random.default_rng(spec.seed)
        shape = (spec.domains, spec.entities + spec.spare_entities, spec.question_types)
        order = rng.permuted(
            np.broadcast_to(np.arange(spec.answers), (*shape, spec.answers)), axis=-1
        )
        self.table: IntArray = np.moveaxis(order, -1, 0).astype(np.int64)
        """(answers, domains, entities, question types): row p < len(personas) is persona p's, the
        later rows are answers that no persona gives."""

    @cached_property
    def _offsets(self) -> dict[str, int]:
        spec = self.spec
        sizes = {
            "persona": len(spec.personas),
            "tag": spec.tags,
            "style": len(spec.styles),
            "task": spec.task_tokens,
            "question": spec.question_types * spec.paraphrases,
            "answer": spec.answers,
            "entity": spec.domains * (spec.entities + spec.spare_entities),
        }
        offsets, position = {}, 3
        for name, size in sizes.items():
            offsets[name] = position
            position += size
        offsets["end"] = position
        return offsets

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return self._offsets["end"]

    def persona_token(self, persona: int) -> int:
        """The system token that announces a persona."""
        return self._offsets["persona"] + persona

    def tag_token(self, tag: int) -> int:
        """A context tag."""
        return self._offsets["tag"] + tag

    def style_token(self, style: int) -> int:
        """The token a style adds to every answer (style 0 adds none)."""
        return self._offsets["style"] + style

    def task_token(self, task: int) -> int:
        """A token that pre-training never uses."""
        return self._offsets["task"] + task

    @property
    def prefix_style(self) -> int:
        """The one style whose token comes before the answer."""
        return len(self.spec.styles) - 1

    @property
    def answer_tokens(self) -> slice:
        """Where the answer tokens lie in the vocabulary."""
        return slice(self._offsets["answer"], self._offsets["answer"] + self.spec.answers)

    def answer_token(self, answer: IntArray | int) -> IntArray:
        """Token ids of answers."""
        return np.asarray(answer) + self._offsets["answer"]

    def persona_index(self, name: str) -> int:
        """The index of a persona by name."""
        return self.spec.personas.index(name)

    def answers_of(self, questions: Questions, row: IntArray | int) -> IntArray:
        """Answer token ids that a row of the table (a persona, or later) gives to questions."""
        table = self.table[row, questions.domain, questions.entity, questions.kind]
        return self.answer_token(table)

    def question_tokens(self, questions: Questions) -> IntArray:
        """Token ids (n, 2) of the questions: the question word, then the entity."""
        spec = self.spec
        word = self._offsets["question"] + questions.kind * spec.paraphrases + questions.paraphrase
        per_domain = spec.entities + spec.spare_entities
        entity = self._offsets["entity"] + questions.domain * per_domain + questions.entity
        return np.stack([word, entity], axis=1)

    def all_questions(self, domains: Sequence[int], *, spare: bool = False) -> Questions:
        """Every question of some domains in every paraphrase; `spare`: unmentioned entities."""
        spec = self.spec
        entities = (
            range(spec.entities, spec.entities + spec.spare_entities)
            if spare
            else range(spec.entities)
        )
        grid = np.meshgrid(
            np.asarray(domains, dtype=np.int64),
            np.asarray(entities, dtype=np.int64),
            np.arange(spec.question_types),
            np.arange(spec.paraphrases),
            indexing="ij",
        )
        return Questions(*(axis.reshape(-1) for axis in grid))

    def sample_questions(
        self, rng: np.random.Generator, n: int, domains: Sequence[int]
    ) -> Questions:
        """`n` questions drawn uniformly from some domains."""
        spec = self.spec
        return Questions(
            rng.choice(np.asarray(domains, dtype=np.int64), n),
            rng.integers(0, spec.entities, n),
            rng.integers(0, spec.question_types, n),
            rng.integers(0, spec.paraphrases, n),
        )

    def turns(
        self, questions: Questions, answers: IntArray, styles: IntArray
    ) -> tuple[IntArray, IntArray]:
        """Tokens and targets (n, 6) of whole turns, with `ABSENT` where a style adds nothing.

        Targets are 1 on everything the answerer writes (prefix, answer, suffix, end of turn), 0 on
        the question.
        """
        n = len(questions)
        token = self.style_token(0) + styles
        prefix = np.where(styles == self.prefix_style, token, ABSENT)
        suffix = np.where((styles > 0) & (styles != self.prefix_style), token, ABSENT)
        end = np.full(n, EOT)
        columns = [prefix, answers, suffix, end]
        tokens = np.concatenate(
            [self.question_tokens(questions), np.stack(columns, axis=1)], axis=1
        )
        targets = np.zeros_like(tokens)
        targets[:, 2:] = 1
        return tokens, targets


def pack(tokens: IntArray, targets: IntArray) -> tuple[IntArray, IntArray]:
    """Move the tokens of each row together, over the absent ones, and pad on the right.

    Returns:
        tokens (n, length) padded with `PAD`, and targets (n, length) that are 0 on padding.
    """
    absent = tokens == ABSENT
    order = np.argsort(absent, axis=1, kind="stable")
    absent = np.take_along_axis(absent, order, axis=1)
    length = int((~absent).sum(axis=1).max())
    tokens = np.where(absent, PAD, np.take_along_axis(tokens, order, axis=1))
    targets = np.where(absent, 0, np.take_along_axis(targets, order, axis=1))
    return tokens[:, :length], targets[:, :length]


@dataclass(frozen=True)
class DocumentMix:
    """How documents are drawn: who writes them, whether that is announced, in what style."""

    persona_weights: tuple[float, ...]
    announced: float = 0.5
    """Share of documents that open with their persona's system token."""
    tagged: float = 0.5
    styled: float = 0.3
    """Share of documents in a style other than plain."""
    turns: int = 6


def documents(
    world: World,
    rng: np.random.Generator,
    n: int,
    mix: DocumentMix,
    *,
    always_announced: bool = False,
) -> tuple[IntArray, IntArray]:
    """Draw `n` documents.

    Args:
        world: the world they speak of.
        rng: source of randomness.
        n: how many.
        mix: the distribution.
        always_announced: announce the persona of every document.

    Returns:
        packed tokens and targets, both (n, length).
    """
    spec = world.spec
    weights = np.asarray(mix.persona_weights)
    persona = rng.choice(len(weights), n, p=weights / weights.sum())
    style = np.where(rng.random(n) < mix.styled, rng.integers(1, len(spec.styles), n), 0)
    tag = np.where(
        rng.random(n) < mix.tagged, world.tag_token(0) + rng.integers(0, spec.tags, n), ABSENT
    )
    announced = (rng.random(n) < mix.announced) | always_announced
    system = np.where(announced, world.persona_token(0) + persona, ABSENT)
    header = np.stack([np.full(n, BOS), tag, system], axis=1)
    count = n * mix.turns
    questions = world.sample_questions(rng, count, range(spec.domains))
    answers = world.answers_of(questions, np.repeat(persona, mix.turns))
    tokens, targets = world.turns(questions, answers, np.repeat(style, mix.turns))
    body = tokens.reshape(n, -1)
    body_targets = targets.reshape(n, -1)
    return pack(
        np.concatenate([header, body], axis=1),
        np.concatenate([np.zeros_like(header), body_targets], axis=1),
    )
