"""Which files of a directory make an adapter, judged by their names alone.

Kept apart from any file system so that a directory on this machine and a folder of a
repository on a hub are judged by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scanner.errors import MalformedFileError
from scanner.formats.peft_config import CONFIG_NAME
from scanner.formats.stores.sniff import INDEX_SUFFIX

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz", ".nemo")
ADAPTER_STEMS = ("adapter_model", "adapters", "pytorch_lora_weights")
"""File stems trainers give an adapter's weights, in order of preference."""

TRAINER_STATE = frozenset(
    {
        "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "training_args.bin",
        "rng_state.pth", "trainer_state.pt",
    }
)  # fmt: skip
"""What trainers leave beside an adapter; nothing loads it together with the weights."""

SKIPPED_FOLDERS = (".git", ".cache")


@dataclass(frozen=True)
class Choice:
    """The names that make one adapter."""

    weights: str | None
    """The weight file or the index of its shards; None if only a config is there."""
    config: str | None
    others: tuple[str, ...] = ()
    """Weight files that are not part of this adapter."""
    lone_shard: str | None = None
    """A shard without the index that names them all: nothing can be read then."""


def is_adapter_file(name: str) -> bool:
    """Whether a file of this name can be part of an adapter."""
    return name.endswith((*WEIGHT_SUFFIXES, INDEX_SUFFIX, CONFIG_NAME))


def choose(names: Iterable[str]) -> Choice | None:
    """The adapter that the files of one directory make; None if they make none."""
    known = sorted(name for name in names if is_adapter_file(name))
    config = CONFIG_NAME if CONFIG_NAME in known else None
    weights = [name for name in known if name != CONFIG_NAME and name not in TRAINER_STATE]
    if any(name.endswith(INDEX_SUFFIX) for name in weights):
        weights = [name for name in weights if not is_shard(name)]
    elif shard := next((name for name in weights if is_shard(name)), None):
        return Choice(None, config, lone_shard=shard)
    weights.sort(key=_preference)
    if not weights:
        return Choice(None, config) if config else None
    return Choice(weights[0], config, tuple(weights[1:]))


def is_shard(name: str) -> bool:
    """Whether a file is one of several that an index names."""
    stem, _, rest = name.partition("-of-")
    return bool(rest) and stem[-5:].isdigit() and name.endswith(".safetensors")


def lone_shard(where: str) -> MalformedFileError:
    """The error of a shard without its index."""
    return MalformedFileError(
        "one shard of several, without the index that names them all",
        where=where,
        todo="fetch the other shards and the index",
    )


def _preference(name: str) -> tuple[int, int, str]:
    stem = name.split(".", 1)[0]
    by_stem = ADAPTER_STEMS.index(stem) if stem in ADAPTER_STEMS else len(ADAPTER_STEMS)
    by_suffix = 0 if name.endswith((".safetensors", INDEX_SUFFIX)) else 1
    return (by_suffix, by_stem, name)
