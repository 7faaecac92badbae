"""Legacy pickled checkpoints (.bin, .pt), through torch's restricted unpickler.

`weights_only=True` refuses every global that is not needed for tensors, so nothing in the
file runs. torch is an optional dependency: importing it takes longer than most scans.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from scanner.errors import (
    LimitExceededError,
    MalformedFileError,
    MissingExtraError,
    first_line,
)
from scanner.formats.limits import MAX_EXPANSION, MAX_PICKLE_BYTES, MAX_TENSORS
from scanner.formats.stores.archive import ZIP_MAGIC, open_archive
from scanner.formats.stores.header import refuse_lfs_pointer
from scanner.formats.stores.memory import TensorsInMemory
from scanner.formats.stores.opened import OpenedFile

_MAX_SHARING = 2
"""Bytes of a tensor over bytes of its file."""
_WRAPPERS = ("state_dict", "adapter", "model")
"""Keys under which trainers keep the state dict in a larger checkpoint."""

_GLOBAL = re.compile(r"\bGLOBAL ([\w.]{1,80})")
_INNER = re.compile(r"WeightsUnpickler error:\s*(\S[^\n]*)")


def _refuse_bombs(file: BinaryIO, size: int, where: str) -> None:
    """Refuses an archive that is far larger inside than outside, before torch unpacks it."""
    file.seek(0)
    if file.read(4) != ZIP_MAGIC:  # as torch decides
        return
    with open_archive(file, where) as archive:
        members = archive.infolist()
    inside = sum(member.file_size for member in members)
    if len(members) > 2 * MAX_TENSORS or inside > MAX_EXPANSION * size:
        raise LimitExceededError(
            f"{len(members):,} members of {inside:,} bytes in a file of {size:,}",
            where=where,
            todo="do not load this file",
        )


def _why_refused(error: Exception) -> str:
    """One line of what torch said, without its advice to load the file all the same."""
    text = str(error)
    if wanted := _GLOBAL.search(text):
        return f"it asks for {wanted[1]}, which no tensor needs"
    inner = _INNER.search(text)
    return f"{type(error).__name__}: {inner[1][:300] if inner else first_line(error)}"


def _load_state_dict(file: BinaryIO, where: str) -> dict[str, Any]:
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            "a pickled checkpoint, and torch is not installed",
            where=where,
            todo="pip install 'adapter-scanner[torch]', or convert the file to safetensors",
        ) from None
    # What torch has to say of a stranger's pickle protocol is its developers' business. A filter
    # is set for good, since taking it back would race with other threads.
    warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here, zipfile's and struct's among them
        raise MalformedFileError(
            f"torch refuses the pickle ({_why_refused(error)})",
            where=where,
            todo="ask for a safetensors file; do not load this one",
        ) from None
    if not isinstance(loaded, dict):
        raise MalformedFileError(
            f"a state dict was expected, found {type(loaded).__name__}", where=where
        )
    return loaded


def _nested(state: dict[str, Any]) -> dict[str, Any]:
    """The state dict inside a checkpoint that holds nothing else."""
    if len(state) == 1:
        ((key, value),) = state.items()
        if key in _WRAPPERS and isinstance(value, dict):
            return value
    return state


def _check(name: object, value: Any, size: int, where: str) -> None:
    """Refuses entries that are no tensors, or claim more numbers than the file holds."""
    if not isinstance(name, str) or not hasattr(value, "dtype"):
        raise MalformedFileError(
            f"entry {str(name)[:200]!r} is {type(value).__name__}, not a named tensor",
            where=where,
        )
    # Strides of zero make one number look like any number of them.
    if value.numel() * value.element_size() > _MAX_SHARING * size:
        raise LimitExceededError(
            f"tensor {name[:200]!r} claims {value.numel():,} numbers, the file has {size:,} bytes",
            where=where,
        )


class PickledFile(TensorsInMemory):
    """A `TensorStore` over one pickled state dict, held in memory.

    Args:
        path: The file.
        where: What to call it in errors; its path if not given.

    Raises:
        LfsPointerError, LimitExceededError, MalformedFileError, UnreadableFileError: As
            `SafetensorsFile`.
        MissingExtraError: If torch is not installed.
    """

    def __init__(self, path: Path, where: str | None = None) -> None:
        where = where or str(path)
        self._file = OpenedFile(
            path, where, limit=MAX_PICKLE_BYTES, todo="convert it to safetensors"
        )
        try:
            super().__init__(self._state(where), where)
            self._file.refuse_changed()
        except BaseException:
            self._file.close()
            raise

    def _state(self, where: str) -> dict[str, Any]:
        """The tensors by name, once nothing speaks against loading them."""
        file, size = self._file.file, self._file.size
        refuse_lfs_pointer(file.read(1024), where)
        _refuse_bombs(file, size, where)
        file.seek(0)
        state = _nested(_load_state_dict(file, where))
        if len(state) > MAX_TENSORS:
            raise LimitExceededError(f"{len(state):,} tensors (limit {MAX_TENSORS:,})", where=where)
        for name, value in state.items():
            _check(name, value, size, where)
        return state

    def sha256(self) -> str:
        """Hex digest of the whole file.

        Raises:
            MalformedFileError: If it changed since it was opened.
        """
        return self._file.sha256()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
