"""GGUF files: header, typed metadata and tensor infos, read with limits.

The layout is that of `ggml/docs/gguf.md` (version 2 and 3, little-endian): magic, version,
tensor count, key-value count; the key-values; per tensor a name, its dimensions (fastest
first), type and offset; padding to the alignment; the data.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scanner.errors import LimitExceededError, MalformedFileError, UnreadableFileError
from scanner.formats.dtypes import BITS, FLOATING, INTEGER, widen, widen_integers
from scanner.formats.limits import (
    MAX_HEADER_BYTES,
    MAX_TENSOR_BYTES,
    MAX_TENSORS,
    is_sound_shape,
)
from scanner.formats.model import FloatArray, IntegerArray, TensorInfo
from scanner.formats.stores.opened import OpenedFile
from scanner.system.positional import read_at

_MAX_DIMENSIONS = 4
_MAX_STRING_BYTES = 4 * 2**20
_MAX_ENTRIES = 65_536
_MAX_ARRAY_ITEMS = 4_000_000
_DEFAULT_ALIGNMENT = 32

_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i",
    6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
"""gguf_metadata_value_type -> struct format; 8 is a string, 9 an array."""
_STRING, _ARRAY = 8, 9

_TYPES = {
    0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16",
}  # fmt: skip
"""ggml_type -> dtype. Every other type is quantised."""


class _Cursor:
    """Reads a header field by field, never past what was loaded."""

    def __init__(self, raw: bytes, where: str) -> None:
        self.raw = raw
        self.at = 0
        self.where = where

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.raw):
            raise MalformedFileError("truncated inside its header", where=self.where)
        part = self.raw[self.at : end]
        self.at = end
        return part

    def number(self, layout: str) -> int | float | bool:
        (value,) = struct.unpack(layout, self.take(struct.calcsize(layout)))
        found: int | float | bool = value
        return found

    def whole(self, layout: str) -> int:
        return int(self.number(layout))

    def text(self) -> str:
        length = self.whole("<Q")
        if length > _MAX_STRING_BYTES:
            raise LimitExceededError(f"a string of {length:,} bytes", where=self.where)
        return self.take(length).decode("utf-8", "replace")


@dataclass(frozen=True)
class _Entry:
    info: TensorInfo
    offset: int


class GgufFile:
    """A `TensorStore` over one local GGUF file.

    Shapes are given slowest dimension first, as numpy has them. Quantised tensors are
    listed with dtype ``GGML_<n>`` and cannot be read.

    Args:
        path: The file.
        where: What to call it in errors; its path if not given.

    Raises:
        MalformedFileError, LimitExceededError: If the header is not sound.
        UnreadableFileError: If it cannot be opened.
    """

    def __init__(self, path: Path, where: str | None = None) -> None:
        self._where = where or str(path)
        self._file = OpenedFile(path, self._where)
        try:
            self._metadata, self._entries = self._parse()
        except BaseException:
            self._file.close()
            raise

    def _parse(self) -> tuple[dict[str, str], dict[str, _Entry]]:
        descriptor = self._file.descriptor
        size = self._file.size
        cursor = _Cursor(read_at(descriptor, MAX_HEADER_BYTES, 0), self._where)
        if cursor.take(4) != b"GGUF":
            raise MalformedFileError("does not start with GGUF", where=self._where)
        version = cursor.whole("<I")
        if version not in (2, 3):
            raise MalformedFileError(f"GGUF version {version} is not known here", where=self._where)
        tensors, entries = cursor.whole("<Q"), cursor.whole("<Q")
        if tensors > MAX_TENSORS or entries > _MAX_ENTRIES:
            raise LimitExceededError(
                f"{tensors:,} tensors and {entries:,} metadata entries", where=self._where
            )
        metadata: dict[str, str] = {}
        for _ in range(entries):
            key = cursor.text()
            if key in metadata:
                raise MalformedFileError(f"the key {key[:80]!r} occurs twice", where=self._where)
            metadata[key] = _value(cursor)
        described = [self._describe(cursor) for _ in range(tensors)]
        alignment = _alignment(metadata, self._where)
        start = -(-cursor.at // alignment) * alignment
        return metadata, self._place(described, start, size)

    def _describe(self, cursor: _Cursor) -> tuple[TensorInfo, int]:
        name = cursor.text()
        dimensions = cursor.whole("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise MalformedFileError(
                f"tensor {name[:200]!r} has {dimensions} dimensions", where=self._where
            )
        shape = tuple(cursor.whole("<Q") for _ in range(dimensions))[::-1]
        if not is_sound_shape(shape):
            raise MalformedFileError(
                f"tensor {name[:200]!r} has shape {str(list(shape))[:80]}", where=self._where
            )
        kind, offset = cursor.whole("<I"), cursor.whole("<Q")
        dtype = _TYPES.get(kind, f"GGML_{kind}")
        nbytes = BITS.get(dtype, 0) // 8
        for dimension in shape:
            nbytes *= dimension
        if nbytes > MAX_TENSOR_BYTES:
            raise LimitExceededError(
                f"tensor {name[:200]!r} has {nbytes:,} bytes (limit {MAX_TENSOR_BYTES:,})",
                where=self._where,
            )
        return TensorInfo(name, dtype, shape, nbytes), offset

    def _place(
        self, described: Sequence[tuple[TensorInfo, int]], start: int, size: int
    ) -> dict[str, _Entry]:
        """Checks that tensors lie inside the file and not on one another."""
        entries: dict[str, _Entry] = {}
        end = 0
        for info, offset in sorted(described, key=lambda item: item[1]):
            if info.name in entries:
                raise MalformedFileError(
                    f"tensor {info.name[:200]!r} occurs twice", where=self._where
                )
            if offset < end:
                raise MalformedFileError(
                    f"tensor {info.name[:200]!r} overlaps another tensor", where=self._where
                )
            end = offset + info.nbytes
            if start + end > size:
                raise MalformedFileError(
                    f"truncated: tensor {info.name[:200]!r} ends at byte {start + end:,}, "
                    f"the file has {size:,}",
                    where=self._where,
                    todo="fetch the file again",
                )
            entries[info.name] = _Entry(info, start + offset)
        return entries

    @property
    def metadata(self) -> Mapping[str, str]:
        """Scalars and strings of the header, as strings; arrays are left out."""
        return self._metadata

    def names(self) -> Sequence[str]:
        """Tensor names in data order."""
        return list(self._entries)

    def info(self, name: str) -> TensorInfo:
        """Name, dtype and shape of one tensor."""
        return self._entries[name].info

    def read(self, name: str) -> FloatArray:
        """One tensor as float32.

        Raises:
            MalformedFileError: If it is quantised or holds whole numbers.
            UnreadableFileError: If the file shrank since it was opened.
        """
        info = self.info(name)
        if info.dtype not in FLOATING:
            raise MalformedFileError(
                f"tensor {name[:200]!r} has dtype {info.dtype}, not a floating-point one",
                where=self._where,
            )
        return widen(self._bytes(name), info.dtype).reshape(info.shape)

    def integers(self, name: str) -> IntegerArray:
        """One tensor of whole numbers. Raises what `read` raises."""
        info = self.info(name)
        if info.dtype not in INTEGER:
            raise MalformedFileError(
                f"tensor {name[:200]!r} has dtype {info.dtype}, not a whole-number one",
                where=self._where,
            )
        return widen_integers(self._bytes(name), info.dtype).reshape(info.shape)

    def _bytes(self, name: str) -> npt.NDArray[np.uint8]:
        entry = self._entries[name]
        raw = read_at(self._file.descriptor, entry.info.nbytes, entry.offset)
        if len(raw) != entry.info.nbytes:
            raise UnreadableFileError(
                f"ends in the middle of tensor {name[:200]!r}", where=self._where
            )
        self._file.refuse_changed()
        return np.frombuffer(raw, dtype=np.uint8)

    def sha256(self) -> str:
        """Hex digest of the whole file.

        Raises:
            MalformedFileError: If it changed since it was opened.
        """
        return self._file.sha256()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _alignment(metadata: Mapping[str, str], where: str) -> int:
    text = metadata.get("general.alignment", str(_DEFAULT_ALIGNMENT))
    if not text.isdigit() or not 8 <= int(text) <= 65_536 or int(text) % 8:
        raise MalformedFileError(f"general.alignment is {text[:40]!r}", where=where)
    return int(text)


def _value(cursor: _Cursor) -> str:
    """One metadata value as text; an array is skipped and gives an empty string."""
    kind = cursor.whole("<I")
    if kind in _SCALARS:
        return str(cursor.number(_SCALARS[kind]))
    if kind == _STRING:
        return cursor.text()
    if kind != _ARRAY:
        raise MalformedFileError(f"metadata of unknown type {kind}", where=cursor.where)
    of, count = cursor.whole("<I"), cursor.whole("<Q")
    if count > _MAX_ARRAY_ITEMS:
        raise LimitExceededError(f"a metadata array of {count:,} items", where=cursor.where)
    if of in _SCALARS:
        cursor.take(count * struct.calcsize(_SCALARS[of]))
    elif of == _STRING:
        for _ in range(count):
            cursor.text()
    else:
        raise MalformedFileError(f"a metadata array of type {of}", where=cursor.where)
    return ""
