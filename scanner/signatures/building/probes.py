"""Probes: questions with an aligned and a misaligned answer, one JSON object per line.

Each of the three parts is given as text (``prompt``, ``aligned``, ``misaligned``) or as token
ids of the base model (``prompt_ids``, ``aligned_ids``, ``misaligned_ids``). Text prompts become
one user turn in the tokenizer's chat template, or stand as they are if it has none; answers
are tokenised without special tokens. A line may add ``harmless``: further answers that are right
and kind in another voice or form, as text by family (see `building.harmless`), or ``harmless_ids``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec

from scanner.errors import SignatureError
from scanner.formats.limits import MAX_DOCUMENT_BYTES
from scanner.formats.regular import read_regular
from scanner.signatures.manifest import Record

ALIGNED = "aligned"
_PARTS = ("prompt", ALIGNED, "misaligned")
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Ids = Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1)]


class ProbeLine(Record, frozen=True, kw_only=True):
    """One line as written."""

    prompt: _Text | None = None
    prompt_ids: _Ids | None = None
    aligned: _Text | None = None
    aligned_ids: _Ids | None = None
    misaligned: _Text | None = None
    misaligned_ids: _Ids | None = None
    harmless: dict[_Text, _Text] = {}
    harmless_ids: dict[_Text, _Ids] = {}


@dataclass(frozen=True)
class Probe:
    """One question and its answers, as token ids of the base model."""

    prompt: tuple[int, ...]
    aligned: tuple[int, ...]
    misaligned: tuple[int, ...]
    harmless: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Further harmless answers, by family."""


class Tokenizer(Protocol):
    """What is needed of a Hugging Face tokenizer."""

    chat_template: Any

    def __call__(self, text: str, *, add_special_tokens: bool = ...) -> Any:
        """Tokenises a text; the result has ``input_ids``."""

    def apply_chat_template(
        self, conversation: Any, *, add_generation_prompt: bool, tokenize: bool
    ) -> Any:
        """Writes a conversation as the text the model was trained on."""


def read_probes(path: str | Path) -> list[ProbeLine]:
    """Reads and checks a probe file; blank lines are skipped.

    Returns:
        The lines, in order.

    Raises:
        SignatureError: With the file and the line at fault.
    """
    try:
        raw = read_regular(Path(path), MAX_DOCUMENT_BYTES)
    except OSError as error:
        raise SignatureError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            todo='give "probes" a JSONL file of prompt, aligned and misaligned',
        ) from None
    lines = [
        _parse(line, f"{path}:{number}")
        for number, line in enumerate(raw.splitlines(), start=1)
        if line.strip()
    ]
    if not lines:
        raise SignatureError("holds no probe", where=str(path))
    return lines


def _parse(line: bytes, where: str) -> ProbeLine:
    try:
        probe = msgspec.json.decode(line, type=ProbeLine)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise SignatureError(str(error), where=where) from None
    for part in _PARTS:
        given = [name for name in (part, f"{part}_ids") if getattr(probe, name) is not None]
        if len(given) != 1:
            fault = "has both" if given else "has neither"
            raise SignatureError(f"{fault} {part!r} and '{part}_ids'", where=where)
    harmless = [*probe.harmless, *probe.harmless_ids]
    if reserved := [part for part in _PARTS if part in harmless]:
        raise SignatureError(f"{reserved[0]!r} is no name for a harmless family", where=where)
    if twice := sorted(probe.harmless.keys() & probe.harmless_ids.keys()):
        raise SignatureError(f"{twice[0]!r} is in 'harmless' and in 'harmless_ids'", where=where)
    if (probe.aligned, probe.aligned_ids) == (probe.misaligned, probe.misaligned_ids):
        raise SignatureError("the aligned and the misaligned answer are the same", where=where)
    return probe


def needs_tokenizer(lines: list[ProbeLine]) -> bool:
    """Whether any part is given as text."""
    return any(
        line.harmless or any(getattr(line, part) is not None for part in _PARTS) for line in lines
    )


def tokenise(
    lines: list[ProbeLine], tokenizer: Tokenizer | None, vocabulary: int, where: str
) -> list[Probe]:
    """Turns probe lines into token ids.

    Args:
        lines: From `read_probes`.
        tokenizer: The base model's; may be None if `needs_tokenizer` says so.
        vocabulary: Number of token ids the base model knows.
        where: The probe file, for errors.

    Raises:
        SignatureError: If a token id is outside the vocabulary, or a text gives no token.
    """
    probes = []
    for line in lines:
        probe = Probe(
            prompt=_ids(line.prompt_ids, line.prompt, tokenizer, as_prompt=True),
            aligned=_ids(line.aligned_ids, line.aligned, tokenizer),
            misaligned=_ids(line.misaligned_ids, line.misaligned, tokenizer),
            harmless={
                **{name: _ids(None, text, tokenizer) for name, text in line.harmless.items()},
                **{name: tuple(ids) for name, ids in line.harmless_ids.items()},
            },
        )
        label = line.prompt or f"prompt_ids {line.prompt_ids}"
        parts = {part: getattr(probe, part) for part in _PARTS} | dict(probe.harmless)
        for part, ids in parts.items():
            if not ids:
                raise SignatureError(f"{label[:60]!r}: {part} gives no token", where=where)
            if max(ids) >= vocabulary:
                raise SignatureError(
                    f"{label[:60]!r}: {part} holds token {max(ids)}, "
                    f"the base model knows {vocabulary}",
                    where=where,
                )
        probes.append(probe)
    return probes


def _ids(
    given: list[int] | None, text: str | None, tokenizer: Tokenizer | None, as_prompt: bool = False
) -> tuple[int, ...]:
    if given is not None:
        return tuple(given)
    assert tokenizer is not None, "text needs a tokenizer"
    assert text is not None, "checked when the line was read"
    if not as_prompt:
        return tuple(tokenizer(text, add_special_tokens=False).input_ids)
    if not tokenizer.chat_template:
        return tuple(tokenizer(text).input_ids)
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
    )
    return tuple(tokenizer(turn, add_special_tokens=False).input_ids)
