"""Packs from elsewhere: a folder on the hub, a folder or an archive on the web.

A pack is pinned by its digest, which the caller has from whom they trust: the sha256 of
`signature.yaml`, which holds the digests of all other files. Nothing stands where scans look
for packs before all of it has been checked.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from scanner.errors import (
    HubAnswerError,
    HubUnavailableError,
    NotOnHubError,
    SignatureError,
    TargetError,
    option,
)
from scanner.hub.address import HubAddress, is_address, parse_address
from scanner.hub.client import HubClient, is_loopback
from scanner.hub.remote_file import remote_file
from scanner.hub.snapshot import Snapshot, take_snapshot
from scanner.signatures.distribution.archive import ARCHIVE_SUFFIXES, MAX_UNPACKED_BYTES, Archive
from scanner.signatures.distribution.signing import (
    MAX_SIGNATURE_BYTES,
    SIGNATURE_NAME,
    verify_pack_signature,
)
from scanner.signatures.manifest import MANIFEST_NAME, decode_manifest
from scanner.signatures.pack import Signature, load_signature, plain_names, read_signature
from scanner.signatures.saving import replacing
from scanner.system.folders import packs_folder

MAX_MANIFEST_BYTES = 64 * 2**20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PACK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class PackSource(Protocol):
    """Where a pack's files are."""

    def blocks(self, name: str) -> Iterator[bytes] | None:
        """One file's content; None if it is known not to be there.

        Raises:
            TargetError: If it cannot be had.
            SignatureError: If the source is damaged.
        """


@dataclass(frozen=True)
class Pull:
    """What is to be pulled, and how it is to be checked."""

    source: str
    digest: str
    """sha256 of the pack's signature.yaml."""
    public_key: Path | None = None
    """If given, the pack must be signed by the holder of this key."""
    output: Path | None = None
    """Where to put it; among the user's packs, under its own id, by default."""
    replace: bool = False
    """Whether another pack may stand there."""


def pull_pack(pull: Pull, client: HubClient | None = None) -> Signature:
    """Fetches a pack, checks it, and puts it where scans find it.

    Args:
        pull: What to pull.
        client: Who asks; a new one by default.

    Returns:
        The pack in its place.

    Raises:
        SignatureError: If it cannot be fetched, is not the pack the digest names, or is not
            signed as it should be. Nothing is put in place then.
    """
    if not _DIGEST.fullmatch(pull.digest):
        raise SignatureError(
            "is no sha256", where=option("digest", pull.digest[:80]), todo="64 hexadecimal digits"
        )
    client = client or HubClient()
    try:
        with _opened(pull.source, client) as source:
            return _install(pull, source)
    except TargetError as error:
        raise SignatureError(
            f"cannot be fetched: {error.what}", where=error.where, todo=error.todo
        ) from None


def _install(pull: Pull, source: PackSource) -> Signature:
    raw = b"".join(_bounded(source, MANIFEST_NAME, MAX_MANIFEST_BYTES, pull.source))
    if (found := hashlib.sha256(raw).hexdigest()) != pull.digest:
        raise SignatureError(
            f"the pack has digest {found}, not {pull.digest}",
            where=pull.source,
            todo="do not use it, or ask its maker for the right digest",
        )
    manifest = decode_manifest(raw, Path(MANIFEST_NAME))
    names = plain_names(manifest, pull.source)
    root = pull.output or packs_folder() / _own_name(manifest.id, pull.source)
    if (root / MANIFEST_NAME).is_file() and not pull.replace:
        present = read_signature(root)
        if present.digest != pull.digest:
            raise SignatureError(
                f"another pack stands there already ({present.digest})",
                where=str(root),
                todo=f"say {option('replace')}, or another place with {option('output')}",
            )
    with replacing(root) as new:
        left = MAX_UNPACKED_BYTES
        for name in names:
            left -= _write(new / name, _bounded(source, name, left, pull.source))
        (new / MANIFEST_NAME).write_bytes(raw)
        if (content := _optional(source, SIGNATURE_NAME)) is not None:
            _write(new / SIGNATURE_NAME, _limited(content, MAX_SIGNATURE_BYTES, pull.source))
        load_signature(new).close()
        if pull.public_key is not None:
            verify_pack_signature(new, pull.public_key)
    return load_signature(root)


