"""One file of a snapshot, fetched by ranges (`scanner.formats.stores.spool.ByteSource`).

Every answer is held against what the snapshot says: the commit, the content's digest, the
size, the range asked for, and one entity tag for all parts. An answer that does not fit is an
error, never numbers.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from threading import Lock
from urllib.parse import quote, urlsplit

from scanner.errors import (
    AccessDeniedError,
    HubAnswerError,
    HubUnavailableError,
    LimitExceededError,
)
from scanner.formats.stores.digest import ContentDigest
from scanner.hub.address import HubAddress
from scanner.hub.client import Answer, HubClient
from scanner.hub.snapshot import HubFile, Snapshot

_PART_BYTES = 64 * 2**10


class RemoteFile:
    """A file on the hub. Threads may share it.

    Args:
        client: Who asks for it.
        address: The file's address; its revision is a commit.
        file: What the snapshot says of it.
    """

    def __init__(self, client: HubClient, address: HubAddress, file: HubFile) -> None:
        self._client = client
        self._address = address
        self._file = file
        self._lock = Lock()
        self._direct: str | None = None
        self._etag: str | None = None

    @property
    def where(self) -> str:
        """The file's address."""
        return str(self._address)

    @property
    def size(self) -> int:
        """Its size, as the snapshot says."""
        return self._file.size

    @property
    def digest(self) -> ContentDigest:
        """What its content hashes to, as the snapshot says."""
        return self._file.digest

    @property
    def _url(self) -> str:
        place = self._address
        path = quote(place.folder)
        return f"{self._client.endpoint}/{place.repository}/resolve/{place.revision}/{path}"

    def blocks(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes of one range; what a broken connection left over is asked for again.

        Raises:
            HubError: If they cannot be had.
        """
        patience = self._client.patience()
        position = begin
        while position < end:
            before = position
            try:
                for block in self._attempt(position, end):
                    yield block
                    position += len(block)
            except HubUnavailableError as error:
                patience.after(error, position - before)

    def whole(self, limit: int) -> bytes:
        """All of a small file.

        Raises:
            LimitExceededError: If it is larger than `limit`.
            HubError: As `blocks`, or if the content is not what its digest names.
        """
        if self.size > limit:
            raise LimitExceededError(f"{self.size:,} bytes (limit {limit:,})", where=self.where)
        content = b"".join(self.blocks(0, self.size))
        if (found := self.digest.of([content], self.size)) != self.digest.value:
            raise self._other(f"its {self.digest.kind} digest is {found}")
        return content

    def _attempt(self, begin: int, end: int) -> Iterator[bytes]:
        """One request for a range. LFS storage is asked directly once the hub has led there."""
        direct = self._direct
        try:
            yield from self._request(direct or self._url, begin, end)
        except AccessDeniedError:
            if direct is None:
                raise
            self._direct = None  # a signed address expires; the hub gives another
            yield from self._request(self._url, begin, end)

    def _request(self, url: str, begin: int, end: int) -> Iterator[bytes]:
        is_all = begin == 0 and end == self.size
        headers = {} if is_all else {"Range": f"bytes={begin}-{end - 1}"}
        with self._client.answer(url, self.where, headers) as answer:
            skip = self._check(answer, begin, end)
            wanted = end - begin
            for block in answer.raw:
                part = block[skip:] if skip < len(block) else b""
                skip = max(0, skip - len(block))
                if len(part) > wanted and (is_all or answer.status == 206):
                    raise HubAnswerError("more bytes than were asked for", where=self.where)
                part = part[:wanted]
                wanted -= len(part)
                if part:
                    yield part
                if wanted == 0 and answer.status == 200 and not is_all:
                    break
            if wanted:
                raise HubUnavailableError(
                    f"an answer that ends {wanted:,} bytes too early", where=self.where
                )
            self._remember(answer)

    def _check(self, answer: Answer, begin: int, end: int) -> int:
        """Holds an answer's headers against the snapshot.

        Returns:
            How many bytes to leave out: a server that knows no ranges sends the whole file.
        """
        commit = answer.linked.get("X-Repo-Commit", self._address.revision)
        if commit != self._address.revision:
            raise self._other(f"it is of commit {commit}")
        linked = _tag(answer.linked.get("X-Linked-ETag"))
        # What the tag of a file is that git keeps, the hub does not promise; it is hashed anyway.
        if linked and self.digest.kind == "sha256" and linked != self.digest.value:
            raise self._other(f"its digest is {linked}, not {self.digest.value}")
        tag = _tag(answer.headers.get("ETag"))
        with self._lock:
            if self._etag is not None and tag != self._etag:
                raise self._other("its entity tag changed between two requests")
            self._etag = tag
        if answer.status == 206:
            told = answer.headers.get("Content-Range", "").strip()
            if told != f"bytes {begin}-{end - 1}/{self.size}":
                raise self._other(f"bytes {begin}-{end - 1} were asked for, {told[:80]!r} came")
            return 0
        length = answer.headers.get("Content-Length", str(self.size))
        if length != str(self.size):
            raise HubUnavailableError(
                f"an answer of {length[:40]} bytes, the file has {self.size}", where=self.where
            )
        return begin

    def _remember(self, answer: Answer) -> None:
        """Keeps the storage's address: the next range costs no request to the hub."""
        if urlsplit(answer.url)[:2] != urlsplit(self._client.endpoint)[:2]:
            self._direct = answer.url

    def _other(self, how: str) -> HubAnswerError:
        return HubAnswerError(
            f"the hub sent something else than it announced: {how[:300]}",
            where=self.where,
            todo="do not load it",
        )


def _tag(header: str | None) -> str | None:
    """An entity tag without its quotes and weakness."""
    return header.removeprefix("W/").strip('"') if header else None


def remote_file(client: HubClient, snapshot: Snapshot, path: str) -> RemoteFile:
    """One file of a snapshot."""
    return RemoteFile(client, snapshot.address.below(path), snapshot.files[path])


class RangeReader(io.BufferedIOBase):
    """A remote file as one that is read here and there, in parts of at least 64 KiB.

    Args:
        source: The file.
    """

    def __init__(self, source: RemoteFile) -> None:
        self._source = source
        self._at = 0
        self._part = b""
        self._part_at = 0

    def seekable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves there; nothing is fetched."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._source.size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes, fetched if they are not here.

        Raises:
            HubError: If they cannot be had.
        """
        left = max(self._source.size - self._at, 0)
        count = left if size is None or size < 0 else min(size, left)
        begin = self._at - self._part_at
        if count and not 0 <= begin <= begin + count <= len(self._part):
            end = min(max(self._at + count, self._at + _PART_BYTES), self._source.size)
            # The end of an archive is read in small steps backwards: its directory at once.
            begin = max(end - _PART_BYTES, 0) if end == self._source.size else self._at
            self._part_at = min(begin, self._at)
            self._part = b"".join(self._source.blocks(self._part_at, end))
            begin = self._at - self._part_at
        self._at += count
        return self._part[begin : begin + count]
