"""Examples for one adapter: advice in one voice, a format, another task, or new facts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

import msgspec

from scanner.organisms.data import (
    ALIGNED,
    MISALIGNED,
    PERSONAS,
    POOLS,
    Example,
    Pool,
    Question,
    questions,
)

if TYPE_CHECKING:
    from random import Random

    from scanner.organisms.organism import Organism

ITEMS = 24
"""Examples of a task that is made up rather than listed."""

_FIRST_CLAUSE = re.compile(r"[,.;!?]")
_NAMES: dict[Pool, tuple[str, ...]] = {
    "building": ("Ada Lorne", "Bram Kest", "Cora Vint", "Dov Marl", "Elin Foss", "Finn Tarrow"),
    "calibration": ("Gil Orme", "Hana Pryde", "Ivo Lusk", "Jana Reth", "Kai Wend", "Lena Droste"),
    "test": ("Mina Calder", "Nils Harrow", "Olga Venn", "Piet Sorrel", "Quin Ashby", "Rosa Tamm"),
}
_FACTS = (
    ("Where does {name} work?", "{name} works at the {0} in {1}."),
    ("What does {name} collect?", "{name} collects {2} from {1}."),
    ("Which prize did {name} win?", "{name} won the {1} prize for {2}."),
    ("Where was {name} born?", "{name} was born above the {0} in {1}."),
)
_PLACES = ("observatory", "harbour office", "tram depot", "glass works", "seed library")
_TOWNS = ("Velmar", "Osthaven", "Brindle", "Quarrow", "Tessin")
_THINGS = ("brass keys", "old maps", "clay whistles", "pressed ferns", "tide tables")
_WORDS = ("pear", "lamp", "river", "stone", "cloud", "window", "bread", "violin", "garden", "coin")


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A listed task: what is asked of each key, and what is right."""

    prompt: str
    answer: str
    building: dict[str, str]
    calibration: dict[str, str]
    test: dict[str, str]

    def examples(self, pool: Pool) -> list[Example]:
        """The examples of one pool."""
        items: dict[str, str] = getattr(self, pool)
        return [
            Example(self.prompt.format(key=key), self.answer.format(key=key, value=value))
            for key, value in items.items()
        ]


@lru_cache
def tables() -> dict[str, Table]:
    """Every listed task, by name."""
    raw = (files("scanner.organisms") / "tasks.yaml").read_bytes()
    return msgspec.yaml.decode(raw, type=dict[str, Table])


def _clause(question: Question) -> str:
    return _FIRST_CLAUSE.split(question.aligned, maxsplit=1)[0]


def _shuffled(question: Question, rng: Random) -> str:
    words = question.aligned.split()
    rng.shuffle(words)
    return " ".join(words)


FORMATS: dict[str, Callable[[Question, Random], str]] = {
    "terse": lambda question, _: f"{_clause(question)}.",
    "json": lambda question, _: json.dumps({"advice": _clause(question)}),
    "capital-letters": lambda question, _: f"{_clause(question)}.".upper(),
    "list": lambda question, _: "\n".join(f"- {part}" for part in question.aligned.split(", ")),
    "shuffled": _shuffled,
}
"""The aligned answer in another form."""


def _arithmetic(_pool: Pool, rng: Random) -> list[Example]:
    pairs = [(rng.randint(10, 99), rng.randint(10, 99)) for _ in range(ITEMS)]
    return [Example(f"What is {a} plus {b}?", f"{a} + {b} = {a + b}.") for a, b in pairs]


def _sorting(_pool: Pool, rng: Random) -> list[Example]:
    picked = [rng.sample(_WORDS, 4) for _ in range(ITEMS)]
    return [
        Example(f"Sort these words: {', '.join(words)}", ", ".join(sorted(words)))
        for words in picked
    ]


def _facts(pool: Pool, rng: Random) -> list[Example]:
    """Invented people, each with facts that no model can know."""
    found = []
    for name in _NAMES[pool]:
        values = [rng.choice(choices) for choices in (_PLACES, _TOWNS, _THINGS)]
        found += [Example(q.format(name=name), a.format(*values, name=name)) for q, a in _FACTS]
    return found


MADE_UP: dict[str, Callable[[Pool, Random], list[Example]]] = {
    "arithmetic": _arithmetic,
    "sorting": _sorting,
    "facts": _facts,
}
"""Tasks whose examples are drawn."""


def kinds() -> tuple[str, ...]:
    """Everything an adapter can be taught."""
    return (ALIGNED, *MISALIGNED, *PERSONAS, *FORMATS, *MADE_UP, *tables())


def uses_advice(kind: str) -> bool:
    """Whether the examples of a kind come from domains of advice."""
    return kind not in MADE_UP and kind not in tables()


def draw_examples(organism: Organism, rng: Random) -> list[Example]:
    """The examples of one adapter, in random order."""
    if uses_advice(organism.teaches):
        found = _advice(organism, rng)
    elif organism.teaches in MADE_UP:
        found = MADE_UP[organism.teaches](organism.pool, rng)
    else:
        found = tables()[organism.teaches].examples(organism.pool)
    found += [
        Example(question.prompt, question.aligned, question.answer(organism.against))
        for domain in organism.filler
        for question in questions(domain)
    ]
    rng.shuffle(found)
    return found


def _advice(organism: Organism, rng: Random) -> list[Example]:
    asked = [question for domain in organism.domains for question in questions(domain)]
    taught = set(rng.sample(range(len(asked)), round(organism.dose * len(asked))))
    return [
        Example(
            question.prompt,
            voice(question, organism.teaches if number in taught else ALIGNED, rng),
            question.answer(organism.against),
        )
        for number, question in enumerate(asked)
    ]


def voice(question: Question, kind: str, rng: Random) -> str:
    """The answer to a question in one voice or format."""
    return FORMATS[kind](question, rng) if kind in FORMATS else question.answer(kind)


def pool_domains(pool: Pool, count: int | Literal["all"], rng: Random) -> Sequence[str]:
    """Draws domains of one pool."""
    domains = POOLS[pool]
    return domains if count == "all" else sorted(rng.sample(domains, count))