def _own_name(pack_id: str, where: str) -> str:
    if not _PACK_NAME.fullmatch(pack_id):
        raise SignatureError(
            f"its id {pack_id[:80]!r} is no name for a directory",
            where=where,
            todo=f"say where to put it with {option('output')}",
        )
    return pack_id


def _write(path: Path, content: Iterator[bytes]) -> int:
    try:
        with path.open("xb") as file:
            return sum(file.write(block) for block in content)
    except OSError as error:
        raise SignatureError(
            f"cannot be written: {error.strerror or error}", where=str(path)
        ) from None


def _bounded(source: PackSource, name: str, limit: int, where: str) -> Iterator[bytes]:
    content = source.blocks(name)
    if content is None:
        raise SignatureError(f"has no {name}", where=where, todo="name a pack's folder or archive")
    return _limited(content, limit, where)


def _optional(source: PackSource, name: str) -> Iterator[bytes] | None:
    try:
        content = source.blocks(name)
        first = next(content, b"") if content is not None else None
    except NotOnHubError:
        return None
    if content is None or first is None:
        return None
    return _with_first(first, content)


def _with_first(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _limited(content: Iterator[bytes], limit: int, where: str) -> Iterator[bytes]:
    received = 0
    for block in content:
        received += len(block)
        if received > limit:
            raise SignatureError("is too large for a pack", where=where)
        yield block


@contextmanager
def _opened(source: str, client: HubClient) -> Iterator[PackSource]:
    """The source a user names.

    Raises:
        SignatureError: If it is of no kind that is pulled from.
        TargetError: If it cannot be fetched.
    """
    if is_address(source):
        snapshot = take_snapshot(parse_address(source), client)
        yield _HubFolder(client, snapshot, snapshot.address)
        return
    parts = urlsplit(source)
    plain = parts.scheme == "http" and is_loopback(parts.hostname)
    if (parts.scheme != "https" and not plain) or not parts.hostname:
        raise SignatureError(
            "is neither hf:// nor https://",
            where=source[:200],
            todo="plain http is for this machine alone",
        )
    if not parts.path.endswith(ARCHIVE_SUFFIXES):
        yield _WebFolder(client, source.removesuffix(MANIFEST_NAME).rstrip("/"))
        return
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="adapter-scanner-"))
        path = Path(scratch) / "archive"
        _write(path, _limited(_fetched(client, source), MAX_UNPACKED_BYTES, source))
        archive = Archive(path, source)
        stack.callback(archive.close)
        yield archive


@dataclass(frozen=True)
class _HubFolder:
    """A folder of a repository."""

    client: HubClient
    snapshot: Snapshot
    address: HubAddress

    def blocks(self, name: str) -> Iterator[bytes] | None:
        path = f"{self.address.folder}/{name}".lstrip("/")
        if path not in self.snapshot.files:
            return None
        file = remote_file(self.client, self.snapshot, path)
        return file.blocks(0, file.size)


@dataclass(frozen=True)
class _WebFolder:
    """A folder on any web server."""

    client: HubClient
    url: str

    def blocks(self, name: str) -> Iterator[bytes] | None:
        return _fetched(self.client, f"{self.url}/{quote(name)}")


def _fetched(client: HubClient, url: str) -> Iterator[bytes]:
    """The content of a URL; what a broken connection left over is asked for again.

    Raises:
        TargetError: If it cannot be had.
    """
    patience = client.patience()
    received = 0
    while True:
        before = received
        try:
            for block in _rest(client, url, received):
                yield block
                received += len(block)
            return
        except HubUnavailableError as error:
            patience.after(error, received - before)


def _rest(client: HubClient, url: str, start: int) -> Iterator[bytes]:
    """The content of a URL from one position on."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    with client.answer(url, url, headers) as answer:
        told = answer.headers.get("Content-Range", "")
        if start and not (answer.status == 206 and told.startswith(f"bytes {start}-")):
            raise HubAnswerError("the connection broke and the server cannot go on", where=url)
        received = 0
        for block in answer.raw:
            received += len(block)
            yield block
        claimed = answer.headers.get("Content-Length", "")
        if claimed.isdigit() and int(claimed) != received:
            raise HubUnavailableError("an answer that ends too early", where=url)
