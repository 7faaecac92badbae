"""Servers and hubs for the tests of `serve`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from scanner.signatures.pack import Signature
from tests.serve.discussions import TOKEN, DiscussionHub
from tests.serve.process import ServeProcess

StartServer = Callable[..., ServeProcess]


@pytest.fixture
def hub() -> Iterator[DiscussionHub]:
    """An empty hub."""
    with DiscussionHub() as server:
        yield server


@pytest.fixture
def hub_environment(hub: DiscussionHub, tmp_path: Path) -> dict[str, str | None]:
    """What a server needs to speak to that hub, and to no other."""
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "hf-home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


@pytest.fixture
def start_server(
    tmp_path: Path, pack: Signature, hub_environment: dict[str, str | None]
) -> Iterator[StartServer]:
    """Starts a server for the hub alone, with the tests' pack."""
    with ExitStack() as stack:

        def start(
            *arguments: str | Path, environment: dict[str, str | None] | None = None, **options: Any
        ) -> ServeProcess:
            variables: dict[str, str | None] = {
                **hub_environment,
                "ADAPTER_SCANNER_MLFLOW_WEBHOOK_SECRET": None,
                **(environment or {}),
            }
            server = ServeProcess(
                tmp_path / "state", "-s", pack.path, *arguments, environment=variables
            )
            return stack.enter_context(server)

        yield start


@pytest.fixture(scope="session")
def repository_files() -> Callable[[Path], dict[str, bytes]]:
    """A directory as the files of a repository."""

    def files(directory: Path) -> dict[str, bytes]:
        return {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }

    return files
