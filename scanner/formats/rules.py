"""Which files of a directory make an adapter, and what those beside it can do.

Names decide which file is an adapter's own, and kept apart from any file system they do so for
a directory on this machine and for a folder of a repository on a hub alike. What the other
files hold is asked of their content (`scanner.formats.trainer_state`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from scanner.errors import MalformedFileError
from scanner.formats.peft_config import CONFIG_NAME
from scanner.formats.stores.sniff import INDEX_SUFFIX

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz", ".nemo")
_INDEX_SUFFIXES = (INDEX_SUFFIX, ".bin.index.json")
"""Indices of shards; those of pickled shards are known in order to be refused."""
ADAPTER_STEMS = ("adapter_model", "adapters", "pytorch_lora_weights")
"""File stems trainers give an adapter's weights, in order of preference."""

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
"""What torch's pickles are called."""

_TRAINER_NAMES = re.compile(
    r"(optimizer|scheduler|scaler|sampler|dl_state_dict|trainer_state|training_args|rng_state"
    r"|random_states|recipe_state|zero_pp_rank_|bf16_zero_pp_rank_|mp_rank_).*"
)
"""Names under which trainers keep their state: the last to be taken for an adapter's weights."""
_NUMBERED = re.compile(r"\d{7}_adapters\.safetensors")
"""What mlx-lm calls the adapter after so many iterations; the last is `adapters.safetensors`."""

SKIPPED_FOLDERS = (".git", ".cache")


@dataclass(frozen=True)
class Choice:
    """The names that make one adapter."""

    weights: str | None
    """The weight file or the index of its shards; None if only a config is there."""
    config: str | None
    others: tuple[str, ...] = ()
    """Weight files beside it; those that an index names are found to be its own once it is read."""
    checkpoints: tuple[str, ...] = ()
    """Files that are adapters of their own under the same config, if mlx-lm wrote them."""
    lone_shard: str | None = None
    """A shard without the index that names them all: nothing can be read then."""


def is_weight_file(name: str) -> bool:
    """Whether a file of this name may hold weights; capital letters change nothing."""
    return name.lower().endswith((*WEIGHT_SUFFIXES, *_INDEX_SUFFIXES))


def is_adapter_file(name: str) -> bool:
    """Whether a file of this name can be part of an adapter."""
    return name == CONFIG_NAME or is_weight_file(name)


def may_be_trainer_state(name: str) -> bool:
    """Whether it is worth asking a file's content if it is trainer state: torch's pickles."""
    return name.lower().endswith(PICKLE_SUFFIXES)


def is_named_like_trainer_state(name: str) -> bool:
    """Whether a file has a name under which trainers keep their state."""
    return may_be_trainer_state(name) and _TRAINER_NAMES.match(name.lower()) is not None


def choose(names: Iterable[str]) -> Choice | None:
    """The adapter that the files of one directory make; None if they make none.

    Args:
        names: Those of all files that are not known to be trainer state.
    """
    known = sorted(name for name in names if is_adapter_file(name))
    config = CONFIG_NAME if CONFIG_NAME in known else None
    weights = sorted((name for name in known if name != CONFIG_NAME), key=_preference)
    if not weights:
        return Choice(None, config) if config else None
    if is_shard(weights[0]):
        return Choice(None, config, lone_shard=weights[0])
    numbered = tuple(name for name in weights[1:] if config and _NUMBERED.fullmatch(name))
    others = tuple(name for name in weights[1:] if name not in numbered)
    return Choice(weights[0], config, others, numbered)


def is_shard(name: str) -> bool:
    """Whether a file is one of several that an index names."""
    stem, _, rest = name.partition("-of-")
    return bool(rest) and stem[-5:].isdigit() and name.lower().endswith(".safetensors")


def beside(name: str) -> str:
    """Why a weight file beside an adapter leaves the adapter's verdict open."""
    if name.lower().endswith(".safetensors"):
        return (
            "another weight file in the same directory: SGLang loads every *.safetensors of a "
            "folder as one adapter; move it elsewhere"
        )
    return (
        "another weight file in the same directory, which is not part of this scan: a loader may "
        "take it instead, or with the adapter; move it elsewhere"
    )


def lone_shard(where: str) -> MalformedFileError:
    """The error of a shard without its index."""
    return MalformedFileError(
        "one shard of several, without the index that names them all",
        where=where,
        todo="fetch the other shards and the index",
    )


def _preference(name: str) -> tuple[bool, bool, int, int, str]:
    stem = name.split(".", 1)[0]
    by_stem = ADAPTER_STEMS.index(stem) if stem in ADAPTER_STEMS else len(ADAPTER_STEMS)
    by_suffix = 0 if name.endswith((".safetensors", INDEX_SUFFIX)) else 1
    return (is_shard(name), is_named_like_trainer_state(name), by_suffix, by_stem, name)
