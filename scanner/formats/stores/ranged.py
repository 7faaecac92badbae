"""A weight file on a server, of which only what is needed is fetched.

The header comes first, then the tensors that are asked for (`RangedFile.prefetch`), adjacent
ones together. A container other than safetensors has no such header and is fetched whole.

`sha256` is the digest that the server names (the hub's LFS storage, which addresses content by
it). It is checked whenever all of the file was fetched. A scan that read only a part of the file
trusts the server that the part belongs to that digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from scanner.errors import LimitExceededError, MalformedFileError
from scanner.formats.limits import MAX_DOWNLOAD_BYTES, MAX_FILE_BYTES
from scanner.formats.model import FloatArray, IntegerArray, TensorInfo, TensorStore
from scanner.formats.stores.header import PREFIX_BYTES, header_length, refuse_lfs_pointer
from scanner.formats.stores.local import SafetensorsFile
from scanner.formats.stores.sniff import container, open_store
from scanner.formats.stores.spool import ByteSource, Range, Spool

FIRST_BYTES = 256 * 2**10
"""The first request of a large file: the header of an ordinary adapter, in most cases."""
_MAGIC_BYTES = 1024

Prefetch = Callable[[Sequence[str]], None]


class RangedFile:
    """A `TensorStore` over one safetensors file that is fetched as it is read.

    Args:
        source: The file.
        spool: Its local copy, which the store owns from now on.

    Raises:
        MalformedFileError, LimitExceededError: If the header is not sound.
        HubError: If it cannot be fetched.
    """

    def __init__(self, source: ByteSource, spool: Spool) -> None:
        self._source = source
        self._spool = spool
        length = header_length(spool.start(PREFIX_BYTES), source.where)
        if PREFIX_BYTES + length > source.size:
            raise MalformedFileError(
                f"truncated: the header alone claims {length:,} bytes, "
                f"the file has {source.size:,}",
                where=source.where,
                todo="the file is damaged where it lies",
            )
        spool.start(PREFIX_BYTES + length)
        self._file = SafetensorsFile(spool.path, source.where, filled=True)
        spool.hide()

    @property
    def metadata(self) -> Mapping[str, str]:
        """The header's free-form strings."""
        return self._file.metadata

    def names(self) -> Sequence[str]:
        """Tensor names in file order."""
        return self._file.names()

    def info(self, name: str) -> TensorInfo:
        """The header entry of one tensor."""
        return self._file.info(name)

    def prefetch(self, names: Sequence[str]) -> None:
        """Fetches tensors that are about to be read; names of no tensor mean nothing.

        Raises:
            HubError: If they cannot be fetched.
        """
        mine = set(self._file.names())
        self._spool.fetch(Range(*self._file.extent(name)) for name in names if name in mine)

    def read(self, name: str) -> FloatArray:
        """One tensor as float32, fetched if it is not here.

        Raises:
            MalformedFileError: If its dtype does not hold floating-point numbers.
            HubError: If it cannot be fetched.
        """
        self._spool.fetch_on_demand(Range(*self._file.extent(name)))
        return self._file.read(name)

    def integers(self, name: str) -> IntegerArray:
        """One tensor of whole numbers, fetched if it is not here.

        Raises:
            MalformedFileError: If its dtype holds others.
            HubError: If it cannot be fetched.
        """
        self._spool.fetch_on_demand(Range(*self._file.extent(name)))
        return self._file.integers(name)

    def sha256(self) -> str:
        """Hex digest of the whole file, as the server names it; computed if it names none."""
        digest = self._source.digest
        if digest is not None and digest.kind == "sha256":
            return digest.value
        self._spool.fetch([Range(0, self._source.size)])
        return self._spool.sha256()

    def close(self) -> None:
        """Removes what was fetched."""
        self._file.close()
        self._spool.close()


class _Fetched:
    """A `TensorStore` over a copy that goes away with it."""

    def __init__(self, store: TensorStore, spool: Spool) -> None:
        self._store = store
        self._spool = spool
        self.names, self.info = store.names, store.info
        self.read, self.integers, self.sha256 = store.read, store.integers, store.sha256

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of the store it wraps."""
        return self._store.metadata

    def close(self) -> None:
        """Closes the store and removes the copy."""
        self._store.close()
        self._spool.close()


def open_ranged(source: ByteSource) -> tuple[TensorStore, Prefetch]:
    """Opens a weight file of any kind, wherever it lies.

    Returns:
        The store, and what fetches tensors of it together.

    Raises:
        TargetError: If it is not sound, of no kind known here, or cannot be fetched.
    """
    if source.size > MAX_FILE_BYTES:
        raise LimitExceededError(
            f"{source.size:,} bytes (limit {MAX_FILE_BYTES:,})", where=source.where
        )
    spool = Spool(source)
    try:
        start = spool.start(FIRST_BYTES)[:_MAGIC_BYTES]
        refuse_lfs_pointer(start, source.where)
        if container(start, source.where, source.where) == "safetensors":
            ranged = RangedFile(source, spool)
            return ranged, ranged.prefetch
        if source.size > MAX_DOWNLOAD_BYTES:
            raise LimitExceededError(
                f"{source.size:,} bytes, and can only be read whole (limit {MAX_DOWNLOAD_BYTES:,})",
                where=source.where,
                todo="download it and scan the file",
            )
        spool.fetch([Range(0, source.size)])
        return _Fetched(open_store(spool.path, source.where), spool), _nothing_left
    except BaseException:
        spool.close()
        raise


def _nothing_left(names: Sequence[str]) -> None:
    """Used where the whole file has been fetched already: there is nothing to fetch."""
