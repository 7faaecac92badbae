"""A local copy of a file on a server, as far as the file has been fetched.

The copy is as long as the file, with holes where nothing was fetched yet, so that any reader of
files can read it and nothing is held in memory. What is fetched, and in how many requests, follows
from what a request costs (`plan_requests`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import RLock
from typing import NamedTuple, Protocol

from scanner.errors import HubAnswerError, HubUnavailableError
from scanner.formats.stores.blocks import blocks_of_descriptor, sha256_of_descriptor
from scanner.formats.stores.digest import ContentDigest
from scanner.system.positional import read_at

REQUEST_BYTES = 8 * 2**20
"""What one request costs, in bytes that could be transferred instead.

A round trip of 100 ms on a line of 1 Gbit/s is worth 12 MB; an account's 5,000 file requests in
five minutes, spread over the same line, are worth 7.5 MB each. So an adapter of 336 MB of which a
pack covers two modules in every layer, 5 MB apart, is fetched in one request, and verified.
"""


class Range(NamedTuple):
    """Bytes of a file, from `begin` up to but not including `end`."""

    begin: int
    end: int


class ByteSource(Protocol):
    """A file that can be fetched in parts."""

    @property
    def where(self) -> str:
        """What to call it in errors."""

    @property
    def size(self) -> int:
        """Its size in bytes."""

    @property
    def digest(self) -> ContentDigest | None:
        """What its content hashes to, as whoever keeps it says, if they do."""

    def blocks(self, begin: int, end: int) -> Iterator[bytes]:
        """Exactly the bytes of one range, in order, in one request if all goes well.

        Raises:
            HubError: If they cannot be had.
        """


def missing(wanted: Iterable[Range], held: Sequence[Range]) -> list[Range]:
    """The parts of some ranges that are not held, sorted and without overlap."""
    parts: list[Range] = []
    for begin, end in sorted(wanted):
        position = max(begin, parts[-1].end) if parts else begin
        for have in held:
            if have.end <= position or have.begin >= end:
                continue
            if have.begin > position:
                parts.append(Range(position, have.begin))
            position = max(position, have.end)
        if position < end:
            parts.append(Range(position, end))
    return parts


def plan_requests(wanted: Iterable[Range], held: Sequence[Range], size: int) -> list[Range]:
    """The requests that fetch what is wanted at the lowest cost: bytes, plus a price each.

    Two ranges become one request where the gap between them costs less than a request. All the
    rest of the file is fetched where that costs at most one request more: a file that is here
    as a whole can be checked against its digest.

    Args:
        wanted: What is needed.
        held: What is here, sorted and without overlap.
        size: The file's size.

    Returns:
        The requests, sorted; empty if nothing is missing.
    """
    parts = missing(wanted, held)
    if not parts:
        return []
    runs = [parts[0]]
    for part in parts[1:]:
        if part.begin - runs[-1].end <= REQUEST_BYTES:
            runs[-1] = Range(runs[-1].begin, part.end)
        else:
            runs.append(part)
    rest = missing([Range(0, size)], held)
    whole = Range(rest[0].begin, rest[-1].end)
    return [whole] if _cost([whole]) <= _cost(runs) + REQUEST_BYTES else runs


def _cost(runs: Sequence[Range]) -> int:
    return sum(end - begin + REQUEST_BYTES for begin, end in runs)


class Spool:
    """The local copy of one file. Threads may share it.

    Args:
        source: The file.

    Raises:
        HubUnavailableError: If there is no room for it here.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._held: list[Range] = []
        self._lock = RLock()
        self._on_demand = 0
        try:
            descriptor, name = tempfile.mkstemp(prefix="adapter-scanner-")
        except OSError as error:
            raise self._no_room(error) from None
        self._descriptor = descriptor
        self.path = Path(name)
        try:
            os.ftruncate(descriptor, source.size)
        except OSError as error:
            self.close()
            raise self._no_room(error) from None

    @property
    def is_whole(self) -> bool:
        """Whether all of the file is here, and is what its digest says."""
        return not missing([Range(0, self._source.size)], self._held)

    def start(self, count: int) -> bytes:
        """The file's first bytes, fetched if they are not here."""
        end = min(count, self._source.size)
        self.fetch([Range(0, end)])
        return read_at(self._descriptor, end, 0)

    def fetch(self, wanted: Iterable[Range]) -> None:
        """Fetches what is wanted and not here, in as few requests as pays.

        Raises:
            HubError: If it cannot be had, or the whole file is not the one its digest names.
        """
        with self._lock:
            was_whole = self.is_whole
            for run in plan_requests(wanted, self._held, self._source.size):
                self._write(run)
            if not was_whole and self.is_whole:
                self._verify()

    def fetch_on_demand(self, wanted: Range) -> None:
        """Fetches what nobody planned for.

        Once such requests have cost as much as the rest of the file, the rest is fetched: the
        total is at most twice what knowing the future would have cost.
        """
        with self._lock:
            if not missing([wanted], self._held):
                return
            self._on_demand += REQUEST_BYTES + wanted.end - wanted.begin
            rest = missing([Range(0, self._source.size)], self._held)
            whole = self._on_demand >= sum(end - begin for begin, end in rest)
            self.fetch(rest if whole else [wanted])

    def _write(self, run: Range) -> None:
        position = run.begin
        for block in self._source.blocks(*run):
            try:
                written = 0
                while written < len(block):
                    view = memoryview(block)[written:]
                    written += os.pwrite(self._descriptor, view, position + written)
            except OSError as error:
                raise self._no_room(error) from None
            position += len(block)
        assert position == run.end, "a source gives exactly what it was asked for"
        self._held = _united([*self._held, run])

    def _verify(self) -> None:
        """Checks the whole file against the digest that the server names."""
        expected = self._source.digest
        if expected is None:
            return
        found = expected.of(blocks_of_descriptor(self._descriptor), self._source.size)
        if found != expected.value:
            self._held = []
            raise HubAnswerError(
                f"the content has {expected.kind} digest {found}, the hub says {expected.value}",
                where=self._source.where,
                todo="do not load it",
            )

    def sha256(self) -> str:
        """Digest of the copy, which is the file's if it is whole."""
        return sha256_of_descriptor(self._descriptor)

    def hide(self) -> None:
        """Takes the name off the copy: what has it open keeps it, and nothing is left behind."""
        self.path.unlink(missing_ok=True)

    def _no_room(self, error: OSError) -> HubUnavailableError:
        return HubUnavailableError(
            f"cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}",
            where=self._source.where,
            todo="make room, or set TMPDIR to a larger place",
        )

    def close(self) -> None:
        """Removes the local copy."""
        self.hide()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _united(ranges: Iterable[Range]) -> list[Range]:
    """Sorted ranges, those that touch as one."""
    united: list[Range] = []
    for begin, end in sorted(ranges):
        if united and begin <= united[-1].end:
            united[-1] = Range(united[-1].begin, max(end, united[-1].end))
        elif begin < end:
            united.append(Range(begin, end))
    return united
