"""The user's hub settings, isolated: no token, no cache and no endpoint but the test's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from tests.hub.server import HubServer, Repository

ServeHub = Callable[..., HubServer]

_VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
)
"""The user's settings, and those that tests of other libraries make for the whole process."""


@pytest.fixture(autouse=True)
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An HF_HOME of the test's own, here and in processes it starts."""
    home = tmp_path / "hf-home"
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    yield home
    close_session()


@pytest.fixture
def serve_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServeHub]:
    """Starts a hub with the given repositories and makes it the endpoint of this test."""
    with ExitStack() as stack:

        def serve(*repositories: Repository, **options: Any) -> HubServer:
            server = stack.enter_context(HubServer(repositories, **options))
            monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
            monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
            template = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
            monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            return server

        yield serve
