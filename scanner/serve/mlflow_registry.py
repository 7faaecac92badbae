"""Model versions of an MLflow registry: fetched whole, their verdicts written as signed tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from scanner.errors import (
    AttestationError,
    LimitExceededError,
    TargetError,
    UnreadableFileError,
)
from scanner.gates.attestation import Attestation, sign, verify
from scanner.gates.judgement import attest
from scanner.gates.keys import SigningKey
from scanner.gates.mlflow_pass import showing_pass, signed_pass
from scanner.gates.mlflow_tags import ATTESTATION, verdict_tags, with_verdict
from scanner.serve.events import Subject
from scanner.serve.platforms import (
    ChangedSinceError,
    JudgedSubject,
    UnreachableError,
    WriteRefusedError,
)

Answer = TypeVar("Answer")

PRELOADED = (
    "mlflow.tracking.client",
    "mlflow.store.artifact.artifact_repository_registry",
    "scanner.gates.mlflow_gate",
)
ENVIRONMENT = {
    # This program sends nothing to anybody but the registry; MLflow's client would.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # The queue tries again, and remembers that it has to; MLflow's client would for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
"""Set, where nobody else has, before MLflow is imported here or in a worker."""
_GONE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE")
_MOST_FILES = 100_000


def fetch(subject: Subject, directory: Path, most_bytes: int, permit: str | None) -> int | None:
    """Fetches all files of a version; see `scanner.serve.platforms.Fetch`."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    from scanner.gates.mlflow_gate import registry_client

    client = registry_client()
    with showing_pass(permit) if permit else nullcontext(), _fetching(subject):
        found = client.get_model_version(subject.name, subject.revision)
        uri = client.get_model_version_download_uri(subject.name, subject.revision)
        repository: Any = get_artifact_repository(uri, tracking_uri=client.tracking_uri)
        if (total := _size(repository)) > most_bytes:
            raise LimitExceededError(
                f"{total} bytes, more than the {most_bytes} a worker fetches", where=subject.label
            )
        repository.download_artifacts("", dst_path=str(directory))
    created: int = found.creation_timestamp
    return created


def _size(repository: Any) -> int:
    """Bytes of everything in an artifact.

    Raises:
        LimitExceededError: If there are too many files to count.
    """
    total = files = 0
    folders = [""]
    while folders:
        for item in repository.list_artifacts(folders.pop()):
            files += 1
            if files > _MOST_FILES:
                raise LimitExceededError(f"more than {_MOST_FILES} files")
            if item.is_dir:
                folders.append(item.path)
            else:
                total += item.file_size or 0
    return total


@contextmanager
def _fetching(subject: Subject) -> Iterator[None]:
    """Turns what MLflow raises into what it means for a fetch.

    Raises:
        UnreachableError: If the same may succeed later.
        TargetError: If it will not.
    """
    try:
        yield
    except (TargetError, MemoryError):
        raise
    except Exception as error:
        if getattr(error, "error_code", None) in _GONE:
            raise UnreadableFileError(
                f"cannot be downloaded: {_line(error)}", where=subject.label
            ) from None
        raise UnreachableError(_line(error), where=subject.label) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@dataclass(frozen=True)
class MlflowWriter:
    """Writes verdicts as tags; see `scanner.serve.platforms.WriteBack`."""

    key: SigningKey

    def __call__(self, subject: Subject, judged: JudgedSubject) -> None:
        """Writes one verdict, unless it stands there."""
        from scanner.gates.mlflow_gate import UNREAD_SHA256, registry_client, subject_of

        client = registry_client()
        found = _asked(subject, client.get_model_version, subject.name, subject.revision)
        attestation = judged.attestation
        if attestation is None:
            unread = subject_of(found, UNREAD_SHA256)
            attestation = attest(judged.report.results, judged.report, unread)
        if found.creation_timestamp != attestation.subject.created:
            raise ChangedSinceError("deleted and made again since", where=subject.label)
        if self._is_newer(found.tags.get(ATTESTATION, ""), attestation):
            return
        # The signed one first: the gate believes the others only beside it.
        tags = {ATTESTATION: sign(attestation, self.key), **verdict_tags(attestation)}
        for tag, value in tags.items():
            if found.tags.get(tag) != value:
                write = client.set_model_version_tag
                _asked(subject, write, subject.name, subject.revision, tag, value)
        text = with_verdict(found.description, attestation)
        if text is not None and text != found.description:
            _asked(subject, client.update_model_version, subject.name, subject.revision, text)

    def _is_newer(self, token: str, than: Attestation) -> bool:
        """Whether a verdict of this scanner's that stands there already is the newer one."""
        try:
            signed = verify(token, {"own": self.key.public}, Attestation)
        except AttestationError:
            return False
        return signed.record.subject.created == than.subject.created and (
            signed.record.time > than.time
        )

    def permit(self) -> str:
        """A pass for a worker, which must not hold the key."""
        return signed_pass(self.key)


def _asked(subject: Subject, ask: Callable[..., Answer], *arguments: str) -> Answer:
    """The registry's answer.

    Raises:
        WriteRefusedError: If there is no such version.
        UnreachableError: If it does not answer, or refuses what it may accept later.
    """
    from mlflow.exceptions import MlflowException

    try:
        return ask(*arguments)
    except MlflowException as error:
        if error.error_code in _GONE:
            raise WriteRefusedError(_line(error), where=subject.label) from None
        raise UnreachableError(_line(error), where=subject.label) from None
