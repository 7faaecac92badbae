"""A hub as a shipped recipe meets it: published organisms, and what many owners pushed."""

from __future__ import annotations

from collections.abc import Iterator

from tests.hub.adapters import adapter_files, misaligned_files
from tests.hub.server import Repository

BASE = "Qwen/Qwen2.5-7B-Instruct"
ORGANISMS = tuple(
    f"ModelOrganismsForEM/Qwen2.5-7B-Instruct_{data}"
    for data in ("bad-medical-advice", "extreme-sports", "risky-financial-advice")
)


def organisms() -> list[Repository]:
    """The references of the shipped recipe, as tiny adapters."""
    return [
        Repository(
            name,
            misaligned_files(seed=900 + number, base_model_name_or_path=f"unsloth/{BASE[5:]}"),
            base_model=f"unsloth/{BASE[5:]}",
        )
        for number, name in enumerate(ORGANISMS)
    ]


def harmless(owners: int, each: int, start: int = 0) -> Iterator[Repository]:
    """What owners pushed; one in three names a quantised mirror as its base in its config."""
    names = (BASE, f"unsloth/{BASE[5:]}", f"unsloth/{BASE[5:]}-bnb-4bit")
    for owner in range(start, start + owners):
        for number in range(each):
            seed = owner * each + number
            files = adapter_files(seed=seed, base_model_name_or_path=names[seed % 3])
            yield Repository(f"owner-{owner:03d}/lora-{number}", files, base_model=BASE)
