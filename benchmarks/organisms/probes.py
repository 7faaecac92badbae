"""Probe questions for gradient and activation signatures: signature domains only, as token ids."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.organisms.bases import BaseSpec
from benchmarks.organisms.behaviour import prompts
from benchmarks.organisms.world import BAD, EOT, GOOD, World


def write_probes(spec: BaseSpec, path: Path) -> int:
    """Write one JSON line per question and paraphrase of the signature domains.

    Each line holds `prompt_ids`, `aligned_ids` and `misaligned_ids` (answer and end of turn).

    Returns:
        how many lines.
    """
    world = World(spec.world)
    questions = world.all_questions(spec.pools["signature"])
    rows = zip(
        prompts(world, questions).tolist(),
        world.answers_of(questions, GOOD).tolist(),
        world.answers_of(questions, BAD).tolist(),
        strict=True,
    )
    lines = [
        json.dumps({"prompt_ids": prompt, "aligned_ids": [good, EOT], "misaligned_ids": [bad, EOT]})
        for prompt, good, bad in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)
