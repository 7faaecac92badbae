"""Which container a weight file is, by its first bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from scanner.errors import MalformedFileError, UnreadableFileError
from scanner.formats.model import TensorStore
from scanner.formats.regular import open_regular
from scanner.formats.stores.archive import ZIP_MAGIC
from scanner.formats.stores.header import refuse_lfs_pointer
from scanner.formats.stores.hollow import refuse_hollow

INDEX_SUFFIX = ".safetensors.index.json"

_GGUF = b"GGUF"
_PICKLE_PROTOCOLS = tuple(bytes([0x80, version]) for version in range(2, 6))
_REFUSED = {
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7-zip archive",
    b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"ggla": "an adapter in the retired `ggla` format",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"<!DO": "a web page",
    b"<htm": "a web page",
}
_TAR_MAGIC_AT = 257


def open_store(path: Path, where: str | None = None) -> TensorStore:
    """Opens a weight file of any kind.

    Args:
        path: The file.
        where: What to call it in errors; its path if not given.

    Raises:
        TargetError: If it is not sound, or of no kind known here.
    """
    where = where or str(path)
    try:
        with open_regular(path) as file:
            start = file.read(1024)
    except OSError as error:
        raise UnreadableFileError(
            f"cannot be opened: {error.strerror or error}", where=where
        ) from None
    refuse_hollow(path, where)
    refuse_lfs_pointer(start, where)
    if path.name.endswith(INDEX_SUFFIX):
        from scanner.formats.stores.sharded import open_sharded

        return open_sharded(path, where)
    kind = container(start, where, path.name)
    if kind == "gguf":
        from scanner.formats.stores.gguf import GgufFile

        return GgufFile(path, where)
    if kind == "npz":
        from scanner.formats.stores.npz import NpzFile

        return NpzFile(path, where)
    if kind == "pickle":
        from scanner.formats.stores.pickled import PickledFile

        return PickledFile(path, where)
    from scanner.formats.stores.local import SafetensorsFile

    return SafetensorsFile(path, where)


def container(
    start: bytes, where: str, name: str
) -> Literal["gguf", "npz", "pickle", "safetensors"]:
    """The kind of container that starts with these bytes; safetensors has no mark of its own.

    Args:
        start: The first 1024 bytes, or all if there are fewer.
        where: What to call the file in errors.
        name: The file's name, by which loaders go. It decides between a pickle and a safetensors
            file whose header is as long as a pickle's mark reads as a number.

    Raises:
        MalformedFileError: If it is of a kind that holds no weights.
    """
    if start.startswith(_GGUF):
        return "gguf"
    if start.startswith(ZIP_MAGIC) and _first_member(start).endswith(b".npy"):
        return "npz"
    if name.lower().endswith(".safetensors") and start[4:9] == b"\0\0\0\0{":
        return "safetensors"
    if start.startswith((ZIP_MAGIC, *_PICKLE_PROTOCOLS)):
        return "pickle"
    for magic, kind in _REFUSED.items():
        if start.startswith(magic):
            raise MalformedFileError(f"{kind}, not weights", where=where)
    if b"\0" not in start[:8] and start.lstrip().startswith(b"{"):
        raise MalformedFileError("JSON, not weights (an index of pickled shards?)", where=where)
    if start[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        raise MalformedFileError(
            "a tar archive (.nemo?); archives are not unpacked",
            where=where,
            todo="unpack it yourself and scan the weights inside",
        )
    return "safetensors"


def _first_member(start: bytes) -> bytes:
    """Name of an archive's first member, from its local header; torch's end in `data.pkl`."""
    length = int.from_bytes(start[26:28], "little")
    return start[30 : 30 + length]
