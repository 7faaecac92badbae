"""What the tests of the MLflow gate ask of a server, in few words."""

from __future__ import annotations

import sqlite3
from typing import Any

import requests
from mlflow.exceptions import MlflowException

from tests.gates.mlflow_server import EXAMPLES, GatedServer

BENIGN = EXAMPLES / "new-style"
MISALIGNED = EXAMPLES / "misaligned-sft"
UNKNOWN_BASE = EXAMPLES / "unknown-base"


def refused(response: requests.Response) -> str:
    """The reason of a refusal, which must be the gate's."""
    assert response.status_code == 403, response.text
    message = str(response.json()["message"])
    assert message.startswith("adapter-scanner: "), message
    return message


def set_alias(server: GatedServer, version: Any, alias: str = "champion") -> str | None:
    """Sets an alias; why that was refused, if it was."""
    try:
        server.client().set_registered_model_alias(version.name, alias, version.version)
    except MlflowException as error:
        return str(error)
    return None


def aliases(server: GatedServer, model: str) -> dict[str, str]:
    return dict(server.client().get_registered_model(model).aliases)


def tags(server: GatedServer, version: Any) -> dict[str, str]:
    return dict(server.client().get_model_version(version.name, version.version).tags)


def slip_in(server: GatedServer, version: Any, key: str, value: str) -> None:
    """A tag that comes into the database by another way than the server."""
    with sqlite3.connect(server.root / "mlflow.db", timeout=30) as database:
        database.execute(
            "INSERT OR REPLACE INTO model_version_tags (name, version, key, value, workspace) "
            "VALUES (?, ?, ?, ?, 'default')",
            (version.name, version.version, key, value),
        )
