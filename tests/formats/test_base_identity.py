"""Names and shapes of base models."""

from __future__ import annotations

import pytest

from scanner.formats.base_identity import normalise_base_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("meta-llama/Llama-3.2-1B-Instruct", "llama-3.2-1b-instruct"),
        ("unsloth/llama-3.2-1b-instruct-bnb-4bit", "llama-3.2-1b-instruct"),
        ("unsloth/Llama-3.2-1B-Instruct-unsloth-bnb-4bit", "llama-3.2-1b-instruct"),
        ("mlx-community/Llama-3.2-1B-Instruct-4bit", "llama-3.2-1b-instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", "qwen2.5-7b-instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "qwen2.5-7b-instruct"),
        ("neuralmagic/Model-7B-FP8-dynamic", "model-7b"),
        ("/data/models/Qwen2.5-7B-Instruct/", "qwen2.5-7b-instruct"),
        ("C:\\models\\Qwen2.5-7B-Instruct", "qwen2.5-7b-instruct"),
        ("../模型/千问", "千问"),
        (None, None),
        ("", None),
        ("..", None),
        ("/", None),
    ],
)
def test_names_are_normalised(name: str | None, expected: str | None) -> None:
    assert normalise_base_name(name) == expected


@pytest.mark.parametrize("sibling", ["Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-14B-Instruct", "a/qwen"])
def test_siblings_keep_their_own_names(sibling: str) -> None:
    assert normalise_base_name(sibling) != normalise_base_name("Qwen/Qwen2.5-7B-Instruct")
