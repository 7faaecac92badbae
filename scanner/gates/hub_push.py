"""A directory -> the hub, if the policy lets it, byte for byte as it was scanned.

Everything is copied to a directory of this process's own first; that copy is scanned, and that
copy is uploaded, so nothing that happens to the original in the meantime matters. After the
commit the hub is asked what it holds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scanner.errors import MalformedFileError, RegistryError, UnreadableFileError, first_line
from scanner.formats.rules import WEIGHT_SUFFIXES
from scanner.formats.stores.opened import sha256_of_file
from scanner.gates.artifact import artifact_files
from scanner.gates.attestation import Attestation
from scanner.gates.judgement import Judgement
from scanner.gates.model_card import verdict_section, with_section
from scanner.gates.policy import Decision
from scanner.reports import renderer

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
REPORT = "adapter-scan/report.json"
VERDICT = "adapter-scan/verdict.json"
WRITTEN = (CARD, REPORT, VERDICT)
"""What the gate writes itself; not part of the artifact's digest."""
_LEFT_OUT = (".git", ".cache/huggingface")
"""Folders that git and huggingface_hub keep beside a model; never uploaded."""


class VerdictFile(msgspec.Struct, frozen=True, kw_only=True):
    """`VERDICT`: the record, and the same signed if there was a key."""

    verdict: Attestation
    token: str | None
    override: str | None
    """The reason and the person of the override, if the push needed one."""


@dataclass(frozen=True)
class Upload:
    """The files that one commit uploads."""

    judgement: Judgement
    decision: Decision
    token: str | None
    revision: str
    private: bool


def verdict_file(judgement: Judgement, token: str | None, decision: Decision) -> str:
    """Content of the file `VERDICT`."""
    override = decision.reason if decision.overridden_by else None
    record = VerdictFile(verdict=judgement.attestation, token=token, override=override)
    return msgspec.json.format(msgspec.json.encode(record, order="sorted")).decode() + "\n"


def snapshot(source: Path, target: Path) -> None:
    """Copies a directory's files, links resolved, without what the gate writes itself.

    Raises:
        UnreadableFileError: If something cannot be read.
        MalformedFileError: If a link leads out of the directory, or something is no file.
    """
    if not source.is_dir():
        raise UnreadableFileError("no such directory", where=str(source))
    root = source.resolve()
    for name, path in _files(source):
        if name in WRITTEN or name.startswith(tuple(f"{folder}/" for folder in _LEFT_OUT)):
            continue
        if not path.resolve().is_relative_to(root):
            raise MalformedFileError("a link that leads out of the directory", where=str(path))
        if not path.is_file():
            raise MalformedFileError("not a plain file", where=str(path))
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, target / name)
        except OSError as error:
            raise UnreadableFileError(
                f"cannot be read: {error.strerror or error}", where=str(path)
            ) from None


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    def unreadable(error: OSError) -> None:
        raise UnreadableFileError(f"cannot be listed: {error.strerror}", where=str(error.filename))

    for directory, folders, names in os.walk(root, onerror=unreadable, followlinks=False):
        for name in folders:
            path = Path(directory, name)
            if path.is_symlink():
                raise MalformedFileError("a linked directory", where=str(path))
            if path.relative_to(root).as_posix() in WRITTEN:
                raise MalformedFileError("a directory in the place of a file", where=str(path))
        for name in sorted(names):
            path = Path(directory, name)
            yield path.relative_to(root).as_posix(), path


