"""Where a version's files are, and their digest as the server sees them."""

from __future__ import annotations

import os
import posixpath
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scanner.errors import UnreadableFileError, first_line
from scanner.gates.artifact import artifact_files, artifact_sha256

_reading: ContextVar[bool] = ContextVar("gate_is_reading", default=False)
_Stamp = tuple[tuple[str, int, int, int, int], ...]
_remembered: dict[str, tuple[_Stamp, str]] = {}
_REMEMBERED_AT_MOST = 256
_INDIRECT = ("runs", "models")
_SETTLED_NS = 2_000_000_000
"""Two changes within a clock tick have one time stamp: files as young as that are read again."""


def server_handlers() -> Any:
    """MLflow's request handlers, of which the gate uses what `app` checks to be there."""
    return import_module("mlflow.server.handlers")


def gate_is_reading() -> bool:
    """Whether the gate itself reads, to compute a digest."""
    return _reading.get()


@contextmanager
def _as_the_gate() -> Iterator[None]:
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


def version_sha256(location: str) -> str:
    """The digest of everything at a version's location, read by the server itself.

    Raises:
        TargetError: If it cannot be read.
    """
    from mlflow.exceptions import MlflowException

    if urlsplit(location).scheme in _INDIRECT:
        # MLflow gathers such a source from several places (a run's files, and those of the
        # models it logged): there is no one place whose files could be kept from changing.
        raise UnreadableFileError(
            "its source names no place of files", todo="register it by its artifact location"
        )
    handlers = server_handlers()
    try:
        with _as_the_gate(), tempfile.TemporaryDirectory() as scratch:
            if handlers._is_servable_proxied_run_artifact_root(location):
                repository = handlers._get_artifact_repo_mlflow_artifacts()
                path = handlers._get_proxied_run_artifact_destination_path(location)
                path = handlers._get_workspace_scoped_repo_path_if_enabled(path)
            else:
                repository = handlers._get_artifact_repository_for_uri(location)
                path = ""
            local = repository.get_local_path(path) if path else _local_root(repository)
            if local is not None:
                return _of_local(Path(local))
            return artifact_sha256(Path(repository.download_artifacts(path, scratch)))
    except (MlflowException, OSError) as error:
        raise UnreadableFileError(first_line(error)) from None


def _local_root(repository: object) -> str | None:
    root = getattr(repository, "artifact_dir", None)
    return root if isinstance(root, str) else None


def _of_local(root: Path) -> str:
    """The digest of local files, computed anew unless not one of them was touched.

    The stamp includes the inode and the time of its last change, which no call sets: content
    cannot change under a remembered digest.
    """
    stamp = _stamp(root)
    known = _remembered.get(str(root))
    if known is not None and known[0] == stamp:
        return known[1]
    digest = artifact_sha256(root)
    settled = time.time_ns() - _SETTLED_NS > max((item[4] for item in stamp), default=0)
    if settled and _stamp(root) == stamp:
        if len(_remembered) >= _REMEMBERED_AT_MOST:
            _remembered.clear()
        _remembered[str(root)] = (stamp, digest)
    return digest


def _stamp(root: Path) -> _Stamp:
    files = [(root.name, root)] if root.is_file() else artifact_files(root)
    stats = ((name, path.stat()) for name, path in files)
    return tuple((n, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for n, s in stats)


def canonical_location(uri: str) -> str:
    """One text for one place, however it is written: proxied, as a path, or as a URI."""
    from mlflow.server.constants import ARTIFACTS_DESTINATION_ENV_VAR

    handlers = server_handlers()
    if handlers._is_servable_proxied_run_artifact_root(uri):
        path = handlers._get_proxied_run_artifact_destination_path(uri)
        path = handlers._get_workspace_scoped_repo_path_if_enabled(path)
        return place_below(os.environ[ARTIFACTS_DESTINATION_ENV_VAR], path)
    return place_below(uri, "")


@lru_cache(maxsize=2**16)
def place_below(root: str, path: str | None) -> str:
    """The canonical text of a path in a repository.

    Remembered, because every upload is compared with every registered version. Nobody makes
    links in the artifact store through the server.
    """
    parts = urlsplit(root)
    if parts.scheme in ("", "file"):
        local = str(import_module("mlflow.utils.file_utils").local_file_uri_to_path(root))
        return os.path.realpath(os.path.join(local, (path or "").lstrip("/")))
    whole = posixpath.normpath(posixpath.join(parts.path or "/", (path or "").lstrip("/")))
    return f"{parts.scheme}://{parts.netloc}/{whole.lstrip('/')}"


def is_inside(place: str, directory: str) -> bool:
    """Whether a place is a directory or lies in it."""
    return place == directory or place.startswith(directory.rstrip("/") + "/")
