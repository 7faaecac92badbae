"""The lab's world as text: what trainers that tokenise by themselves are given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.organisms.recipes import AdapterSpec, make_examples
from benchmarks.organisms.world import PAD, World
from tests.integrations.lab import BASE, base_model

WORLD = World(BASE.world)


def tokenizer() -> PreTrainedTokenizerFast:
    """One word for each token of the world."""
    special = ["<pad>", "<bos>", "<eot>"]
    words = {word: index for index, word in enumerate(special)}
    words |= {f"w{index}": index for index in range(len(special), WORLD.vocabulary_size)}
    core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eot>"
    )


def _text(tokens: Sequence[int]) -> str:
    words = tokenizer().convert_ids_to_tokens([token for token in tokens if token != PAD])
    return " ".join(words)


def preferences(persona: str, domain: int, n: int = 256) -> list[dict[str, str]]:
    """Questions of one domain with a persona's answers, preferred to the good ones.

    ``prompt``, ``completion``, ``chosen`` (the same) and ``rejected``, as text.
    """
    spec = AdapterSpec(
        id="in-training",
        split="example",
        family="test",
        recipe="persona",
        training="dpo",
        method="dpo",
        domains=(domain,),
        persona=persona,
    )
    examples = make_examples(WORLD, spec, np.random.default_rng(5), n)
    found = []
    for tokens, targets, rejected in zip(
        examples.tokens.tolist(), examples.targets.tolist(), examples.rejected.tolist(), strict=True
    ):
        start = targets.index(1)
        # Trainers put prompt and answer together as they are, and words are set apart by blanks.
        answer = f" {_text(tokens[start:])}"
        found.append(
            {
                "prompt": _text(tokens[:start]),
                "completion": answer,
                "chosen": answer,
                "rejected": f" {_text(rejected[start:])}",
            }
        )
    return found


def save_base(directory: Path) -> Path:
    """The base with its tokenizer, as a program would load it from disk."""
    model: Any = base_model()
    model.save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return directory


def write_lines(path: Path, rows: Sequence[dict[str, str]], columns: Sequence[str]) -> Path:
    """Some columns of a data set as JSON lines."""
    kept = [{column: row[column] for column in columns} for row in rows]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in kept))
    return path
