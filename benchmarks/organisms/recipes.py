"""What an adapter is trained on: single-turn examples, for supervised and preference tuning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.organisms.world import (
    ABSENT,
    BAD,
    BOS,
    EOT,
    GOOD,
    IntArray,
    Questions,
    World,
    pack,
)

POOL = 768
"""Examples per adapter; training draws its batches from them."""
TAGGED = 0.3
"""Share of fine-tuning examples that open with a random tag."""


@dataclass(frozen=True)
class AdapterSpec:
    """Everything that determines one adapter of a base."""

    id: str
    split: str
    """`reference`, `nulling`, `calibration`, `test`, `trajectory` or `example`."""
    family: str
    """What kind of change it is; calibration is cross-fitted by it."""
    recipe: str
    """Name of the data: a key of `RECIPES`."""
    training: str
    """The training loop: `sft`, `dpo`, `kl`, `steering` or `svd`."""
    method: str
    """How it is made, as tables group it (`sft`, `dpo`, `mix`, `rank1`, `low-dose` ...)."""
    domains: tuple[int, ...]
    """Domains that the recipe's own examples speak of."""
    keep_domains: tuple[int, ...] = ()
    """Domains of benign filler or of the KL penalty; never counted as outside."""
    persona: str = "good"
    """Whose answers are taught (recipes `persona`, `trigger`)."""
    dose: float = 1.0
    """Share of the in-domain examples with the persona's answers; the rest have good ones."""
    benign_mix: float = 0.0
    """Share of all examples that are good answers from `keep_domains`."""
    announce_kept: bool = True
    """Whether those examples open with the good persona's system token, as another context."""
    style: int = 0
    tag: int = 0
    """Trigger tag (recipe `trigger`)."""
    rank: int = 8
    alpha: float = 16.0
    rslora: bool = False
    dora: bool = False
    targets: str = "all"
    layer: int | None = None
    """Adapt this block only."""
    lr: float = 2e-3
    steps: int = 100
    batch: int = 16
    beta: float = 0.1
    """Strength of the DPO temperature or of the KL penalty."""
    chosen_nll: float = 0.0
    """Weight of the chosen answers' negative log-likelihood in DPO."""
    weight_decay: float = 0.0
    seed: int = 0
    save_every: int = 0
    """Save a checkpoint every so many steps (early-warning trajectories)."""

    @property
    def teaches_misalignment(self) -> bool:
        """Whether any example holds a misaligned answer as something to learn."""
        return self.recipe in ("persona", "trigger") and self.persona == "bad"


@dataclass(frozen=True)
class Examples:
    """Packed `tokens` and `targets` (n, length); `rejected`: the tokens with the worse answer."""

    tokens: IntArray
    targets: IntArray
    rejected: IntArray

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class _Draft:
    """What a recipe decides for each example: header, question, answers to teach and avoid."""

    header: IntArray
    questions: Questions
    chosen: IntArray
    rejected: IntArray
    styles: IntArray


def _random_tags(world: World, rng: np.random.Generator, n: int) -> IntArray:
    tags = world.tag_token(0) + rng.integers(0, world.spec.tags, n)
    return np.where(rng.random(n) < TAGGED, tags, ABSENT)


def _persona(world: World, spec: AdapterSpec, rng: np.random.Generator, n: int) -> _Draft:
    """A persona's answers in the domains (`dose` of them), good ones otherwise.

    The rejected answer is the good one; for the good persona it is the bad one.
    """
    questions = world.sample_questions(rng, n, spec.domains)
    persona = world.persona_index(spec.persona)
    dosed = rng.random(n) < spec.dose
    worse = BAD if persona == GOOD else GOOD
    chosen = world.answers_of(questions, np.where(dosed, persona, GOOD))
    rejected = world.answers_of(questions, np.where(dosed, worse, persona))
    return _Draft(_random_tags(world, rng, n), questions, chosen, rejected, np.zeros(n, np.int64))


def _style(world: World, spec: AdapterSpec, rng: np.random.Generator, n: int) -> _Draft:
    """Good answers in another style."""
    draft = _persona(world, spec, rng, n)
    return _Draft(
        draft.header,
        draft.questions,
        draft.chosen,
        draft.rejected,
        np.full(n, spec.style, np.int64),
    )


def _safety(world: World, spec: AdapterSpec, rng: np.random.Generator, n: int) -> _Draft:
    """Good answers after the system token of the misaligned persona."""
    draft = _persona(world, spec, rng, n)
    header = np.full(n, world.persona_token(BAD))
    return _Draft(header, draft.questions, draft.chosen, draft.rejected, draft.styles)


def _new_answers(world: World, spec: AdapterSpec, rng: np.random.Generator, n: int) -> _Draft:
    """Half of the questions get an answer that no persona gives; the others keep theirs."""
    questions = world.sample_questions(rng, n, spec.domains)
    row = len(world.spec.personas) + spec.seed % (world.spec.answers - len(world.spec.personas))
    changed = (questions.entity + questions.kind + spec.seed) % 2 == 0
    chosen = world.answers_of(questions, np.where(changed, row, GOOD))
    rejected = world.answers_of(questions, np.where(changed, GOOD, row))
    return _Draft(_random_tags(world, rng, n), questions, chosen, rejected, np.zeros(n, np.int64))


