"""Legacy pickled checkpoints (.bin, .pt), through torch's restricted unpickler.

`weights_only=True` refuses every global that is not needed for tensors, so nothing in the
file runs. torch is an optional dependency: importing it takes longer than most scans.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner.adapters.dtypes import INTEGER
from scanner.adapters.limits import MAX_EXPANSION, MAX_PICKLE_BYTES, MAX_TENSORS
from scanner.adapters.model import FloatArray, IntegerArray, TensorInfo
from scanner.adapters.stores.header import refuse_lfs_pointer
from scanner.adapters.stores.local import sha256_of_file
from scanner.errors import (
    LimitExceededError,
    MalformedFileError,
    MissingExtraError,
    UnreadableFileError,
)

_MAX_SHARING = 2
"""Bytes of a tensor over bytes of its file."""
_WRAPPERS = ("state_dict", "adapter", "model")
"""Keys under which trainers keep the state dict in a larger checkpoint."""

_DTYPE_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    "uint8": "U8",
}


def _refuse_bombs(path: Path, where: str) -> None:
    """Refuses an archive that is far larger inside than outside, before torch unpacks it."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise MalformedFileError(f"not a sound archive: {error}", where=where) from None
    outside = max(path.stat().st_size, 1)
    inside = sum(member.file_size for member in members)
    if len(members) > 2 * MAX_TENSORS or inside > MAX_EXPANSION * outside:
        raise LimitExceededError(
            f"{len(members):,} members of {inside:,} bytes in a file of {outside:,}",
            where=where,
            todo="do not load this file",
        )


def _load_state_dict(path: Path, where: str) -> dict[str, Any]:
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            "a pickled checkpoint, and torch is not installed",
            where=where,
            todo="pip install 'adapter-scanner[torch]', or convert the file to safetensors",
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here, zipfile's and struct's among them
        first_line = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
        raise MalformedFileError(
            f"torch refuses the pickle ({type(error).__name__}: {first_line})",
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


class PickledFile:
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
        self._where = where or str(path)
        self._path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                refuse_lfs_pointer(file.read(1024), self._where)
        except OSError as error:
            raise UnreadableFileError(
                f"cannot be opened: {error.strerror or error}", where=self._where
            ) from None
        if size > MAX_PICKLE_BYTES:
            raise LimitExceededError(
                f"{size:,} bytes (limit for pickles {MAX_PICKLE_BYTES:,})",
                where=self._where,
                todo="convert it to safetensors",
            )
        _refuse_bombs(path, self._where)
        state = _nested(_load_state_dict(path, self._where))
        if len(state) > MAX_TENSORS:
            raise LimitExceededError(
                f"{len(state):,} tensors (limit {MAX_TENSORS:,})", where=self._where
            )
        for name, value in state.items():
            self._check(name, value, size)
        self._state = state

    def _check(self, name: object, value: Any, size: int) -> None:
        if not isinstance(name, str) or not hasattr(value, "dtype"):
            raise MalformedFileError(
                f"entry {str(name)[:200]!r} is {type(value).__name__}, not a named tensor",
                where=self._where,
            )
        # Strides of zero make one number look like any number of them.
        if value.numel() * value.element_size() > _MAX_SHARING * size:
            raise LimitExceededError(
                f"tensor {name[:200]!r} claims {value.numel():,} numbers, "
                f"the file has {size:,} bytes",
                where=self._where,
            )

    @property
    def metadata(self) -> Mapping[str, str]:
        """Pickles carry none."""
        return {}

    def names(self) -> Sequence[str]:
        """Tensor names in file order."""
        return list(self._state)

    def info(self, name: str) -> TensorInfo:
        """Name, dtype and shape of one tensor."""
        tensor = self._state[name]
        kind = str(tensor.dtype).removeprefix("torch.")
        return TensorInfo(
            name,
            _DTYPE_NAMES.get(kind, kind.upper()),
            tuple(tensor.shape),
            tensor.numel() * tensor.element_size(),
        )

    def read(self, name: str) -> FloatArray:
        """One tensor as float32.

        Raises:
            MalformedFileError: If its dtype does not hold floating-point numbers, or it is
                sparse or quantised.
        """
        tensor = self._state[name]
        if not tensor.is_floating_point() or tensor.is_sparse or tensor.is_quantized:
            raise MalformedFileError(
                f"tensor {name[:200]!r} has dtype {tensor.dtype}, not a dense floating-point one",
                where=self._where,
            )
        values: FloatArray = tensor.detach().float().contiguous().numpy()
        return values

    def integers(self, name: str) -> IntegerArray:
        """One tensor of whole numbers.

        Raises:
            MalformedFileError: If its dtype holds others.
        """
        tensor = self._state[name]
        if self.info(name).dtype not in INTEGER or tensor.is_sparse:
            raise MalformedFileError(
                f"tensor {name[:200]!r} has dtype {tensor.dtype}, not a whole-number one",
                where=self._where,
            )
        values: IntegerArray = tensor.long().contiguous().numpy()
        return values

    def sha256(self) -> str:
        """Hex digest of the whole file."""
        return sha256_of_file(self._path)

    def close(self) -> None:
        """Drops the tensors."""
        self._state = {}
