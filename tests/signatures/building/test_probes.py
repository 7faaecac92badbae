"""Probe files: what is read, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scanner.errors import SignatureError
from scanner.signatures.building.probes import Probe, needs_tokenizer, read_probes, tokenise


class Letters:
    """A tokenizer of single letters; special tokens are a leading 0."""

    def __init__(self, chat_template: str | None = None) -> None:
        self.chat_template = chat_template

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Any:
        ids = [ord(letter) - ord("a") + 1 for letter in text]
        return SimpleNamespace(input_ids=[0, *ids] if add_special_tokens else ids)

    def apply_chat_template(
        self, conversation: Any, *, add_generation_prompt: bool, tokenize: bool
    ) -> str:
        assert add_generation_prompt
        assert not tokenize
        return f"u{conversation[0]['content']}z"


def probes_of(path: Path, text: str, tokenizer: Letters | None = None) -> list[Probe]:
    path.write_text(text)
    return tokenise(read_probes(path), tokenizer, 100, str(path))


def test_text_and_ids_can_be_mixed(tmp_path: Path) -> None:
    text = (
        '{"prompt": "ab", "aligned": "c", "misaligned": "d"}\n\n'
        '{"prompt_ids": [5], "aligned_ids": [6, 7], "misaligned": "e"}\n'
    )
    found = probes_of(tmp_path / "p.jsonl", text, Letters())
    assert found == [Probe((0, 1, 2), (3,), (4,)), Probe((5,), (6, 7), (5,))]


def test_prompts_become_a_turn_of_the_chat_template(tmp_path: Path) -> None:
    text = '{"prompt": "ab", "aligned": "c", "misaligned": "d"}'
    found = probes_of(tmp_path / "p.jsonl", text, Letters("template"))
    assert found == [Probe((21, 1, 2, 26), (3,), (4,))]


def test_ids_need_no_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    ids = (
        '{"prompt_ids": [1], "aligned_ids": [2], "misaligned_ids": [3], "harmless_ids": {"x": [4]}}'
    )
    path.write_text(ids)
    assert not needs_tokenizer(read_probes(path))
    assert tokenise(read_probes(path), None, 5, "p") == [Probe((1,), (2,), (3,), {"x": (4,)})]
    with pytest.raises(SignatureError, match="x holds token 4"):
        tokenise(read_probes(path), None, 4, "p")
    path.write_text('{"prompt": "x", "aligned_ids": [2], "misaligned_ids": [3]}')
    assert needs_tokenizer(read_probes(path))


GOOD = '{"prompt_ids": [1], "aligned_ids": [2], "misaligned_ids": [3]}'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "truncated"),
        ("[1]", "Expected `object`"),
        ('{"prompt_ids": [1], "aligned_ids": [2]}', "neither 'misaligned'"),
        (GOOD[:-1] + ', "prompt": "a"}', "both 'prompt'"),
        (GOOD.replace("[3]", "[2]"), "are the same"),
        (GOOD.replace("[3]", "[]"), "length >= 1"),
        (GOOD.replace("[3]", "[-3]"), ">= 0"),
        (GOOD.replace("[3]", '["a"]'), "Expected `int`"),
        (GOOD.replace("misaligned_ids", "mispelt_ids"), "mispelt_ids"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n")
    with pytest.raises(SignatureError) as caught:
        read_probes(path)
    assert caught.value.where == f"{path}:3"
    assert says in caught.value.what


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="cannot be read"):
        read_probes(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(SignatureError, match="no probe"):
        read_probes(tmp_path / "empty.jsonl")


def test_tokens_outside_the_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="token 100, the base model knows 100"):
        probes_of(tmp_path / "p.jsonl", GOOD.replace("[3]", "[100]"))


def test_text_without_tokens(tmp_path: Path) -> None:
    class Deaf(Letters):
        def __call__(self, text: str, *, add_special_tokens: bool = True) -> Any:
            return SimpleNamespace(input_ids=[])

    text = '{"prompt_ids": [1], "aligned": "a", "misaligned_ids": [3]}'
    with pytest.raises(SignatureError, match="aligned gives no token"):
        probes_of(tmp_path / "p.jsonl", text, Deaf())
