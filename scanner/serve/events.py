"""Webhook bodies -> what there is to judge, or the reason why nothing is.

Names in a body are data: they are handed to the registry's own client as they are, and never
become part of a path.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar

import msgspec

from scanner.serve.verification import RefusedError

Platform = Literal["mlflow", "hub"]
Decoded = TypeVar("Decoded", bound=msgspec.Struct)

_NAME_LENGTH = 500
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_VERSION = re.compile(r"[0-9]{1,10}")
_HUB_VERSION = 3


class Subject(msgspec.Struct, frozen=True):
    """One model version or commit, which gets one verdict."""

    platform: Platform
    name: str
    """Registered model, or repository."""
    revision: str
    """Model version, or commit."""
    source: str = ""
    """Where MLflow says the version's artifacts lie: a deleted version's number can return
    with others."""

    @property
    def key(self) -> str:
        """The same for two deliveries exactly if they are about the same artifacts."""
        return msgspec.json.encode(self).decode()

    @property
    def label(self) -> str:
        """How pages and messages call it."""
        if self.platform == "mlflow":
            return f"models:/{self.name}/{self.revision}"
        return f"hf://{self.name}@{self.revision}"


class Ignored(msgspec.Struct, frozen=True):
    """An authentic event that gives nothing to judge."""

    reason: str


class _ModelVersion(msgspec.Struct):
    name: str
    version: str
    source: str = ""


class _MlflowEvent(msgspec.Struct):
    entity: str
    action: str
    data: msgspec.Raw
    workspace: str | None = None


class _HubEventKind(msgspec.Struct):
    action: str
    scope: str


class _HubRepository(msgspec.Struct):
    name: str
    type: str
    head_sha: str | None = msgspec.field(name="headSha", default=None)


class _HubWebhook(msgspec.Struct):
    version: int


class _UpdatedRef(msgspec.Struct):
    ref: str
    new_sha: str | None = msgspec.field(name="newSha", default=None)


class _HubEvent(msgspec.Struct):
    event: _HubEventKind
    repo: _HubRepository
    webhook: _HubWebhook
    updated_refs: list[_UpdatedRef] | None = msgspec.field(name="updatedRefs", default=None)


def mlflow_subjects(body: bytes) -> list[Subject] | Ignored:
    """What an MLflow delivery asks to judge.

    Raises:
        RefusedError: If the body is not an event of MLflow's.
    """
    event = _decode(body, _MlflowEvent)
    if (event.entity, event.action) != ("model_version", "created"):
        return Ignored(f"{_shown(event.entity)}.{_shown(event.action)} brings no new weights")
    version = _decode(event.data, _ModelVersion)
    if event.workspace not in (None, "", "default"):
        raise RefusedError(422, "only the default workspace is served")
    if not 0 < len(version.name) <= _NAME_LENGTH or not version.name.isprintable():
        raise RefusedError(422, "the model's name is empty, too long or not printable")
    if not _VERSION.fullmatch(version.version):
        raise RefusedError(422, "the model version is not a number")
    return [Subject("mlflow", version.name, version.version, version.source)]


def hub_subjects(body: bytes) -> list[Subject] | Ignored:
    """What a delivery of the hub asks to judge: every commit that a ref now points to.

    Raises:
        RefusedError: If the body is not an event of the hub's, payload version 3.
    """
    event = _decode(body, _HubEvent)
    if event.webhook.version != _HUB_VERSION:
        raise RefusedError(422, f"payload version {event.webhook.version}; 3 is served")
    if event.repo.type != "model":
        return Ignored("not a model repository")
    if not event.event.scope.startswith("repo.content") and event.event.scope != "repo":
        return Ignored(f"{_shown(event.event.scope)} changes no weights")
    if event.event.action not in ("create", "update"):
        return Ignored(f"{_shown(event.event.action)} brings no weights")
    if not _REPOSITORY.fullmatch(event.repo.name) or ".." in event.repo.name:
        raise RefusedError(422, "the repository's name is malformed")
    if event.updated_refs is None:
        pushed = [event.repo.head_sha] if event.repo.head_sha else []
    else:
        pushed = [ref.new_sha for ref in event.updated_refs if ref.new_sha]
    if not all(_COMMIT.fullmatch(sha) for sha in pushed):
        raise RefusedError(422, "a commit is not 40 hexadecimal digits")
    if not pushed:
        return Ignored("no ref points to a new commit")
    return [Subject("hub", event.repo.name, sha) for sha in dict.fromkeys(pushed)]


def _decode(body: bytes | msgspec.Raw, kind: type[Decoded]) -> Decoded:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise RefusedError(422, f"unexpected JSON: {_line(error)}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RefusedError(400, f"invalid JSON: {_line(error)}") from None


def _line(error: Any) -> str:
    return " ".join(str(error).split())[:200]


def _shown(word: str) -> str:
    """A text from the request, shortened and with control characters escaped."""
    return "".join(c if c.isalnum() or c in "._-" else "?" for c in word[:40])
