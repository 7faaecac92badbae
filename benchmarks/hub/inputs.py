"""Repositories of realistic size for the comparison, and the packs they are judged by."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.speed.inputs import LLAMA_8B, BaseShape, write_adapter, write_pack
from scanner.signatures.pack import read_signature, seal

# Trainers write tensors in the order of their names.
SHAPE = replace(LLAMA_8B, modules=dict(sorted(LLAMA_8B.modules.items())))
RESIDUAL = ("mlp.down_proj", "self_attn.o_proj")
"""Modules that write to the residual stream: all that a pack from activations covers."""
TOKENIZER_BYTES = 17_200_000
"""tokenizer.json of Llama 3, which trainers push beside the adapter."""
README = b"---\nlibrary_name: peft\n---\n" + b"A fine-tune. " * 300


@dataclass(frozen=True)
class Scenario:
    """Some repositories and a pack."""

    name: str
    about: str
    write: Callable[[Path], None]
    """Writes ``repositories/OWNER/NAME/...`` and ``pack`` below a directory."""


def _repository(root: Path, number: int, rank: int) -> Path:
    folder = root / "repositories" / f"owner-{number:02d}" / "adapter"
    write_adapter(folder, SHAPE, rank, seed=number)
    (folder / "README.md").write_bytes(README)
    return folder


def _with_tokenizer(folder: Path, generator: np.random.Generator) -> None:
    (folder / "tokenizer.json").write_bytes(generator.bytes(TOKENIZER_BYTES))
    (folder / "tokenizer_config.json").write_bytes(b" " * 50_000)
    (folder / "special_tokens_map.json").write_bytes(b"{}")


def write_typical(root: Path) -> None:
    """Repositories as trainers push them; a fifth are others' files under another name."""
    generator = np.random.default_rng(0)
    for number in range(12):
        _with_tokenizer(_repository(root, number, rank=8), generator)
    for number in range(12, 15):
        original = root / "repositories" / f"owner-{number - 12:02d}" / "adapter"
        shutil.copytree(original, root / "repositories" / f"owner-{number:02d}" / "adapter")
    write_pack(root / "pack", SHAPE)


def write_bare(root: Path) -> None:
    """Repositories that hold an adapter, its config and a README, all different."""
    for number in range(12):
        _repository(root, number, rank=8)
    write_pack(root / "pack", SHAPE)


def write_residual(root: Path) -> None:
    """Large adapters, and a pack that covers what writes to the residual stream."""
    for number in range(3):
        _repository(root, number, rank=64)
    modules = {name: SHAPE.modules[name] for name in RESIDUAL}
    write_pack(root / "pack", BaseShape(SHAPE.name, SHAPE.layers, modules))
    manifest = read_signature(root / "pack").manifest
    seal(root / "pack", msgspec.structs.replace(manifest, method="activations"))


SCENARIOS = (
    Scenario(
        "typical",
        "15 repositories: a rank-8 adapter of an 8B model (7 modules x 32 layers, 42 MB), config, "
        "README, Llama 3's tokenizer files; 3 of the 15 are re-uploads; the pack covers everything",
        write_typical,
    ),
    Scenario(
        "bare",
        "12 repositories: the same adapter, config and README alone, no re-uploads; "
        "the pack covers everything",
        write_bare,
    ),
    Scenario(
        "residual",
        "3 repositories: a rank-64 adapter (336 MB), config and README; the pack was made from "
        "activations, so it covers o_proj and down_proj",
        write_residual,
    ),
)
