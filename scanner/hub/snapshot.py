"""An address -> one commit of its repository, and what each file in it is, by one request.

Digests come from the hub: the sha256 under which its LFS storage keeps a file, and git's
blob id for the small files that git itself keeps. They are known before any file is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

import msgspec

from scanner.errors import HubAnswerError, HubUnavailableError
from scanner.formats.stores.digest import ContentDigest
from scanner.hub.address import HubAddress
from scanner.hub.client import HubClient

MAX_INFO_BYTES = 64 * 2**20
"""The description of a repository; the largest honest ones list 100,000 files."""

_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_PATH = 4096


@dataclass(frozen=True)
class HubFile:
    """One file of a snapshot."""

    path: str
    """Path of the file, relative to the repository's root."""
    size: int
    sha256: str | None
    """The content's digest, on the hub's word; None for a file that git itself keeps."""
    blob_id: str
    """Git's id: of the content, or of the LFS pointer, which holds the content's digest."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The path without its last part; empty at the root."""
        return self.path.rpartition("/")[0]

    @property
    def digest(self) -> ContentDigest:
        """What tells this content from any other."""
        if self.sha256 is not None:
            return ContentDigest("sha256", self.sha256)
        return ContentDigest("git", self.blob_id)


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit."""

    address: HubAddress
    """What was asked for, with the commit as its revision."""
    files: Mapping[str, HubFile]
    """Path of each file -> what the hub says of it."""

    @property
    def commit(self) -> str:
        """The commit's id."""
        assert self.address.revision is not None, "a snapshot is pinned"
        return self.address.revision

    @cached_property
    def folders(self) -> Mapping[str, Mapping[str, HubFile]]:
        """Folder -> name -> file, of those directly in it; empty is the repository's root."""
        found: dict[str, dict[str, HubFile]] = {}
        for file in self.files.values():
            found.setdefault(file.folder, {})[file.name] = file
        return found


class _Lfs(msgspec.Struct, frozen=True):
    sha256: str
    size: int


class _Sibling(msgspec.Struct, frozen=True, rename="camel"):
    rfilename: str
    size: int = 0
    blob_id: str = ""
    lfs: _Lfs | None = None


class _Info(msgspec.Struct, frozen=True):
    sha: str
    siblings: list[_Sibling] = []


def take_snapshot(address: HubAddress, client: HubClient) -> Snapshot:
    """Looks up the commit an address stands for now, and the files at it.

    Raises:
        HubError: If there is no such repository or revision, the token does not open it, the
            hub cannot be reached, or its answer is malformed.
    """
    url = f"{client.endpoint}/api/models/{address.repository}"
    if address.revision is not None:
        url += f"/revision/{quote(address.revision, safe='')}"
    where = str(address)
    info = _ask(client, f"{url}?blobs=true", where)
    if not _SHA1.fullmatch(info.sha):
        raise HubAnswerError("the hub names no commit", where=where)
    if address.is_pinned and info.sha != address.revision:
        raise HubAnswerError(f"the hub answers with another commit, {info.sha}", where=where)
    files = {item.rfilename: _file(item, where) for item in info.siblings}
    if len(files) != len(info.siblings):
        raise HubAnswerError("the hub lists a file twice", where=where)
    return Snapshot(address.at(info.sha), files)


def _ask(client: HubClient, url: str, where: str) -> _Info:
    """The hub's description of a repository; a network's sign-in page may pass."""
    patience = client.patience()
    while True:
        raw = client.body(url, where, MAX_INFO_BYTES)
        try:
            return msgspec.json.decode(raw, type=_Info)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            error = HubUnavailableError(
                "the answer is no description of a repository",
                where=where,
                todo="check HF_ENDPOINT, and whether the network wants you to sign in",
            )
            patience.after(error)


def _file(item: _Sibling, where: str) -> HubFile:
    """One file's record, checked: names become paths on this machine."""
    path = item.rfilename
    parts = path.split("/")
    if len(path) > _MAX_PATH or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise HubAnswerError(f"the hub lists a file named {path[:200]!r}", where=where)
    size = item.lfs.size if item.lfs else item.size
    sha256 = item.lfs.sha256 if item.lfs else None
    known = _SHA1.fullmatch(item.blob_id) if sha256 is None else _SHA256.fullmatch(sha256)
    if size < 0 or not known:
        raise HubAnswerError(f"the hub's record of {path[:200]!r} is malformed", where=where)
    return HubFile(path, size, sha256, item.blob_id)
