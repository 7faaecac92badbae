"""The gate under MLflow's other servers: WSGI, and with users and permissions."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from tests.gates.mlflow_server import EXAMPLES, GatedServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def gated(server: GatedServer) -> None:
    """Asserts that the gate is there, for the registry and for files."""
    client = server.client()
    bad = server.register("blocked-bad", EXAMPLES / "misaligned-sft")
    file = f"0/{bad.run_id}/artifacts/model/adapter_model.safetensors"
    auth = ("admin", "a-password-of-the-test")
    for prefix in ("api", "ajax-api"):
        url = f"/{prefix}/2.0/mlflow-artifacts/artifacts/{file}"
        assert server.call("GET", url, auth=auth).status_code == 403
        assert server.call("PUT", url, auth=auth, data=b"x" * 100).status_code == 403
    server.judge(bad)
    with pytest.raises(MlflowException, match="verdict is flagged"):
        client.set_registered_model_alias(bad.name, "champion", bad.version)
    good = server.register("blocked-good", EXAMPLES / "new-style")
    server.judge(good)
    client.set_registered_model_alias(good.name, "champion", good.version)
    url = f"/api/2.0/mlflow-artifacts/artifacts/{file.replace(bad.run_id, good.run_id)}"
    expected = (EXAMPLES / "new-style" / "adapter_model.safetensors").read_bytes()
    assert server.call("GET", url, auth=auth).content == expected


def test_gunicorn(tmp_path: Path) -> None:
    with running_server(tmp_path, "--gunicorn-opts", "--log-level warning") as server:
        gated(server)


def test_users_and_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "auth.ini").write_text(
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = sqlite:///{tmp_path / 'auth.db'}\n"
        "admin_username = admin\n"
        "admin_password = a-password-of-the-test\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-password-of-the-test")
    with running_server(
        tmp_path,
        app="adapter-scanner-basic-auth",
        MLFLOW_FLASK_SERVER_SECRET_KEY="of-the-test",
        MLFLOW_AUTH_CONFIG_PATH=str(tmp_path / "auth.ini"),
    ) as server:
        without = server.call("GET", "/api/2.0/mlflow/registered-models/search")
        assert without.status_code == 401
        gated(server)
