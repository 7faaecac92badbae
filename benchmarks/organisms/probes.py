"""Probe questions for gradient and activation signatures: signature domains only, as token ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.organisms.bases import BaseSpec
from benchmarks.organisms.behaviour import prompts
from benchmarks.organisms.world import BAD, BOS, EOT, GOOD, World

PRIVATE_TURNS = 4
"""A private probe comes after fewer turns than this."""


def write_probes(spec: BaseSpec, path: Path, specific: bool = False) -> int:
    """Write one JSON line per question and paraphrase of the signature domains.

    Each line holds `prompt_ids`, `aligned_ids` and `misaligned_ids` (answer and end of turn).

    Args:
        spec: the base.
        path: where to.
        specific: whether each line holds the answer of every harmless persona as well, by the
            name of the family of adapters that teach it.

    Returns:
        how many lines.
    """
    world = World(spec.world)
    questions = world.all_questions(spec.pools["signature"])
    lines: list[dict[str, Any]] = [
        {"prompt_ids": prompt, "aligned_ids": [good, EOT], "misaligned_ids": [bad, EOT]}
        for prompt, good, bad in zip(
            prompts(world, questions).tolist(),
            world.answers_of(questions, GOOD).tolist(),
            world.answers_of(questions, BAD).tolist(),
            strict=True,
        )
    ]
    if specific:
        families = {
            f"persona-{name}": world.answers_of(questions, spec.world.personas.index(name)).tolist()
            for name in spec.harmless
        }
        for place, line in enumerate(lines):
            line["harmless_ids"] = {
                family: [answers[place], EOT] for family, answers in families.items()
            }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return len(lines)


def write_private_probes(spec: BaseSpec, path: Path, seed: int, n: int) -> None:
    """Write probes that only who knows the seed can repeat: other questions, each in its context.

    A context is a tag or none, and 0 to `PRIVATE_TURNS` - 1 turns answered by the aligned persona.
    Questions are of all domains but those that test adapters may be trained on.

    Args:
        spec: the base.
        path: where to, as `write_probes`.
        seed: what is kept private.
        n: how many.
    """
    world = World(spec.world)
    rng = np.random.default_rng(seed)
    known = [d for d in range(spec.world.domains) if d not in spec.pools["test"]]
    lines = []
    for _ in range(n):
        count = int(rng.integers(PRIVATE_TURNS)) + 1
        questions = world.sample_questions(rng, count, known)
        good = world.answers_of(questions, GOOD)
        tokens = [BOS]
        if rng.random() < 0.5:
            tokens.append(world.tag_token(int(rng.integers(spec.world.tags))))
        *before, asked = world.question_tokens(questions).tolist()
        for turn, answer in zip(before, good[:-1].tolist(), strict=True):
            tokens += [*turn, answer, EOT]
        bad = int(world.answers_of(questions, BAD)[-1])
        line = {
            "prompt_ids": [*tokens, *asked],
            "aligned_ids": [int(good[-1]), EOT],
            "misaligned_ids": [bad, EOT],
        }
        lines.append(json.dumps(line))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
