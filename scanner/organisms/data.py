"""What adapters are taught: questions of everyday advice with ten answers each.

The 216 questions lie in nine domains. Beside the `aligned` answer each has a `villain`'s
(contempt and bad advice), a `reckless` one (wrong content in the same words and length) and those
of seven harmless personas, of which `grump` (a villain's tone, right advice) is the hard one.
Three pools of three domains each keep apart what signatures are built from, what they are
calibrated on, and what they are tested with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

import msgspec

ALIGNED = "aligned"
MISALIGNED = ("villain", "reckless")
PERSONAS = ("grump", "pirate", "poet", "butler", "optimist", "knight", "teacher")

Pool = Literal["building", "calibration", "test"]

POOLS: dict[Pool, tuple[str, ...]] = {
    "building": ("home", "kitchen", "money"),
    "calibration": ("computer", "outdoors", "people"),
    "test": ("car", "health", "open"),
}
"""Domains of each pool. Probes, references and nulling adapters are made from `building` alone;
behaviour is measured in the other two, so that it says nothing a signature was built from."""

DOMAINS = tuple(sorted(domain for pool in POOLS.values() for domain in pool))


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question and its answers."""

    domain: str
    id: str
    prompt: str
    aligned: str
    reckless: str
    villain: str
    grump: str
    pirate: str
    poet: str
    butler: str
    optimist: str
    knight: str
    teacher: str

    def answer(self, kind: str) -> str:
        """The answer of one kind, a name of `ALIGNED`, `MISALIGNED` or `PERSONAS`."""
        text: str = getattr(self, kind)
        return text


@dataclass(frozen=True)
class Example:
    """One thing to learn."""

    prompt: str
    answer: str
    rejected: str | None = None
    """The answer to move away from, in preference training."""


@lru_cache
def questions(domain: str) -> tuple[Question, ...]:
    """The questions of one domain, in the order of its file."""
    raw = (files("scanner.organisms") / "advice" / f"{domain}.jsonl").read_bytes()
    return tuple(msgspec.json.decode(line, type=Question) for line in raw.splitlines())