def upload(files: Path, card: Path, repository: str, what: Upload, api: HfApi) -> str:
    """Commits the scanned files with the report and the card's section.

    Args:
        files: The scanned copy; the card and the report are added to it.
        card: The directory's own model card, which may not exist.
        repository: ``owner/name``; created if there is none.
        what: The verdict and how to upload.
        api: The hub.

    Returns:
        The commit's address.

    Raises:
        RegistryError: If the hub refuses, holds weights that were not scanned, or after the
            commit does not hold what was uploaded.
    """
    from huggingface_hub import CommitOperationAdd

    with _hub_errors(repository):
        api.create_repo(repository, exist_ok=True, private=what.private or None)
        head = str(api.model_info(repository, revision=what.revision).sha)
        there = {
            item.path for item in api.list_repo_tree(repository, recursive=True, revision=head)
            if hasattr(item, "blob_id")
        }  # fmt: skip
        _refuse_strangers(files, there, repository)
        _write_own(files, _card_text(card, repository, head, there, api), what)
        wanted = dict(artifact_files(files))
        verdict = what.judgement.attestation.verdict.value
        done = api.create_commit(
            repository,
            [CommitOperationAdd(name, str(path)) for name, path in wanted.items()],
            commit_message=f"Upload adapter: scan says {verdict}",
            commit_description=renderer("markdown")(what.judgement.report),
            revision=what.revision,
            parent_commit=head,
        )
        _verify(wanted, api.get_paths_info(repository, list(wanted), revision=done.oid), repository)
    return str(done.commit_url)


def _refuse_strangers(files: Path, there: set[str], repository: str) -> None:
    """Refuses to vouch for a repository with weights that are not among the scanned ones."""
    mine = {name for name, _ in artifact_files(files)}
    strange = sorted(n for n in there - mine if n.lower().endswith(WEIGHT_SUFFIXES))
    if strange:
        raise RegistryError(
            f"already holds {strange[0]}, which is not in the directory and was not scanned",
            where=repository,
            todo="delete it there, or scan and push it too",
        )


def _card_text(card: Path, repository: str, head: str, there: set[str], api: HfApi) -> str:
    """The directory's card; if it has none, the repository's."""
    path = str(card)
    if not card.is_file():
        if CARD not in there:
            return ""
        path = api.hf_hub_download(repository, CARD, revision=head)
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"cannot be read: {error}", where=path) from None


def _write_own(files: Path, card: str, what: Upload) -> None:
    attestation = what.judgement.attestation
    override = what.decision.reason if what.decision.overridden_by else None
    notes = [
        f"The whole report: [{REPORT}]({REPORT}). The verdict is about the files with the digest "
        f"`{attestation.subject.artifact_sha256}` ([what that is]({VERDICT}))."
    ]
    if override:
        from scanner.reports.markdown_report import escape

        notes = [f"**Uploaded against the verdict:** {escape(override)}", "", *notes]
    section = verdict_section(what.judgement.report, notes)
    texts = {
        CARD: with_section(card, section),
        REPORT: renderer("json")(what.judgement.report),
        VERDICT: verdict_file(what.judgement, what.token, what.decision),
    }
    for name, text in texts.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(text, "utf-8")


def _verify(wanted: dict[str, Path], found: list[Any], repository: str) -> None:
    """Compares what the hub holds after the commit with what was scanned."""
    held = {item.path: item for item in found}
    for name, path in wanted.items():
        item = held.get(name)
        if item is None:
            raise RegistryError(
                f"does not hold {name} after the commit", where=repository,
                todo="a .gitignore may leave it out; the commit is there: delete it",
            )  # fmt: skip
        mine = sha256_of_file(path) if item.lfs else _blob_id(path)
        if mine != (item.lfs.sha256 if item.lfs else item.blob_id):
            raise RegistryError(
                f"holds another {name} than was scanned", where=repository, todo="delete the commit"
            )


def _blob_id(path: Path) -> str:
    """The id git gives a file."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 - git's digest


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """The hub's errors as one line each.

    Raises:
        RegistryError: In place of them.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        said = error.server_message or first_line(error)
        raise RegistryError(f"the hub says {status}: {said}", where=repository) from None
    except (HFValidationError, ValueError, OSError) as error:
        raise RegistryError(first_line(error), where=repository) from None
