"""``hf://owner/name[@revision][/subfolder]``, as users write it and reports repeat it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from scanner.errors import UnreadableFileError, UsageError

SCHEME = "hf://"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SPECIAL_REVISION = re.compile(r"@(refs/(?:pr/[0-9]+|convert/[A-Za-z0-9_.-]+))(?=/|$)")
"""Revisions whose slashes need no quoting, as in huggingface_hub's own addresses."""
_PAGE = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(.+)", re.IGNORECASE)
"""A page of the hub, as copied from a browser."""
_VIEW = re.compile(
    r"([^/]+/[^/]+)/(?:tree|blob|resolve)/(refs/(?:pr|convert)/[^/]+|[^/]+)(?:/(.+))?"
)
"""The pages of a repository that name a revision."""
_NOT_MODELS = frozenset({"datasets", "spaces", "collections", "papers", "docs", "blog", "api"})


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


def meant_address(text: str) -> HubAddress | None:
    """The address that somebody means who writes a page of the hub, or ``owner/name``.

    Returns:
        The address; None if the text is like neither.
    """
    text = text.strip().partition("?")[0].partition("#")[0].rstrip("/")
    page = _PAGE.fullmatch(text)
    rest = page[1] if page else re.sub(r"^hf:(?://?)?", "", text)
    if rest.partition("/")[0].lower() in _NOT_MODELS:
        return None
    if page and (view := _VIEW.fullmatch(rest)):
        rest = f"{view[1]}@{quote(unquote(view[2]), safe='')}" + (f"/{view[3]}" if view[3] else "")
    elif rest.count("/") != 1:
        return None
    try:
        return parse_address(SCHEME + rest)
    except UsageError:
        return None


def refuse_mistaken(target: str) -> None:
    """Refuses a target that is not on this machine and looks as if it was meant to be on the hub.

    Raises:
        UnreadableFileError: With the address to write, or that nothing is read from a web page.
    """
    if os.path.lexists(target):
        return
    if address := meant_address(target):
        raise UnreadableFileError(
            "no such file or directory",
            where=target[:200],
            todo=f"check the path; an adapter on the hub is written {address}",
        )
    if re.match(r"https?://", target, re.IGNORECASE):
        raise UnreadableFileError(
            "is the address of a web page",
            where=target[:200],
            todo="download it first, or write hf://owner/name for an adapter on the hub",
        )


def _malformed(text: str, what: str) -> UsageError:
    return UsageError(what, where=text[:200], todo="write hf://owner/name[@revision][/subfolder]")
