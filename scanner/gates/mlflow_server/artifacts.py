"""Artifact repositories with the gate in them.

Every repository the server makes is given a subclass of its class: what it reads and writes is
checked by place, so that neither a run, a logged model, a trace nor the artifact proxy is a way
around. A stream is checked when it ends as well as when it begins: an upload that was begun
before a version was registered must not land after it was judged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from scanner.gates.mlflow_server.files import gate_is_reading, place_below

StoreOf = Callable[[], Any]


class _Checked:
    """What a checked repository does differently; `store` gives the gated registry."""

    store: StoreOf
    artifact_uri: str

    def get_local_path(self, artifact_path: str) -> Any:
        self._readable(artifact_path)
        return super().get_local_path(artifact_path)  # type: ignore[misc]

    def download_artifacts(self, artifact_path: str, dst_path: Any = None) -> Any:
        self._readable(artifact_path)
        return super().download_artifacts(artifact_path, dst_path)  # type: ignore[misc]

    def get_download_presigned_url(
        self, artifact_path: str, *arguments: Any, **options: Any
    ) -> Any:
        self._readable(artifact_path)
        return super().get_download_presigned_url(  # type: ignore[misc]
            artifact_path, *arguments, **options
        )

    def log_artifact(self, local_file: Any, artifact_path: str | None = None) -> Any:
        self._writable(artifact_path, str(local_file))
        return super().log_artifact(local_file, artifact_path)  # type: ignore[misc]

    def log_artifacts(self, local_dir: Any, artifact_path: str | None = None) -> Any:
        self._writable(artifact_path)
        return super().log_artifacts(local_dir, artifact_path)  # type: ignore[misc]

    def log_artifact_from_stream(
        self, stream: Any, artifact_file_name: str, artifact_path: str | None = None
    ) -> Any:
        self._writable(artifact_path, artifact_file_name)
        checked = _CheckedStream(stream, lambda: self._writable(artifact_path, artifact_file_name))
        return super().log_artifact_from_stream(  # type: ignore[misc]
            checked, artifact_file_name, artifact_path
        )

    async def log_artifact_from_async_stream(
        self, chunks: Any, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        self._writable(artifact_path, artifact_file_name)

        async def checked() -> AsyncIterator[bytes]:
            async for chunk in chunks:
                yield chunk
            self._writable(artifact_path, artifact_file_name)

        await super().log_artifact_from_async_stream(  # type: ignore[misc]
            checked(), artifact_file_name, artifact_path
        )

    def delete_artifacts(self, artifact_path: str | None = None) -> Any:
        self._writable(artifact_path)
        return super().delete_artifacts(artifact_path)  # type: ignore[misc]

    def create_multipart_upload(
        self, local_file: str, num_parts: int = 1, artifact_path: str | None = None
    ) -> Any:
        self._writable(artifact_path, local_file)
        return super().create_multipart_upload(local_file, num_parts, artifact_path)  # type: ignore[misc]

    def complete_multipart_upload(
        self,
        local_file: str,
        upload_id: str,
        parts: Any = None,
        artifact_path: str | None = None,
    ) -> Any:
        self._writable(artifact_path, local_file)
        return super().complete_multipart_upload(  # type: ignore[misc]
            local_file, upload_id, parts, artifact_path
        )

    def create_presigned_upload_url(
        self, artifact_path: str, *arguments: Any, **options: Any
    ) -> Any:
        self._writable(artifact_path)
        return super().create_presigned_upload_url(  # type: ignore[misc]
            artifact_path, *arguments, **options
        )

    def _readable(self, path: str | None) -> None:
        if not gate_is_reading():
            self.store().require_readable(self._place(path))

    def _writable(self, directory: str | None, file: str = "") -> None:
        name = file.replace("\\", "/").rsplit("/", 1)[-1]
        path = "/".join(part for part in (directory or "", name) if part)
        self.store().require_writable(self._place(path))

    def _place(self, path: str | None) -> str:
        # A local repository knows its directory better than its URI, which may have a query.
        return place_below(getattr(self, "artifact_dir", None) or self.artifact_uri, path)


class _CheckedStream:
    """A readable stream that asks once more when it ends."""

    def __init__(self, stream: Any, at_end: Callable[[], None]) -> None:
        self._stream = stream
        self._at_end = at_end

    def read(self, *size: int) -> Any:
        data = self._stream.read(*size)
        if not data or not size or size[0] is None or size[0] < 0:
            self._at_end()
        return data

    def __iter__(self) -> Iterator[Any]:
        yield from self._stream
        self._at_end()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def check_repository(repository: Any, store: StoreOf) -> Any:
    """Puts the gate into a repository, unless it is there."""
    inner = type(repository)
    if not issubclass(inner, _Checked):
        repository.__class__ = type(
            f"Checked{inner.__name__}", (_Checked, inner), {"store": staticmethod(store)}
        )
    return repository
