"""A safetensors file on disk, read one tensor at a time.

Tensors are read with `pread` instead of a memory map: touched pages of a map count as
this process's memory (a 336 MB file would cost 336 MB), and a file truncated under a map
kills the process instead of raising an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scanner.errors import MalformedFileError, UnreadableFileError
from scanner.formats.dtypes import FLOATING, INTEGER, widen, widen_integers
from scanner.formats.model import FloatArray, IntegerArray, TensorInfo
from scanner.formats.stores.header import (
    PREFIX_BYTES,
    Header,
    header_length,
    parse_header,
    refuse_lfs_pointer,
)
from scanner.formats.stores.opened import OpenedFile
from scanner.system.positional import read_at, read_into


class SafetensorsFile:
    """A `TensorStore` over one local safetensors file.

    Args:
        path: The file.
        where: What to call it in errors; its path if not given.
        filled, replaced: As `OpenedFile`.

    Raises:
        LfsPointerError: If a git-lfs pointer stands in its place.
        MalformedFileError, LimitExceededError: If the header is not sound.
        UnreadableFileError: If it cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        where: str | None = None,
        *,
        filled: bool = False,
        replaced: bool = False,
    ) -> None:
        self._where = where or str(path)
        self._file = OpenedFile(path, self._where, filled=filled, replaced=replaced)
        try:
            self._header = self._read_header()
            self._cross_check(path)
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> Header:
        descriptor = self._file.descriptor
        size = self._file.size
        refuse_lfs_pointer(read_at(descriptor, 1024, 0), self._where)
        length = header_length(read_at(descriptor, PREFIX_BYTES, 0), self._where)
        if PREFIX_BYTES + length > size:
            raise MalformedFileError(
                f"truncated: the header alone claims {length:,} bytes, the file has {size:,}",
                where=self._where,
                todo="fetch the file again",
            )
        raw = read_at(descriptor, length, PREFIX_BYTES)
        return parse_header(raw, size - PREFIX_BYTES - length, self._where)

    def _cross_check(self, path: Path) -> None:
        """Lets the reference implementation refuse what the rules above let through."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError as error:
            raise MalformedFileError(
                f"refused by the safetensors library: {error}", where=self._where
            ) from None

    @property
    def metadata(self) -> Mapping[str, str]:
        """The header's free-form strings."""
        return self._header.metadata

    def names(self) -> Sequence[str]:
        """Tensor names in file order."""
        return list(self._header.entries)

    def info(self, name: str) -> TensorInfo:
        """The header entry of one tensor."""
        return self._header.entries[name].info

    def extent(self, name: str) -> tuple[int, int]:
        """Where one tensor's bytes begin and end in the file."""
        entry = self._header.entries[name]
        return entry.offset, entry.offset + entry.info.nbytes

    def read(self, name: str) -> FloatArray:
        """One tensor as float32.

        Raises:
            MalformedFileError: If its dtype does not hold floating-point numbers.
            UnreadableFileError: If the file shrank since it was opened.
        """
        info = self.info(name)
        if info.dtype not in FLOATING:
            raise MalformedFileError(
                f"tensor {name[:200]!r} has dtype {info.dtype}, not a floating-point one",
                where=self._where,
                todo="save it in one",
            )
        return widen(self._bytes(name), info.dtype).reshape(info.shape)

    def integers(self, name: str) -> IntegerArray:
        """One tensor of whole numbers.

        Raises:
            MalformedFileError: If its dtype holds others.
            UnreadableFileError: If the file shrank since it was opened.
        """
        info = self.info(name)
        if info.dtype not in INTEGER:
            raise MalformedFileError(
                f"tensor {name[:200]!r} has dtype {info.dtype}, not a whole-number one",
                where=self._where,
            )
        return widen_integers(self._bytes(name), info.dtype).reshape(info.shape)

    def _bytes(self, name: str) -> npt.NDArray[np.uint8]:
        entry = self._header.entries[name]
        raw: npt.NDArray[np.uint8] = np.empty(entry.info.nbytes, dtype=np.uint8)
        view = memoryview(raw.data)
        done = 0
        while done < len(raw):
            count = read_into(self._file.descriptor, view[done:], entry.offset + done)
            if count == 0:
                raise UnreadableFileError(
                    f"ends in the middle of tensor {name[:200]!r}", where=self._where
                )
            done += count
        self._file.refuse_changed()
        return raw

    def sha256(self) -> str:
        """Hex digest of the whole file.

        Raises:
            MalformedFileError: If it changed since it was opened.
        """
        return self._file.sha256()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
