"""``hf://owner/name[@revision][/subfolder]``, as users write it and reports repeat it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from scanner.errors import UsageError

SCHEME = "hf://"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SPECIAL_REVISION = re.compile(r"@(refs/(?:pr/[0-9]+|convert/[A-Za-z0-9_.-]+))(?=/|$)")
"""Revisions whose slashes need no quoting, as in huggingface_hub's own addresses."""


@dataclass(frozen=True)
class HubAddress:
    """A place on the hub."""

    repository: str
    """``owner/name``."""
    revision: str | None = None
    """A branch, a tag or a commit; None for the repository's default branch."""
    folder: str = ""
    """Path below the repository, of a folder or of one weight file; empty for all of it."""

    def __str__(self) -> str:
        """The canonical form, which `parse_address` reads back."""
        text = f"{SCHEME}{self.repository}"
        if self.revision is not None:
            plain = _SPECIAL_REVISION.fullmatch(f"@{self.revision}") is not None
            text += f"@{self.revision if plain else quote(self.revision, safe='')}"
        return f"{text}/{self.folder}" if self.folder else text

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit: what it names can never change."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def at(self, revision: str | None) -> HubAddress:
        """The same place at another revision."""
        return replace(self, revision=revision)

    def below(self, folder: str) -> HubAddress:
        """Another place in the same repository and revision."""
        return replace(self, folder=folder)


def is_address(target: str) -> bool:
    """Whether a target is meant to be on the hub."""
    return target.startswith(SCHEME)


def parse_address(text: str) -> HubAddress:
    """Parses an address.

    Raises:
        UsageError: If it is none.
    """
    if not is_address(text):
        raise _malformed(text, "does not start with hf://")
    rest = text.removeprefix(SCHEME)
    if special := _SPECIAL_REVISION.search(rest):
        rest = rest.replace(special[0], f"@{quote(special[1], safe='')}", 1)
    owner, _, rest = rest.partition("/")
    name, _, folder = rest.partition("/")
    name, at, revision = name.partition("@")
    if not _NAME.fullmatch(owner) or not _NAME.fullmatch(name):
        raise _malformed(text, "names no repository")
    revision = unquote(revision)
    if at and (not revision or not revision.isprintable() or " " in revision):
        raise _malformed(text, "names no revision after the @")
    folder = folder.rstrip("/")
    parts = folder.split("/") if folder else []
    if any(part in ("", ".", "..") for part in parts) or not folder.isprintable():
        raise _malformed(text, "has a subfolder that is none")
    return HubAddress(f"{owner}/{name}", revision if at else None, folder)


def _malformed(text: str, what: str) -> UsageError:
    return UsageError(what, where=text[:200], todo="write hf://owner/name[@revision][/subfolder]")
