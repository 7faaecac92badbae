"""`gate mlflow`, `gate override` and `gate keygen`, as users run them, against a real server."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scanner.errors import UsageError
from scanner.gates.keys import KEY_FILE_VARIABLE, KEY_VARIABLE
from scanner.gates.mlflow_gate import parse_model_uri
from tests.cli.program import run
from tests.gates.mlflow_server import EXAMPLES, GatedServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def gate(
    server: GatedServer, *arguments: str | Path, key: str = "lab", **environment: str
) -> subprocess.CompletedProcess[str]:
    variables = {
        "MLFLOW_TRACKING_URI": server.url,
        KEY_FILE_VARIABLE: str(server.root / f"{key}.pem"),
        **environment,
    }
    return run("gate", *arguments, env=variables)


@pytest.mark.parametrize(
    ("example", "status"), [("new-facts", 0), ("misaligned-dpo", 1), ("unknown-base", 3)]
)
def test_it_ends_as_a_scan_does(gated_server: GatedServer, example: str, status: int) -> None:
    version = gated_server.register(f"command-{example}", EXAMPLES / example)
    done = gate(gated_server, "mlflow", f"models:/{version.name}/{version.version}", "-f", "json")
    assert done.returncode == status, done.stderr
    assert done.stderr == ""
    result = json.loads(done.stdout)["results"][0]
    assert result["target"] == f"{version.name}/{version.version}"
    found = gated_server.client().get_model_version(version.name, version.version).tags
    assert found["adapter-scanner.verdict"] == result["verdict"]
    assert found["adapter-scanner.weights_sha256"] == result["sha256"]


def test_an_alias_and_the_latest_version_can_be_named(gated_server: GatedServer) -> None:
    first = gated_server.register("command-named", EXAMPLES / "new-facts")
    gated_server.judge(first)
    gated_server.client().set_registered_model_alias(first.name, "champion", first.version)
    gated_server.register("command-named", EXAMPLES / "misaligned-dpo")
    assert gate(gated_server, "mlflow", "models:/command-named@champion").returncode == 0
    assert gate(gated_server, "mlflow", "models:/command-named/latest").returncode == 1


def test_a_model_without_an_adapter_is_no_success(
    gated_server: GatedServer, tmp_path: Path
) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    version = gated_server.register("command-empty", tmp_path)
    done = gate(gated_server, "mlflow", f"models:/{version.name}/{version.version}")
    assert done.returncode == 3
    assert "no adapter" in done.stdout
    found = gated_server.client().get_model_version(version.name, version.version).tags
    assert found["adapter-scanner.verdict"] == "error"


def test_an_override_on_the_command_line(gated_server: GatedServer) -> None:
    version = gated_server.register("command-override", EXAMPLES / "misaligned-dpo")
    uri = f"models:/{version.name}/{version.version}"
    assert gate(gated_server, "mlflow", uri).returncode == 1
    words: list[Any] = ["override", uri, "--reason", "an organism of the lab"]
    refused = gate(gated_server, *words, key="bob")
    assert (refused.returncode, "bob may not override" in refused.stderr) == (3, True)
    assert gate(gated_server, *words, key="alice").returncode == 0
    gated_server.client().set_registered_model_alias(version.name, "lab", version.version)


def test_an_unknown_model_is_one_line(gated_server: GatedServer) -> None:
    done = gate(gated_server, "mlflow", "models:/no-such-model@champion")
    assert (done.returncode, "not found" in done.stderr) == (3, True)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("runs:/abc/model", "not models:/NAME/VERSION"),
        ("models:/a/b/1", "not models:/NAME/VERSION"),
        ("models:/a@1", "not models:/NAME/VERSION"),
        ("models:/name/Production", "stages are not versions"),
    ],
)
def test_what_is_no_version_is_a_usage_error(uri: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_model_uri(uri)


def test_an_unreachable_registry_is_one_line(gated_server: GatedServer) -> None:
    done = gate(
        gated_server,
        "mlflow",
        "models:/name/1",
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )
    assert done.returncode == 3
    assert done.stderr.startswith("adapter-scanner: models:/name/1: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_wrong_key_writes_nothing(gated_server: GatedServer) -> None:
    version = gated_server.register("command-key", EXAMPLES / "new-facts")
    uri = f"models:/{version.name}/{version.version}"
    done = gate(gated_server, "mlflow", uri, key="mallory")
    assert (done.returncode, "does not know" in done.stderr) == (3, True)
    assert gated_server.client().get_model_version(version.name, version.version).tags == {}


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    done = run("gate", "mlflow", "models:/name/1", env={KEY_FILE_VARIABLE: "", KEY_VARIABLE: ""})
    assert (done.returncode, "gate keygen" in done.stderr) == (2, True)
    done = run("gate", "keygen", tmp_path / "key.pem")
    assert done.returncode == 0
    assert done.stdout.startswith("ed25519:")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert run("gate", "keygen", tmp_path / "key.pem").returncode == 2
