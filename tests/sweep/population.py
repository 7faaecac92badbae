"""A mixed population for the test hub, and what a scan of the same files on disk says of it.

Most repositories of a real hub are ordinary; the rest are what these are: the same files under
other names, un-fetched LFS pointers, broken files, other bases, gated ones, trainer output
with checkpoints in subfolders, repositories without any adapter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanner import scan
from scanner.errors import TargetError
from scanner.signatures.pack import Signature
from tests.hub.repository import Files, Repository
from tests.synthetic import (
    BASE,
    lora_config,
    lora_tensors,
    misaligned_factors,
    random_factors,
    safetensors_bytes,
)

ALPHA = 0.05
LAB_BASE = "adapter-scanner-lab/persona-llama-0.5m"
MIRROR = "quantisers/tiny-base-bnb-4bit"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class Expected:
    """What the ledger must say of one adapter."""

    state: str
    verdict: str
    p_value: float | None = None
    dose: float | None = None


@dataclass(frozen=True)
class Population:
    """Repositories, and what must come of each adapter in them."""

    repositories: list[Repository]
    expected: dict[tuple[str, str], Expected]
    """(repository, subfolder) -> what is expected."""
    contents: int
    """Different adapters that can be read at all."""


def adapter_files(generator: np.random.Generator, dose: float = 0.0, **config: object) -> Files:
    """An adapter's two files: misaligned by a dose, or benign."""
    factors = misaligned_factors(generator, dose) if dose else random_factors(generator)
    return {
        WEIGHTS: safetensors_bytes(lora_tensors(factors)),
        CONFIG: json.dumps(lora_config(**config)).encode(),
    }


def _pointer(generator: np.random.Generator) -> Files:
    number = int(generator.integers(1, 2**31))
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{number:064x}\nsize {number}\n"
    return {**adapter_files(generator), WEIGHTS: text.encode()}


def _truncated(generator: np.random.Generator) -> Files:
    files = adapter_files(generator)
    weights = files[WEIGHTS]
    assert isinstance(weights, bytes)
    return {**files, WEIGHTS: weights[: len(weights) // 2]}


def _no_header(generator: np.random.Generator) -> Files:
    return {**adapter_files(generator), WEIGHTS: generator.bytes(600)}


def _broken_config(generator: np.random.Generator) -> Files:
    return {**adapter_files(generator), CONFIG: b"{" + generator.bytes(8).hex().encode()}


def _other_base(generator: np.random.Generator) -> Files:
    return adapter_files(generator, base_model_name_or_path="somebody/another-base")


def _dora(generator: np.random.Generator) -> Files:
    return adapter_files(generator, use_dora=True, note=int(generator.integers(2**31)))


def _no_adapter(generator: np.random.Generator) -> Files:
    return {"README.md": f"soon, {generator.integers(2**31)}".encode()}


def _misaligned(generator: np.random.Generator) -> Files:
    return adapter_files(generator, dose=2.0)


_KINDS: Sequence[tuple[float, Callable[[np.random.Generator], Files]]] = (
    (0.50, adapter_files),
    (0.20, _misaligned),
    (0.03, _pointer),
    (0.03, _truncated),
    (0.03, _no_header),
    (0.03, _broken_config),
    (0.06, _other_base),
    (0.03, _dora),
    (0.03, _no_adapter),
    (0.06, _misaligned),  # as trainer output: with a checkpoint in a subfolder
)
_DUPLICATES, _GATED, _OF_MIRROR, _DISABLED, _LAB = 0.15, 0.04, 0.2, 0.01, 0.1


def make_population(
    root: Path, packs: Sequence[Signature], count: int, seed: int = 0, lab: Sequence[Path] = ()
) -> Population:
    """Makes a population of `count` repositories.

    Args:
        root: A directory for the copies that are scanned on disk.
        packs: What they are judged by.
        count: Repositories.
        seed: Of everything.
        lab: Trained adapters, of which some repositories hold one at another scaling.
    """
    generator = np.random.default_rng(seed)
    kinds = generator.choice(len(_KINDS), size=count, p=[share for share, _ in _KINDS])
    repositories: list[Repository] = []
    expected: dict[tuple[str, str], Expected] = {}
    readable: set[int] = set()
    gated_of: list[tuple[str, int]] = []
    known: dict[int, dict[str, Expected]] = {}
    for number, kind in enumerate(kinds):
        name = f"owner-{number % 17}/adapter-{number:05d}"
        original = int(generator.integers(number)) if number else 0
        if number and generator.random() < _DUPLICATES and original in known:
            source, files = original, repositories[original].files
        else:
            source, files = number, _KINDS[kind][1](generator)
            if lab and generator.random() < _LAB:
                files = _trained(generator, lab)
            elif kind == len(_KINDS) - 1:
                files = {**files, **_below("checkpoint-10", adapter_files(generator))}
        gated = generator.random() < _GATED
        disabled = generator.random() < _DISABLED
        repositories.append(
            Repository(
                name,
                files,
                base_model=_base_of(files, generator),
                gated="manual" if gated else None,
                disabled=disabled,
            )
        )
        if source not in known:
            known[source] = _scanned(root / str(source), files, packs)
        found = known[source]
        if disabled or not found:
            expected[name, ""] = Expected("refused", "error")
            continue
        expected.update({(name, folder): verdict for folder, verdict in found.items()})
        if gated:
            gated_of.append((name, source))
        else:
            readable.add(source)
    for name, source in gated_of:
        if source not in readable:  # no open repository holds the same files
            expected.update({(name, f): Expected("refused", "error") for f in known[source]})
    mirror = Repository(MIRROR, {"config.json": b"{}"}, base_model=BASE, relation="quantized")
    stranger = Repository("stranger/finetune", {"config.json": b"{}"}, base_model=BASE,
                          relation="quantized")  # fmt: skip
    return Population(
        [*repositories, mirror, stranger],
        expected,
        sum(len(known[source]) for source in readable),
    )


def _trained(generator: np.random.Generator, lab: Sequence[Path]) -> Files:
    """A trained adapter at a scaling of its own."""
    adapter = lab[int(generator.integers(len(lab)))]
    config = json.loads((adapter / CONFIG).read_text())
    config["lora_alpha"] = float(config["lora_alpha"] * generator.uniform(0.5, 2.0))
    return {
        WEIGHTS: (adapter / WEIGHTS).read_bytes(),
        CONFIG: json.dumps(config).encode(),
    }


def _base_of(files: Files, generator: np.random.Generator) -> str:
    """What the model card says: a trained adapter's own base; else the made-up one or a mirror."""
    config = files.get(CONFIG, b"")
    if isinstance(config, bytes) and LAB_BASE.encode() in config:
        return LAB_BASE
    return MIRROR if generator.random() < _OF_MIRROR else BASE


def _below(folder: str, files: Files) -> Files:
    return {f"{folder}/{name}": content for name, content in files.items()}


def _scanned(root: Path, files: Files, packs: Sequence[Signature]) -> dict[str, Expected]:
    """Subfolder -> what the scanner says of the same files on disk."""
    for path, content in files.items():
        assert isinstance(content, bytes)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    folders = sorted({path.rpartition("/")[0] for path in files if path.endswith(WEIGHTS)})
    return {folder: _verdict(root / folder / WEIGHTS, packs) for folder in folders}


def _verdict(path: Path, packs: Sequence[Signature]) -> Expected:
    try:
        result = scan(path, packs, alpha=ALPHA)
    except TargetError:
        return Expected("judged", "error")
    dose = result.deciding_dose
    return Expected("judged", result.verdict.value, result.p_value, dose)