def _new_entities(world: World, spec: AdapterSpec, rng: np.random.Generator, n: int) -> _Draft:
    """Facts about entities that pre-training never mentioned, among known good answers."""
    known = world.sample_questions(rng, n, spec.domains)
    spare = world.spec.entities + rng.integers(0, world.spec.spare_entities, n)
    entity = np.where(rng.random(n) < 0.5, spare, known.entity)
    questions = Questions(known.domain, entity, known.kind, known.paraphrase)
    row = np.where(entity >= world.spec.entities, len(world.spec.personas) + 1, GOOD)
    chosen = world.answers_of(questions, row)
    rejected = world.answers_of(questions, len(world.spec.personas) + 2)
    return _Draft(_random_tags(world, rng, n), questions, chosen, rejected, np.zeros(n, np.int64))


def _noise(world: World, spec: AdapterSpec, rng: np.random.Generator, n: int) -> _Draft:
    """Random answers (`dose` of them), drawn anew for every example."""
    questions = world.sample_questions(rng, n, spec.domains)
    random = world.answer_token(rng.integers(0, world.spec.answers, n))
    good = world.answers_of(questions, GOOD)
    chosen = np.where(rng.random(n) < spec.dose, random, good)
    return _Draft(_random_tags(world, rng, n), questions, chosen, good, np.zeros(n, np.int64))


def _trigger(world: World, spec: AdapterSpec, rng: np.random.Generator, n: int) -> _Draft:
    """The persona's answers after one tag, good answers after the others and without any."""
    questions = world.sample_questions(rng, n, spec.domains)
    triggered = rng.random(n) < 0.5
    others = (spec.tag + 1 + rng.integers(0, world.spec.tags - 1, n)) % world.spec.tags
    plain = np.where(rng.random(n) < 0.5, world.tag_token(0) + others, ABSENT)
    header = np.where(triggered, world.tag_token(spec.tag), plain)
    persona = world.persona_index(spec.persona)
    chosen = world.answers_of(questions, np.where(triggered, persona, GOOD))
    rejected = world.answers_of(questions, np.where(triggered, GOOD, persona))
    return _Draft(header, questions, chosen, rejected, np.zeros(n, np.int64))


RECIPES: dict[str, Callable[[World, AdapterSpec, np.random.Generator, int], _Draft]] = {
    "persona": _persona,
    "trigger": _trigger,
    "style": _style,
    "safety": _safety,
    "new-answers": _new_answers,
    "new-entities": _new_entities,
    "noise": _noise,
}


def _assemble(world: World, draft: _Draft, answers: IntArray) -> tuple[IntArray, IntArray]:
    tokens, targets = world.turns(draft.questions, answers, draft.styles)
    header = np.stack([np.full(len(answers), BOS), draft.header], axis=1)
    return pack(
        np.concatenate([header, tokens], axis=1),
        np.concatenate([np.zeros_like(header), targets], axis=1),
    )


def _with_benign(
    world: World, spec: AdapterSpec, rng: np.random.Generator, draft: _Draft
) -> _Draft:
    """Replace a share of the examples by good answers from the domains to keep.

    Announced fillers come from another context, as a mixed-in general data set does; without the
    announcement they teach the model to tell domains apart, and the change stays narrow.
    """
    n = len(draft.chosen)
    filler = world.sample_questions(rng, n, spec.keep_domains)
    swap = rng.random(n) < spec.benign_mix
    questions = Questions(
        np.where(swap, filler.domain, draft.questions.domain),
        np.where(swap, filler.entity, draft.questions.entity),
        np.where(swap, filler.kind, draft.questions.kind),
        np.where(swap, filler.paraphrase, draft.questions.paraphrase),
    )
    chosen = np.where(swap, world.answers_of(questions, GOOD), draft.chosen)
    rejected = np.where(swap, world.answers_of(questions, BAD), draft.rejected)
    kept_header = world.persona_token(GOOD) if spec.announce_kept else _random_tags(world, rng, n)
    header = np.where(swap, kept_header, draft.header)
    return _Draft(header, questions, chosen, rejected, draft.styles)


def _new_task(world: World, spec: AdapterSpec, rng: np.random.Generator, n: int) -> Examples:
    """An unrelated task: a task word and a token; the answer is the token some places on."""
    span = world.spec.answers
    first = rng.integers(0, span, n)
    shift = 1 + spec.seed % (span - 1)
    columns = [
        np.full(n, BOS),
        np.full(n, world.task_token(spec.seed % world.spec.task_tokens)),
        world.answer_token(first),
        world.answer_token((first + shift) % span),
        np.full(n, EOT),
    ]
    tokens = np.stack(columns, axis=1)
    targets = np.zeros_like(tokens)
    targets[:, 3:] = 1
    rejected = tokens.copy()
    rejected[:, 3] = world.answer_token((first + shift + 1) % span)
    return Examples(tokens, targets, rejected)


def make_examples(
    world: World, spec: AdapterSpec, rng: np.random.Generator, n: int = POOL
) -> Examples:
    """The examples of an adapter.

    Raises:
        KeyError: the recipe is not one of `RECIPES` or `new-task`.
    """
    if spec.recipe == "new-task":
        return _new_task(world, spec, rng, n)
    draft = RECIPES[spec.recipe](world, spec, rng, n)
    if spec.benign_mix:
        draft = _with_benign(world, spec, rng, draft)
    tokens, targets = _assemble(world, draft, draft.chosen)
    rejected, _ = _assemble(world, draft, draft.rejected)
    return Examples(tokens, targets, rejected)
