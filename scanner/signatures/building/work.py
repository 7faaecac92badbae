"""The working folder of a build that may take hours: what a later run goes on with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from scanner.errors import SignatureError
from scanner.system.files import write_whole
from scanner.version import version

Document = TypeVar("Document", bound=msgspec.Struct)

LOCK = "lock"
NULLING_STATE = "nulling.safetensors"
"""What the nulling set has in common so far."""
NOT_NULLED_WITH = "left-out-aligned.json"
"""What was left out of the nulling set so far, and why."""
SCORED = "scored.jsonl"
"""What the calibration set scored so far."""
KEPT = (NULLING_STATE, NOT_NULLED_WITH, SCORED, "listed-aligned.json", "listed-benign.json")


class Work:
    """A folder of things made on the way, each marked with what it was made from.

    Args:
        root: The folder.
        about: Digest of everything that decides what is made, such as the recipe. Whatever was
            made from something else is made anew.
    """

    def __init__(self, root: Path, about: str) -> None:
        self.root = root
        self.about = about

    def path(self, name: str) -> Path:
        """Where something is kept."""
        return self.root / name

    def read(self, name: str, kind: type[Document]) -> Document | None:
        """A document that an earlier run kept; None if there is none of this build."""
        try:
            kept = msgspec.json.decode(self.path(name).read_bytes(), type=_Kept)
            return msgspec.convert(kept.content, kind) if kept.about == self.about else None
        except (OSError, msgspec.MsgspecError):
            return None

    def finish(self) -> None:
        """Removes what was kept, once the pack that it was kept for is written."""
        for name in KEPT:
            self.path(name).unlink(missing_ok=True)

    def write(self, name: str, document: msgspec.Struct) -> None:
        """Keeps a document."""
        kept = _Kept(self.about, msgspec.to_builtins(document))
        write_whole(self.path(name), msgspec.json.encode(kept), durable=False)


class _Kept(msgspec.Struct, frozen=True):
    """A document with what it was made from."""

    about: str
    content: object


def digest_of(*parts: object) -> str:
    """sha256 over anything msgspec can write, and over this program's version."""
    return hashlib.sha256(msgspec.json.encode([version(), *parts])).hexdigest()


@contextmanager
def opened_work(root: Path | None, about: str) -> Iterator[Work | None]:
    """A working folder that no other process uses meanwhile.

    Args:
        root: The folder; nothing is kept if None.
        about: As `Work`.

    Raises:
        SignatureError: If another process is using it, or it cannot be written.
    """
    if root is None:
        yield None
        return
    from filelock import FileLock, Timeout

    lock = FileLock(root / LOCK)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise SignatureError(
            "another process is working here", where=str(root), todo="wait for it, or name another"
        ) from None
    except OSError as error:
        raise SignatureError(
            f"cannot be written: {error.strerror or error}", where=str(root)
        ) from None
    try:
        yield Work(root, about)
    finally:
        lock.release()
    left = [path for path in root.iterdir() if path.name != LOCK]
    if not left:
        (root / LOCK).unlink(missing_ok=True)
        with suppress(OSError):
            root.rmdir()
