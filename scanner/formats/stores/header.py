"""The safetensors header: bytes -> where every tensor lies, or why the file is refused.

Kept apart from any file so that a header fetched over a network is judged by the same
rules. They are the rules of the safetensors library (`SafeTensors::read_metadata` and
`Metadata::validate`), plus limits, plus one clear sentence for each way to break them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import msgspec

from scanner.errors import LfsPointerError, LimitExceededError, MalformedFileError
from scanner.formats.dtypes import BITS
from scanner.formats.jsonfile import parse_object
from scanner.formats.limits import (
    MAX_HEADER_BYTES,
    MAX_TENSOR_BYTES,
    MAX_TENSORS,
    is_sound_shape,
)
from scanner.formats.model import TensorInfo

PREFIX_BYTES = 8
_SPARE_BRACES = 10_000
"""Braces a header may hold beside those of its entries: in names and metadata."""
_LFS_MAGIC = b"version https://git-lfs"


class Entry(NamedTuple):
    """One tensor and its place in the file."""

    info: TensorInfo
    offset: int
    """Absolute, from the start of the file."""


@dataclass(frozen=True)
class Header:
    """A validated header."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]


def refuse_lfs_pointer(start: bytes, where: str) -> None:
    """Raises `LfsPointerError` if a file that starts with `start` is a git-lfs pointer.

    Must come before any parsing: the first 8 bytes of a pointer read as a header length
    of 2.3e18, the same symptom as a hostile header.
    """
    if not start.startswith(_LFS_MAGIC):
        return
    text = start[:1024].decode("ascii", "replace")
    oid = re.search(r"^oid sha256:([0-9a-f]{64})\s*$", text, re.MULTILINE)
    size = re.search(r"^size (\d{1,20})\s*$", text, re.MULTILINE)
    what = "a git-lfs pointer, not the weights"
    if oid and size:
        what += f" (oid sha256:{oid[1]}, {int(size[1]):,} bytes)"
    raise LfsPointerError(what, where=where, todo='run "git lfs pull" to fetch the file')


def header_length(prefix: bytes, where: str) -> int:
    """The header's length in bytes, from the first 8 bytes of a file.

    Raises:
        LfsPointerError, MalformedFileError, LimitExceededError: As the bytes deserve.
    """
    refuse_lfs_pointer(prefix, where)
    if len(prefix) < PREFIX_BYTES:
        raise MalformedFileError(
            f"only {len(prefix)} bytes, too short for a safetensors file",
            where=where,
            todo="fetch the file again",
        )
    length = int.from_bytes(prefix[:PREFIX_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise LimitExceededError(
            f"the safetensors header claims {length:,} bytes (limit {MAX_HEADER_BYTES:,})",
            where=where,
            todo="this is not an honest safetensors file; do not load it",
        )
    if length < len("{}"):
        raise MalformedFileError(f"the safetensors header claims {length} bytes", where=where)
    return length


_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
_Whole = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _RawEntry(msgspec.Struct, forbid_unknown_fields=True):
    """A header entry as written, its values of the right types."""

    dtype: str
    shape: list[_Whole]
    data_offsets: tuple[_Whole, _Whole]


def _decoded(raw: bytes) -> tuple[dict[str, _RawEntry], dict[str, str]] | None:
    """Entries and metadata of a header that is written as every library writes it.

    A file may name 100,000 tensors, and a decoder in C takes a fifth of the time. It lets the last
    of two equal keys win, though, where another parser takes the first. So colons are counted:
    each key has one, and a colon inside a string only adds to them. As many as the keys that came
    out, and no key went in twice.

    Returns:
        None if anything is otherwise: `parse_object` and `_checked` then say what.
    """
    try:
        raw.decode("utf-8")
        values = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        colons = len(values)
        metadata = msgspec.json.decode(values.pop("__metadata__", b"{}"), type=dict[str, str])
        decode = msgspec.json.Decoder(_RawEntry).decode
        entries = {name: decode(value) for name, value in values.items()}
    except (UnicodeDecodeError, msgspec.DecodeError):
        return None
    colons += len(_ENTRY_KEYS) * len(entries) + len(metadata)
    return (entries, metadata) if raw.count(b":") == colons else None


def _is_whole(item: object) -> bool:
    return type(item) is int and 0 <= item < 2**63


def _malformed(name: str, what: str, where: str) -> MalformedFileError:
    return MalformedFileError(f"tensor {name[:200]!r}: {what}", where=where)


def _checked(name: str, value: Any, where: str) -> _RawEntry:
    """One entry as `parse_object` gives it, or what is wrong with it."""
    if not isinstance(value, dict) or value.keys() != _ENTRY_KEYS:
        raise _malformed(name, "a header entry needs exactly dtype, shape and data_offsets", where)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str):
        raise _malformed(name, f"unknown dtype {str(dtype)[:40]!r}", where)
    if not isinstance(shape, list) or not all(map(_is_whole, shape)):
        raise _malformed(name, "the shape is not a list of non-negative whole numbers", where)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_whole, offsets)):
        raise _malformed(name, "data_offsets are not two non-negative whole numbers", where)
    return _RawEntry(dtype, shape, (offsets[0], offsets[1]))


