"""A model version of an MLflow registry -> its verdict, signed and written to its tags."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scanner.errors import MissingExtraError, RegistryError, TargetError, UsageError, first_line
from scanner.gates.attestation import Attestation, Override, Subject, now, sign
from scanner.gates.judgement import Judgement, judge_directory, unreadable
from scanner.gates.keys import SigningKey
from scanner.gates.mlflow_pass import showing_pass, signed_pass
from scanner.gates.mlflow_tags import (
    ATTESTATION,
    OVERRIDE,
    override_tags,
    verdict_tags,
    with_verdict,
)
from scanner.scanning.targets import ScanOptions

if TYPE_CHECKING:
    from mlflow import MlflowClient

UNREAD_SHA256 = "0" * 64
"""Written where the digest would stand, for files that could not be read."""
_MODEL_URI = re.compile(
    r"models:/+(?P<name>[^/@]+)(?:/(?P<version>[^/@]+)|@(?P<alias>[A-Za-z_-][\w-]*))"
)
_GONE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model."""

    name: str
    version: str


def registry_client(tracking_uri: str | None = None) -> MlflowClient:
    """A client of the registry that the environment (or the argument) names.

    Raises:
        MissingExtraError: If MLflow is not installed.
    """
    # This program sends nothing to anybody but the registry; MLflow's client would.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise MissingExtraError(
            "this needs MLflow", todo="pip install 'adapter-scanner[mlflow]'"
        ) from None
    return MlflowClient(tracking_uri=tracking_uri)


def parse_model_uri(uri: str) -> tuple[str, str]:
    """The model and its version (digits), or the alias that stands for one.

    Raises:
        UsageError: If it is not ``models:/NAME/VERSION``, ``models:/NAME/latest`` or
            ``models:/NAME@ALIAS``.
    """
    match = _MODEL_URI.fullmatch(uri)
    if match is None:
        raise UsageError("not models:/NAME/VERSION or models:/NAME@ALIAS", where=uri)
    name, version, alias = match["name"], match["version"], match["alias"]
    if version is None:
        return name, str(alias)
    if not version.isdigit() and version != "latest":
        raise UsageError("stages are not versions", where=uri, todo="name a version or an alias")
    return name, version


def find_version(uri: str, client: MlflowClient) -> ModelVersion:
    """The version that a URI names.

    Raises:
        UsageError: If it is no URI of a model version.
        RegistryError: If the registry does not know it.
    """
    name, version = parse_model_uri(uri)
    if version.isdigit():
        return ModelVersion(name, version)
    found = _asked(uri, client.get_model_version_by_alias, name, version)
    return ModelVersion(name, str(found.version))


def judge_version(
    name: str,
    version: str,
    options: ScanOptions,
    key: SigningKey,
    client: MlflowClient,
) -> Judgement:
    """Downloads a version, scans every adapter in it, signs the verdict and writes the tags.

    Args:
        name: The registered model.
        version: Its version.
        options: How to scan; `cache` is best left out, the files are read once.
        key: The scanner's key.
        client: The registry.

    Returns:
        The report and the verdict, which is `error` for a version that has no adapter or
        whose files are gone.

    Raises:
        UsageError: If the options cannot be honoured.
        RegistryError: If the registry cannot be reached or refuses.
    """
    where = f"models:/{name}/{version}"
    with showing_pass(signed_pass(key)):
        found = _asked(where, client.get_model_version, name, version)
        judgement = _judged(found, where, options, client)
        tags = {
            ATTESTATION: sign(judgement.attestation, key),
            **verdict_tags(judgement.attestation),
        }
        _write(found, where, tags, client)
        _describe(found, where, judgement.attestation, client)
    return judgement


def override_version(
    target: ModelVersion, reason: str, days: int, key: SigningKey, client: MlflowClient
) -> Override:
    """Signs a person's decision to let a version pass, and writes it to the version's tags.

    The decision is about the bytes that the version's verdict is about: a version that was not
    judged cannot be overridden.

    Raises:
        RegistryError: If the version has no verdict, or the registry refuses.
    """
    where = f"models:/{target.name}/{target.version}"
    found = _asked(where, client.get_model_version, target.name, target.version)
    judged = found.tags.get("adapter-scanner.artifact_sha256", "")
    if not re.fullmatch("[0-9a-f]{64}", judged) or judged == UNREAD_SHA256:
        raise RegistryError(
            "has no verdict yet", where=where, todo=f"run `adapter-scanner gate mlflow {where}`"
        )
    override = Override(
        subject=subject_of(found, judged),
        reason=reason,
        time=now(),
        expires=now() + timedelta(days=days),
    )
    _write(found, where, {OVERRIDE: sign(override, key), **override_tags(override)}, client)
    return override


def subject_of(version: Any, artifact_sha256: str) -> Subject:
    """What a record about an MLflow model version is about."""
    return Subject(
        model=version.name,
        version=str(version.version),
        created=version.creation_timestamp,
        artifact_sha256=artifact_sha256,
    )


def _judged(found: Any, where: str, options: ScanOptions, client: MlflowClient) -> Judgement:
    with tempfile.TemporaryDirectory(prefix="adapter-scanner-") as scratch:
        try:
            return judge_directory(
                _download(found, where, Path(scratch), client),
                options,
                model=found.name,
                model_version=str(found.version),
                created=found.creation_timestamp,
            )
        except RegistryError:
            raise
        except TargetError as error:
            return unreadable(subject_of(found, UNREAD_SHA256), error)


def _download(found: Any, where: str, scratch: Path, client: MlflowClient) -> Path:
    """All files of a version, and nothing that MLflow would write beside them."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    uri = _asked(where, client.get_model_version_download_uri, found.name, found.version)
    try:
        repository: Any = get_artifact_repository(uri, tracking_uri=client.tracking_uri)
        repository.download_artifacts("", dst_path=str(scratch))
    except MlflowException as error:
        if error.error_code in _GONE:
            raise TargetError(f"cannot be downloaded: {first_line(error)}", where=where) from None
        raise RegistryError(f"cannot be downloaded: {first_line(error)}", where=where) from None
    except OSError as error:
        raise RegistryError(f"cannot be downloaded: {error}", where=where) from None
    return scratch


def _write(found: Any, where: str, tags: dict[str, str], client: MlflowClient) -> None:
    for tag, value in tags.items():
        _asked(where, client.set_model_version_tag, found.name, found.version, tag, value)


def _describe(found: Any, where: str, verdict: Attestation, client: MlflowClient) -> None:
    """Says the verdict where MLflow's page of the version begins."""
    text = with_verdict(found.description, verdict)
    if text is not None and text != found.description:
        _asked(where, client.update_model_version, found.name, found.version, text)


def _asked(where: str, ask: Any, *arguments: str) -> Any:
    """The registry's answer; its errors as one line.

    Raises:
        RegistryError: If it refuses or cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    try:
        return ask(*arguments)
    except MlflowException as error:
        raise RegistryError(first_line(error), where=where) from None
