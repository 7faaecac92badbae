"""NumPy archives (.npz), which older MLX versions save adapters in.

Members are read one by one from the archive where it lies; nothing is unpacked to disk.
The array header is parsed by numpy with pickles refused, and a member that claims to be
far larger than it is stored is refused before it is read.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from scanner.errors import LimitExceededError, MalformedFileError
from scanner.formats.limits import (
    MAX_EXPANSION,
    MAX_TENSOR_BYTES,
    MAX_TENSORS,
    is_sound_shape,
)
from scanner.formats.model import FloatArray, IntegerArray, TensorInfo
from scanner.formats.stores.archive import open_archive
from scanner.formats.stores.opened import OpenedFile

if TYPE_CHECKING:
    import zipfile

_SUFFIX = ".npy"
_DTYPE_NAMES = {
    "f2": "F16", "f4": "F32", "f8": "F64",
    "u1": "U8", "u2": "U16", "u4": "U32", "u8": "U64",
    "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64",
}  # fmt: skip


class NpzFile:
    """A `TensorStore` over one local .npz file.

    Args:
        path: The file.
        where: What to call it in errors; its path if not given.

    Raises:
        MalformedFileError, LimitExceededError: If the archive or an array header is not sound.
        UnreadableFileError: If it cannot be opened.
    """

    def __init__(self, path: Path, where: str | None = None) -> None:
        self._where = where or str(path)
        self._file = OpenedFile(path, self._where)
        try:
            self._archive = open_archive(self._file.file, self._where)
            self._infos = self._list()
        except BaseException:
            self._file.close()
            raise

    def _list(self) -> dict[str, TensorInfo]:
        members = self._archive.infolist()
        if len(members) > MAX_TENSORS:
            raise LimitExceededError(
                f"{len(members):,} tensors (limit {MAX_TENSORS:,})", where=self._where
            )
        infos: dict[str, TensorInfo] = {}
        for member in members:
            name = member.filename.removesuffix(_SUFFIX)
            if name == member.filename:
                raise MalformedFileError(
                    f"member {name[:200]!r} is not an array", where=self._where
                )
            if name in infos:
                raise MalformedFileError(f"tensor {name[:200]!r} occurs twice", where=self._where)
            if member.file_size > MAX_EXPANSION * max(member.compress_size, 1):
                raise LimitExceededError(
                    f"tensor {name[:200]!r} unpacks to {member.file_size:,} bytes "
                    f"from {member.compress_size:,}",
                    where=self._where,
                    todo="do not load this file",
                )
            infos[name] = self._info(name, member)
        return infos

    def _info(self, name: str, member: zipfile.ZipInfo) -> TensorInfo:
        def malformed(what: str) -> MalformedFileError:
            return MalformedFileError(f"tensor {name[:200]!r}: {what}", where=self._where)

        try:
            with self._archive.open(member) as file, warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of Python 2's headers
                shape, _, dtype = _read_array_header(file)
                data_bytes = member.file_size - file.tell()
        except Exception as error:  # numpy's header parser lets a dozen types escape
            raise malformed(f"no array header can be read ({error})") from None
        nbytes = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise malformed("holds Python objects, not numbers")
        if not is_sound_shape(shape) or nbytes != data_bytes:
            raise malformed(f"shape {shape} needs {nbytes:,} bytes, the archive has {data_bytes:,}")
        if nbytes > MAX_TENSOR_BYTES:
            raise LimitExceededError(
                f"tensor {name[:200]!r} has {nbytes:,} bytes (limit {MAX_TENSOR_BYTES:,})",
                where=self._where,
            )
        return TensorInfo(name, _DTYPE_NAMES.get(dtype.str[1:], dtype.str), shape, nbytes)

    @property
    def metadata(self) -> Mapping[str, str]:
        """Empty: the format carries no metadata."""
        return {}

    def names(self) -> Sequence[str]:
        """Tensor names in file order."""
        return list(self._infos)

    def info(self, name: str) -> TensorInfo:
        """Name, dtype and shape of one tensor."""
        return self._infos[name]

    def read(self, name: str) -> FloatArray:
        """One tensor as float32.

        Raises:
            MalformedFileError: If its dtype does not hold floating-point numbers, or it is damaged.
        """
        array = self._read(name)
        if array.dtype.kind != "f":
            raise MalformedFileError(
                f"tensor {name[:200]!r} has dtype {array.dtype}, not a floating-point one",
                where=self._where,
            )
        with np.errstate(over="ignore"):
            return array.astype(np.float32)

    def integers(self, name: str) -> IntegerArray:
        """One tensor of whole numbers.

        Raises:
            MalformedFileError: If its dtype holds others, or it is damaged.
        """
        array = self._read(name)
        if array.dtype.kind not in "iu":
            raise MalformedFileError(
                f"tensor {name[:200]!r} has dtype {array.dtype}, not a whole-number one",
                where=self._where,
            )
        return array.astype(np.int64)

    def _read(self, name: str) -> npt.NDArray[np.generic]:
        try:
            with self._archive.open(name + _SUFFIX) as file:
                values: npt.NDArray[np.generic] = npy.read_array(file, allow_pickle=False)
        except Exception as error:  # as above, and zipfile's own
            raise MalformedFileError(
                f"tensor {name[:200]!r} cannot be read ({error})", where=self._where
            ) from None
        self._file.refuse_changed()
        return values

    def sha256(self) -> str:
        """Hex digest of the whole file.

        Raises:
            MalformedFileError: If it changed since it was opened.
        """
        return self._file.sha256()

    def close(self) -> None:
        """Closes the archive."""
        self._archive.close()
        self._file.close()


def _read_array_header(
    file: IO[bytes],
) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, Fortran order and dtype of a .npy member.

    Raises:
        ValueError: If there is no such header.
    """
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError(f"array format version {version}")
