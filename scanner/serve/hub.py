"""Models on the Hugging Face hub: fetched at a commit, their verdicts written as comments.

A repository has one discussion for its verdicts, opened by this server's own account, with a
comment for each commit. A comment carries a marker that names its commit: before one is
written the discussion is searched for it, so that a commit has one comment however often the
server was killed between writing and recording that it has written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from scanner.errors import (
    LimitExceededError,
    MalformedFileError,
    NothingToScanError,
    UnreadableFileError,
)
from scanner.gates.attestation import now
from scanner.gates.policy import Access, Action, Policy, decide
from scanner.serve.events import Subject
from scanner.serve.platforms import JudgedSubject, UnreachableError, WriteRefusedError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PRELOADED = ("huggingface_hub.hf_api", "huggingface_hub.file_download")
ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Its own threads and its cache know nothing of a worker's limits.
    "HF_HUB_DISABLE_XET": "1",
}
"""Set, where nobody else has, before huggingface_hub is imported here or in a worker."""
TITLE = "Adapter scan: verdicts"

_INTRODUCTION = (
    "Every commit pushed to this repository is scanned for known misalignment directions. "
    "The verdicts follow as comments."
)
_LONGEST_COMMENT = 30_000
_GONE = (404, 410)
_REQUEST_SECONDS = 60.0
"""huggingface_hub's own client waits for ever."""


def fetch(subject: Subject, directory: Path, most_bytes: int, permit: str | None) -> int | None:
    """Fetches every file of a commit; see `scanner.serve.platforms.Fetch`."""
    del permit  # the hub's own token is read where huggingface_hub reads it
    from huggingface_hub import HfApi

    with _translated(subject):
        info = HfApi().model_info(subject.name, revision=subject.revision, files_metadata=True)
    files = {item.rfilename: item.size or 0 for item in info.siblings or []}
    if not files:
        raise NothingToScanError("the repository is empty at this commit", where=subject.label)
    if (total := sum(files.values())) > most_bytes:
        raise LimitExceededError(
            f"{total} bytes, more than the {most_bytes} a worker fetches", where=subject.label
        )
    for name in files:
        _fetch_file(subject, name, directory)
    return None


def _fetch_file(subject: Subject, name: str, directory: Path) -> None:
    """Fetches one file, as a plain file of its own.

    Raises:
        UnreachableError: If the hub does not answer.
        TargetError: If the name leads out of the directory, or the file is not there.
    """
    from huggingface_hub import hf_hub_download

    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise MalformedFileError(f"a file is called {name!r}", where=subject.label)
    target = directory / path
    cache = directory.parent / "cache"
    with _translated(subject):
        found = hf_hub_download(subject.name, name, revision=subject.revision, cache_dir=cache)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(os.path.realpath(found), target)


@contextmanager
def _translated(subject: Subject) -> Iterator[None]:
    """Turns what huggingface_hub raises into what it means for a fetch.

    Raises:
        UnreachableError: If the same may succeed later.
        TargetError: If it will not.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) in (errno.EFBIG, errno.ENOSPC):
            raise LimitExceededError("a file is larger than allowed", where=subject.label) from None
        status = _status(error)
        if status in _GONE:
            raise UnreadableFileError(
                "not on the hub, or not for this token", where=subject.label
            ) from None
        raise UnreachableError(_line(error), where=subject.label) from None


def _status(error: Exception) -> int | None:
    """The HTTP status behind an error of huggingface_hub's, if an answer came at all."""
    cause: BaseException | None = error
    while cause is not None:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        cause = cause.__cause__
    return None


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}"


@dataclass(frozen=True)
class HubWriter:
    """Comments verdicts; see `scanner.serve.platforms.WriteBack`."""

    policy: Policy

    def __call__(self, subject: Subject, judged: JudgedSubject) -> None:
        """Comments one verdict, unless that has been done."""
        from huggingface_hub import HfApi, get_session

        try:
            get_session().timeout = _REQUEST_SECONDS
            _comment_once(HfApi(), subject, _comment(subject, judged, self.policy))
        except Exception as error:
            if _status(error) in _GONE:
                raise WriteRefusedError(
                    "the repository is gone, or closed to this token", where=subject.label
                ) from None
            raise UnreachableError(_line(error), where=subject.label) from None


def _comment_once(api: HfApi, subject: Subject, comment: str) -> None:
    author = api.whoami()["name"]
    number = _own_discussion(api, subject.name, author)
    if number is None:
        made = api.create_discussion(subject.name, TITLE, description=_INTRODUCTION)
        number = made.num
    events: list[Any] = api.get_discussion_details(subject.name, number).events
    marker = _marker(subject)
    if any(event.author == author and marker in _content(event) for event in events):
        return
    api.comment_discussion(subject.name, number, comment)


def _own_discussion(api: HfApi, name: str, author: str) -> int | None:
    """The number of the discussion this account keeps for verdicts."""
    discussions = api.get_repo_discussions(
        name, author=author, discussion_type="discussion", discussion_status="open"
    )
    return next((item.num for item in discussions if item.title == TITLE), None)


def _content(event: Any) -> str:
    return str(getattr(event, "content", ""))


def _marker(subject: Subject) -> str:
    return f"<!-- adapter-scanner verdict {subject.revision} -->"


def _comment(subject: Subject, judged: JudgedSubject, policy: Policy) -> str:
    """The verdict as Markdown; nothing that comes from the repository can form markup."""
    from scanner.reports import renderer
    from scanner.reports.markdown_report import escape

    text = renderer("markdown")(judged.report)
    if len(text) > _LONGEST_COMMENT:
        text = text[: text.rindex("\n", 0, _LONGEST_COMMENT)] + "\n\nShortened.\n"
    allowed, reason = _decision(judged, policy)
    words = f"The policy {'lets' if allowed else 'does not let'} it pass: {escape(reason)}."
    return f"{_marker(subject)}\nCommit `{subject.revision}`. {words}\n\n{text}"


def _decision(judged: JudgedSubject, policy: Policy) -> tuple[bool, str]:
    """What the policy makes of a verdict, and why."""
    attestation = judged.attestation
    if attestation is None:
        return False, "it could not be read"
    access = Access(Action.PUSH, attestation.subject)
    decision = decide(policy, access, attestation, None, now())
    return decision.allowed, decision.reason
