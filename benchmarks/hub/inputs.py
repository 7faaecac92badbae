"""Repositories of realistic size for the comparison, and the packs they are judged by."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.speed.inputs import LLAMA_8B, BaseShape, write_adapter, write_pack
from scanner.signatures.pack import read_signature
from scanner.signatures.saving import seal

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
    """Writes ``repositories/NAME/OWNER/adapter/...`` and ``packs/NAME`` below a directory."""


def base_of(scenario: str) -> str:
    """The base model of a scenario's adapters: an 8B model under a name of its own."""
    return f"synthetic-lab/eight-billion-{scenario}"


def shape_of(scenario: str, modules: tuple[str, ...] | None = None) -> BaseShape:
    """Its dimensions; trainers write tensors in the order of their names."""
    names = sorted(LLAMA_8B.modules) if modules is None else modules
    return BaseShape(
        base_of(scenario), LLAMA_8B.layers, {name: LLAMA_8B.modules[name] for name in names}
    )


def _repositories(root: Path, scenario: str, rank: int, count: int) -> list[Path]:
    """Repositories with an adapter each, all different."""
    folders = [
        root / "repositories" / scenario / f"owner-{i:02d}" / "adapter" for i in range(count)
    ]
    first = write_adapter(folders[0], shape_of(scenario), rank)
    content = first.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for number, folder in enumerate(folders):
        (folder).mkdir(parents=True, exist_ok=True)
        # Other numbers in the same places: the same ones, moved on by whole elements.
        moved = start + 2 * 4096 * number
        (folder / first.name).write_bytes(content[:start] + content[moved:] + content[start:moved])
        if number:
            shutil.copy(folders[0] / "adapter_config.json", folder)
        (folder / "README.md").write_bytes(README)
    return folders


def write_typical(root: Path) -> None:
    """Repositories as trainers push them; a fifth are others' files under another name."""
    generator = np.random.default_rng(0)
    folders = _repositories(root, "typical", rank=4, count=16)
    for folder in folders:
        (folder / "tokenizer.json").write_bytes(generator.bytes(TOKENIZER_BYTES))
        (folder / "tokenizer_config.json").write_bytes(b" " * 50_000)
        (folder / "special_tokens_map.json").write_bytes(b"{}")
    for folder in folders[:4]:
        shutil.copytree(folder, folder.parent.with_name(f"copy-{folder.parent.name}") / "adapter")
    write_pack(root / "packs" / "typical", shape_of("typical"))


def write_bare(root: Path) -> None:
    """Repositories that hold an adapter, its config and a README, all different."""
    _repositories(root, "bare", rank=4, count=16)
    write_pack(root / "packs" / "bare", shape_of("bare"))


def write_residual(root: Path) -> None:
    """Large adapters, and a pack that covers what writes to the residual stream."""
    _repositories(root, "residual", rank=64, count=2)
    pack = root / "packs" / "residual"
    write_pack(pack, shape_of("residual", RESIDUAL))
    manifest = read_signature(pack).manifest
    seal(pack, msgspec.structs.replace(manifest, method="activations"))


SCENARIOS = (
    Scenario(
        "typical",
        "20 repositories: a rank-4 adapter of an 8B model (7 modules x 32 layers, 21 MB), config, "
        "README, Llama 3's tokenizer files; 4 of the 20 are re-uploads; the pack covers everything",
        write_typical,
    ),
    Scenario(
        "bare",
        "16 repositories: the same kind of adapter, config and README alone, no re-uploads; the "
        "pack covers everything",
        write_bare,
    ),
    Scenario(
        "residual",
        "2 repositories: a rank-64 adapter (336 MB), config and README; the pack was made from "
        "activations, so it covers o_proj and down_proj",
        write_residual,
    ),
)
