"""The entry points of group ``mlflow.app``: MLflow's server, gated.

A server whose policy cannot be read, whose registry is not a database, or whose MLflow is not
one this module knows does not start: a gate that is not there must not look like one that is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scanner.errors import UsageError
from scanner.gates.mlflow_server.artifacts import StoreOf, check_repository
from scanner.gates.mlflow_server.files import server_handlers
from scanner.gates.mlflow_server.gate import Gate
from scanner.gates.mlflow_server.presented import PassMiddleware
from scanner.gates.mlflow_server.registry import GatedStore, gated_store_class
from scanner.gates.policy_file import load_policy

POLICY_VARIABLE = "ADAPTER_SCANNER_GATE_POLICY"
"""Environment variable: the policy file of a gated MLflow server."""
_NEEDED = (
    "_get_model_registry_store",
    "_get_artifact_repo_mlflow_artifacts",
    "_get_artifact_repository_for_uri",
    "_get_proxied_run_artifact_destination_path",
    "_get_workspace_scoped_repo_path_if_enabled",
    "_is_servable_proxied_run_artifact_root",
    "get_artifact_repository",
)
"""What the gate uses of MLflow's request handlers."""


def create_app() -> Any:
    """MLflow's app with the gate: `mlflow server --app-name adapter-scanner`.

    Raises:
        UsageError: If the gate cannot do its work here.
    """
    install_gate()
    if os.environ.get("_MLFLOW_SGI_NAME") == "uvicorn":
        from mlflow.server.fastapi_app import app as asgi_app

        asgi_app.add_middleware(PassMiddleware)
        return asgi_app
    from mlflow.server import app as wsgi_app

    return wsgi_app


def create_app_with_basic_auth() -> Any:
    """The same behind MLflow's users and permissions: `--app-name adapter-scanner-basic-auth`.

    Raises:
        UsageError: If the gate cannot do its work here.
    """
    install_gate()
    from mlflow.server.auth import create_app as create_app_with_users

    app = create_app_with_users()
    if hasattr(app, "add_middleware"):
        app.add_middleware(PassMiddleware)
    return app


def install_gate() -> None:
    """Puts the gate into this process's registry store and artifact repositories.

    Raises:
        UsageError: If there is no policy with a scanner's key, or MLflow is not as expected.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    named = os.environ.get(POLICY_VARIABLE)
    if not named:
        raise UsageError("names no policy", where=f"${POLICY_VARIABLE}")
    loaded = load_policy(Path(named))
    if not loaded.keys.scanners:
        raise UsageError(
            "names no scanner whose verdicts count",
            where=loaded.where,
            todo="add the line that `adapter-scanner gate keygen` prints under scanners:",
        )
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
    from mlflow.version import VERSION

    handlers = server_handlers()
    missing = [name for name in _NEEDED if not hasattr(handlers, name)]
    if missing:
        raise UsageError(f"MLflow {VERSION} has no {missing[0]}: the gate does not know it")
    store = handlers._get_model_registry_store()
    if not isinstance(store, SqlAlchemyStore):
        raise UsageError(
            "the gate needs a registry in a database",
            where="--registry-store-uri",
            todo="start the server with --backend-store-uri sqlite:///mlflow.db, or another one",
        )
    if not isinstance(store, GatedStore):
        store.__class__ = gated_store_class(type(store), Gate(loaded))
    handlers._artifact_repo = None
    handlers.get_artifact_repository = _checking(
        handlers.get_artifact_repository, handlers._get_model_registry_store
    )


def _checking(make: Callable[..., Any], store: StoreOf) -> Callable[..., Any]:
    """A factory of artifact repositories that puts the gate into each."""

    def make_checked(*arguments: Any, **options: Any) -> Any:
        return check_repository(make(*arguments, **options), store)

    return make_checked