def _info(name: str, entry: _RawEntry, where: str) -> TensorInfo:
    """One tensor, if its dtype, shape and place agree."""
    dtype, shape, (begin, end) = entry.dtype, entry.shape, entry.data_offsets
    if dtype not in BITS:
        raise _malformed(name, f"unknown dtype {dtype[:40]!r}", where)
    if not is_sound_shape(shape):
        raise _malformed(name, f"shape {str(shape)[:80]} is no tensor's", where)
    bits = BITS[dtype]
    for dimension in shape:
        bits *= dimension
    if bits % 8 or end - begin != bits // 8:
        raise _malformed(
            name,
            f"dtype {dtype} and shape {shape} need {bits / 8:,.0f} bytes, "
            f"data_offsets give {end - begin:,}",
            where,
        )
    if bits // 8 > MAX_TENSOR_BYTES:
        raise LimitExceededError(
            f"tensor {name[:200]!r} has {bits // 8:,} bytes (limit {MAX_TENSOR_BYTES:,})",
            where=where,
        )
    return TensorInfo(name, dtype, tuple(shape), bits // 8)


def _metadata(value: Any, where: str) -> dict[str, str]:
    if value is None:  # as MLX writes it
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise MalformedFileError("__metadata__ is not an object of strings", where=where)
    return value


def _parsed(raw: bytes, where: str) -> tuple[dict[str, _RawEntry], dict[str, str]]:
    """What `_decoded` gives, strictly and slowly, with one clear line for what is wrong."""
    fields = parse_object(raw, where)
    metadata = _metadata(fields.pop("__metadata__", {}), where)
    return {name: _checked(name, value, where) for name, value in fields.items()}, metadata


def parse_header(raw: bytes, data_bytes: int, where: str) -> Header:
    """Validates a header.

    Args:
        raw: The JSON text between the length prefix and the data.
        data_bytes: How many bytes follow the header in the file.
        where: What to call the file in errors.

    Returns:
        Where every tensor lies.

    Raises:
        MalformedFileError: If the header breaks a rule of the format, or the data section
            is not covered exactly once by the tensors.
        LimitExceededError: If it names too many or too large tensors.
    """
    if not raw.startswith(b"{"):
        raise MalformedFileError("the safetensors header does not start with '{'", where=where)
    # Every entry is an object, and an object opens with a brace: count before parsing.
    if (braces := raw.count(b"{")) > MAX_TENSORS + _SPARE_BRACES:
        raise LimitExceededError(
            f"about {braces:,} tensors (limit {MAX_TENSORS:,})",
            where=where,
            todo="no adapter needs as many",
        )
    entries, metadata = _decoded(raw) or _parsed(raw, where)
    if len(entries) > MAX_TENSORS:
        raise LimitExceededError(
            f"{len(entries):,} tensors (limit {MAX_TENSORS:,})",
            where=where,
            todo="no adapter needs as many",
        )
    data_start = PREFIX_BYTES + len(raw)
    position = 0
    placed: dict[str, Entry] = {}
    infos = {name: _info(name, entry, where) for name, entry in entries.items()}
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        if begin != position:
            fault = "overlaps another tensor" if begin < position else "leaves a hole before it"
            raise MalformedFileError(f"tensor {name[:200]!r} {fault}", where=where)
        placed[name] = Entry(infos[name], data_start + begin)
        position = end
    if position != data_bytes:
        state = "truncated" if position > data_bytes else "followed by unaccounted data"
        raise MalformedFileError(
            f"{state}: the header describes {position:,} bytes of tensors, "
            f"the file holds {data_bytes:,}",
            where=where,
            todo="fetch the file again",
        )
    return Header(placed, metadata)
