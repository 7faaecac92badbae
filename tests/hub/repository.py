"""What the test hub serves: repositories, their files and what the hub's API says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

Content = bytes | Path
"""A file's bytes, or the local file that holds them (large ones are not kept in memory)."""
Files = Mapping[str, Content]

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".gguf", ".npz", ".tar", ".zip")
"""Files the hub keeps in LFS, as its default .gitattributes does."""
_POINTER = b"version https://git-lfs"
_BLOCK_BYTES = 2**20
_EPOCH = datetime(2024, 1, 1, tzinfo=timezone.utc)


def read_range(content: Content, start: int, count: int) -> bytes:
    """Some bytes of a file."""
    if isinstance(content, bytes):
        return content[start : start + count]
    with content.open("rb") as file:
        file.seek(start)
        return file.read(count)


def size_of(content: Content) -> int:
    """A file's size."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


@lru_cache(maxsize=100_000)
def _digests(content: Content) -> tuple[str, str]:
    """sha256 of a file, and the id git gives it as a blob."""
    size = size_of(content)
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    for start in range(0, size, _BLOCK_BYTES):
        block = read_range(content, start, _BLOCK_BYTES)
        sha256.update(block)
        blob.update(block)
    return sha256.hexdigest(), blob.hexdigest()


@dataclass(frozen=True)
class StoredFile:
    """One file of one revision."""

    path: str
    content: Content

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return size_of(self.content)

    @property
    def sha256(self) -> str:
        """Digest of the content."""
        return _digests(self.content)[0]

    @property
    def is_lfs(self) -> bool:
        """Whether git holds a pointer, and the hub's LFS storage the content.

        A pointer that was committed as it is (by a push without git-lfs) is an ordinary file.
        """
        return self.path.endswith(LFS_SUFFIXES) and not read_range(
            self.content, 0, len(_POINTER)
        ).startswith(_POINTER)

    @property
    def pointer(self) -> bytes:
        """What git holds of an LFS file."""
        text = f"{_POINTER.decode()}.github.com/spec/v1\noid sha256:{self.sha256}\n"
        return f"{text}size {self.size}\n".encode()

    @property
    def blob_id(self) -> str:
        """The id of git's blob: the pointer's for an LFS file."""
        return _digests(self.pointer)[1] if self.is_lfs else _digests(self.content)[1]

    @property
    def etag(self) -> str:
        """What the hub gives as the entity tag."""
        return self.sha256 if self.is_lfs else self.blob_id

    def lfs_record(self, oid: str) -> dict[str, Any]:
        """The API's record of an LFS file; its answers differ in what they call the digest."""
        return {oid: self.sha256, "size": self.size, "pointerSize": len(self.pointer)}

    def sibling(self, blobs: bool) -> dict[str, Any]:
        """The record of `model_info`."""
        if not blobs:
            return {"rfilename": self.path}
        record = {"rfilename": self.path, "blobId": self.blob_id, "size": self.size}
        return {**record, "lfs": self.lfs_record("sha256")} if self.is_lfs else record

    def tree_entry(self) -> dict[str, Any]:
        """The record of the tree and of paths-info."""
        record = {"type": "file", "oid": self.blob_id, "size": self.size, "path": self.path}
        return {**record, "lfs": self.lfs_record("oid")} if self.is_lfs else record


@dataclass(frozen=True)
class Repository:
    """One model repository, declared."""

    id: str
    """``owner/name``."""
    files: Files
    """Path -> content, at the head of `main`."""
    base_model: str | None = None
    """What the model card names as its base; makes the hub's ``base_model:`` tags."""
    relation: str = "adapter"
    """How it derives from the base: adapter, finetune, quantized, merge."""
    tags: tuple[str, ...] = ()
    gated: Literal["auto", "manual"] | None = None
    private: bool = False
    last_modified: datetime = _EPOCH
    created: datetime = _EPOCH
    downloads: int = 0
    revisions: Mapping[str, Files] = field(default_factory=dict)
    """Other branches and tags -> their files."""
    disabled: bool = False

    @property
    def author(self) -> str:
        """The owner."""
        return self.id.partition("/")[0]

    @property
    def all_tags(self) -> list[str]:
        """Tags as the hub makes them."""
        made = ["peft", "safetensors"] if self.relation == "adapter" else ["transformers"]
        if self.base_model:
            made += [f"base_model:{self.base_model}"]
            made += [f"base_model:{self.relation}:{self.base_model}"]
        return [*made, *self.tags]

    def files_at(self, revision: str) -> tuple[str, dict[str, StoredFile]] | None:
        """A revision's commit and files: a branch, a tag or a commit; None if there is none."""
        named: dict[str, Files] = {"main": self.files, **self.revisions}
        for name, files in named.items():
            commit = self.commit_of(files)
            if revision in (name, commit):
                return commit, {path: StoredFile(path, files[path]) for path in sorted(files)}
        return None

    def commit_of(self, files: Files) -> str:
        """A commit id that depends on the content alone."""
        digest = hashlib.sha1(self.id.encode())
        for path in sorted(files):
            digest.update(f"{path}\0{_digests(files[path])[0]}\n".encode())
        return digest.hexdigest()

    @property
    def head(self) -> str:
        """The commit of `main`."""
        return self.commit_of(self.files)

    def info(self, revision: str = "main", *, full: bool, blobs: bool = False) -> dict[str, Any]:
        """What the API says of it; `full` is what a listing leaves out unless asked."""
        found = self.files_at(revision)
        assert found is not None, "the revision was looked up before"
        commit, files = found
        record: dict[str, Any] = {
            "_id": hashlib.sha1(self.id.encode()).hexdigest()[:24],
            "id": self.id,
            "modelId": self.id,
            "private": self.private,
            "tags": self.all_tags,
            "downloads": self.downloads,
            "likes": 0,
            "library_name": "peft" if self.relation == "adapter" else "transformers",
            "createdAt": _stamp(self.created),
        }
        if full:
            record |= {
                "author": self.author,
                "sha": commit,
                "lastModified": _stamp(self.last_modified),
                "gated": self.gated or False,
                "disabled": self.disabled,
                "siblings": [file.sibling(blobs) for file in files.values()],
            }
        return record


def _stamp(time: datetime) -> str:
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
