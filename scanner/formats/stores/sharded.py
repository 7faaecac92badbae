"""One state dict split over several files and an index (`*.safetensors.index.json`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scanner.errors import LimitExceededError, MalformedFileError, UnreadableFileError
from scanner.formats.jsonfile import parse_object
from scanner.formats.limits import MAX_CONFIG_BYTES, MAX_SHARDS
from scanner.formats.model import FloatArray, IntegerArray, TensorInfo, TensorStore
from scanner.formats.regular import open_regular
from scanner.formats.stores.hollow import refuse_hollow
from scanner.formats.stores.local import SafetensorsFile


class UnitedStore:
    """A `TensorStore` over several stores whose tensor names do not overlap.

    Args:
        parts: File name -> store.
        where: What to call the whole in errors.

    Raises:
        MalformedFileError: If two parts hold a tensor of the same name.
    """

    def __init__(self, parts: Mapping[str, TensorStore], where: str) -> None:
        self._parts = dict(parts)
        self._home: dict[str, TensorStore] = {}
        for file_name, store in self._parts.items():
            for name in store.names():
                if name in self._home:
                    raise MalformedFileError(
                        f"tensor {name[:200]!r} occurs in more than one file, again in {file_name}",
                        where=where,
                    )
                self._home[name] = store

    @property
    def metadata(self) -> Mapping[str, str]:
        """The parts' metadata; the first file that sets a key wins."""
        merged: dict[str, str] = {}
        for store in self._parts.values():
            merged = {**store.metadata, **merged}
        return merged

    @property
    def files(self) -> frozenset[str]:
        """The parts' file names."""
        return frozenset(self._parts)

    def names(self) -> Sequence[str]:
        """Tensor names, file by file."""
        return list(self._home)

    def info(self, name: str) -> TensorInfo:
        """The header entry of one tensor."""
        return self._home[name].info(name)

    def read(self, name: str) -> FloatArray:
        """One tensor as float32. Raises what its own store raises."""
        return self._home[name].read(name)

    def integers(self, name: str) -> IntegerArray:
        """One tensor of whole numbers. Raises what its own store raises."""
        return self._home[name].integers(name)

    def sha256(self) -> str:
        """Digest of the lines ``<sha256>  <file name>``, sorted by file name."""
        lines = (f"{store.sha256()}  {name}\n" for name, store in sorted(self._parts.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def close(self) -> None:
        """Closes every part."""
        for store in self._parts.values():
            store.close()


def shard_map(raw: bytes, where: str) -> dict[str, str]:
    """What an index says: tensor name -> name of the shard beside it.

    Raises:
        MalformedFileError: If it is no index, or names a file outside its own directory.
        LimitExceededError: If it is too large, or names too many files.
    """
    if len(raw) > MAX_CONFIG_BYTES:
        raise LimitExceededError(f"an index over {MAX_CONFIG_BYTES:,} bytes", where=where)
    weight_map = parse_object(raw, where).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MalformedFileError("the index has no weight_map", where=where)
    for name, file_name in weight_map.items():
        if (
            not isinstance(file_name, str)
            or not file_name.endswith(".safetensors")
            or any(mark in file_name for mark in ("/", "\\", "\0"))
        ):
            raise MalformedFileError(
                f"tensor {name[:200]!r} is mapped to {str(file_name)[:200]!r}, "
                "not a safetensors file beside the index",
                where=where,
            )
    if (count := len(set(weight_map.values()))) > MAX_SHARDS:
        raise LimitExceededError(f"{count:,} shards (limit {MAX_SHARDS:,})", where=where)
    return weight_map


def unite(
    weight_map: Mapping[str, str], open_shard: Callable[[str], TensorStore], where: str
) -> UnitedStore:
    """Opens the shards an index names, as one store.

    Args:
        weight_map: As `shard_map` gives it.
        open_shard: Opens one by its name.
        where: What to call the whole in errors.

    Raises:
        MalformedFileError: If the index promises a tensor that no shard holds.
        TargetError: If a shard cannot be opened.
    """
    parts: dict[str, TensorStore] = {}
    try:
        for file_name in sorted(set(weight_map.values())):
            parts[file_name] = open_shard(file_name)
        store = UnitedStore(parts, where)
        if missing := set(weight_map) - set(store.names()):
            raise MalformedFileError(
                f"the index promises tensor {sorted(missing)[0][:200]!r}, no shard holds it",
                where=where,
            )
    except BaseException:
        for part in parts.values():
            part.close()
        raise
    return store


def open_sharded(index: Path, where: str) -> UnitedStore:
    """Opens the files an index on this machine names.

    Raises:
        MalformedFileError: If the index is no index, names a file outside its own
            directory, or disagrees with what the files hold.
        UnreadableFileError: If a file is missing.
    """
    with open_regular(index) as file:
        raw = file.read(MAX_CONFIG_BYTES + 1)

    def open_shard(file_name: str) -> TensorStore:
        path = index.parent / file_name
        if path.is_symlink() and path.resolve().parent != index.parent.resolve():
            raise UnreadableFileError(
                f"shard {file_name} is a link out of its directory", where=where
            )
        store = SafetensorsFile(path)
        refuse_hollow(path, str(path))
        return store

    return unite(shard_map(raw, where), open_shard, where)
