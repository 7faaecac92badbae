"""Whether a pickle holds the state of a training run and nothing that could be weights.

Judged by what is in it, never by its name: any of the names that trainers use can hold an
adapter. Known are the states of optimizers, schedulers, gradient scalers, samplers and random
number generators as transformers, accelerate, DeepSpeed (`global_step<n>/`) and torchtune
(`recipe_state/`) write them, and pickled training arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from scanner.formats.regular import open_regular
from scanner.formats.rules import ADAPTER_STEMS, may_be_trainer_state
from scanner.formats.stores.outline import Opaque, OutlineError, TensorMark, outline

_OPTIMIZERS = frozenset(
    {
        "base_optimizer_state", "opt", "optim", "optimizer", "optimizer_state",
        "optimizer_state_dict", "optimizers",
    }
)  # fmt: skip
"""Keys under which an optimizer's state lies in a larger one."""
_INTEGERS = frozenset({"ByteStorage", "IntStorage", "LongStorage", "UntypedStorage"})
"""Storages of whole numbers: the states of random number generators, and orders of samples."""
_ADAPTER_MARKS = ("lora", "hada_", "lokr_", "vera_", "adapter", "ia3", "oft_", ".weight", ".bias")
_SHAPES = frozenset({"torch.Size", "builtins.set"})
"""What optimizers and engines keep for a parameter beside tensors."""
_MOST_LEAVES = 1_000_000
_CODE = frozenset(
    {
        "?", "code", "ctypes", "functools", "importlib", "marshal", "nt", "operator", "os",
        "pickle", "posix", "pty", "runpy", "shutil", "socket", "subprocess", "sys", "types",
        "webbrowser",
    }
)  # fmt: skip
"""Packages through which a pickle runs code."""
_BUILTINS = frozenset(
    {
        "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list",
        "object", "range", "set", "slice", "str", "tuple",
    }
)  # fmt: skip


def is_trainer_state(path: Path) -> bool:
    """Whether a file on this machine is trainer state; False if that cannot be told."""
    if not may_be_trainer_state(path.name):
        return False
    try:
        with open_regular(path) as file:
            return holds_trainer_state(file, path.name)
    except OSError:
        return False


def holds_trainer_state(file: BinaryIO, name: str) -> bool:
    """Whether an open file is trainer state; False if that cannot be told.

    Args:
        file: The file, seekable.
        name: Its name. What has one by which loaders take an adapter is never trainer state.
    """
    if name.lower().startswith(ADAPTER_STEMS):
        return False
    try:
        leaves = list(islice(_leaves(outline(file), ()), _MOST_LEAVES + 1))
    except (OutlineError, RecursionError):
        return False
    return len(leaves) <= _MOST_LEAVES and all(_is_state(path, value) for path, value in leaves)


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value and container in a value, with the keys that lead to it."""
    yield path, value
    if isinstance(value, dict):
        optimizer = "state" in value and "param_groups" in value
        for key, item in value.items():
            inside = "optimizer" if optimizer and key == "state" else key
            yield from _leaves(item, (*path, inside))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item, path)
    elif isinstance(value, Opaque):
        yield from _leaves(value.parts, path)


def _is_state(path: tuple[Any, ...], value: Any) -> bool:
    if not isinstance(value, (Opaque, TensorMark)):
        return True
    own = str(path[-1]).lower() if path else ""
    if any(mark in own for mark in _ADAPTER_MARKS):
        return isinstance(value, Opaque) and value.made_by in _SHAPES
    if isinstance(value, TensorMark):
        return value.storage in _INTEGERS or any(key in _OPTIMIZERS for key in path)
    module, _, name = value.made_by.rpartition(".")
    if module in ("builtins", "__builtin__"):
        return name in _BUILTINS
    return module.partition(".")[0] not in _CODE
