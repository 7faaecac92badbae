"""`adapter-scanner serve` on the command line: what it refuses to start with, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from scanner.gates.keys import write_new_key
from tests.cli.program import run
from tests.serve.conftest import StartServer
from tests.serve.process import HUB_SECRET, MLFLOW_SECRET

HUB = {"ADAPTER_SCANNER_HUB_WEBHOOK_SECRET": HUB_SECRET}
MLFLOW = {
    "ADAPTER_SCANNER_MLFLOW_WEBHOOK_SECRET": MLFLOW_SECRET,
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
}


def refused(tmp_path: Path, *arguments: str | Path, **environment: str) -> str:
    """The one line with which a server does not start."""
    done = run("serve", "--state", tmp_path / "state", *arguments, env=environment)
    assert done.returncode == 2, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert HUB_SECRET not in line
    assert MLFLOW_SECRET not in line
    return line


def test_no_secret_is_no_server(tmp_path: Path) -> None:
    assert "no secret is given" in refused(tmp_path)


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    line = refused(tmp_path, ADAPTER_SCANNER_HUB_WEBHOOK_SECRET="short-secret")
    assert "shorter than 16" in line


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(HUB_SECRET)
    assert "given twice" in refused(tmp_path, "--hub-secret-file", tmp_path / "secret", **HUB)


def test_an_empty_secret_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n \n")
    assert "holds no secret" in refused(tmp_path, "--hub-secret-file", tmp_path / "secret")


def test_a_secret_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff" * 20)
    assert "not UTF-8" in refused(tmp_path, "--hub-secret-file", tmp_path / "secret")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_are_not_served_by_accident(tmp_path: Path, host: str) -> None:
    assert "--public" in refused(tmp_path, "--host", host, **HUB)


def test_a_host_is_an_address(tmp_path: Path) -> None:
    assert "not an IP address" in refused(tmp_path, "--host", "example.com", **HUB)


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert "cannot listen" in refused(tmp_path, "--port", port, **HUB)


def test_verdicts_of_mlflow_need_a_key(tmp_path: Path) -> None:
    assert "no key to sign with" in refused(tmp_path, **MLFLOW)


def test_a_registry_has_to_be_named(tmp_path: Path) -> None:
    write_new_key(tmp_path / "key.pem")
    environment = {**MLFLOW, "MLFLOW_TRACKING_URI": ""}
    line = refused(tmp_path, "--key", tmp_path / "key.pem", **environment)
    assert "no registry is named" in line


def test_a_pack_that_is_none(tmp_path: Path) -> None:
    assert "signature.yaml" in refused(tmp_path, "-s", tmp_path, **HUB)


def test_a_policy_with_an_unknown_key(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("version: 1\nrule: []\n")
    assert "policy.yaml" in refused(tmp_path, "--policy", tmp_path / "policy.yaml", **HUB)


@pytest.mark.parametrize(
    "option",
    ["--workers=0", "--memory=1", "--scan-timeout=0", "--port=70000", "--alpha=1", "--worker=2"],
)
def test_options_out_of_range(tmp_path: Path, option: str) -> None:
    assert option.split("=")[0] in refused(tmp_path, option, **HUB)


def test_state_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with sqlite3.connect(tmp_path / "state" / "jobs.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    assert "state of version 99" in refused(tmp_path, **HUB)


def test_state_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "jobs.sqlite").write_bytes(b"not a database, for sure" * 100)
    assert "cannot be used" in refused(tmp_path, **HUB)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_in_order(start_server: StartServer, number: int) -> None:
    server = start_server()
    assert server.end(number) == 0
    assert not [line for line in server.lines if "Traceback" in line or "ERROR" in line]


def test_secrets_may_come_from_a_file_with_the_old_one_beside_the_new(
    start_server: StartServer, tmp_path: Path
) -> None:
    secrets = ["the-new-secret-0123456789", "the-old-secret-0123456789"]
    (tmp_path / "secrets").write_text("\n".join(secrets) + "\n")
    server = start_server(
        "--hub-secret-file",
        tmp_path / "secrets",
        environment={"ADAPTER_SCANNER_HUB_WEBHOOK_SECRET": None},
    )
    for secret in secrets:
        assert server.deliver_hub(b"{}", secret).status == 422
    assert server.deliver_hub(b"{}", "another-secret-0123456789").status == 401
    assert server.request("POST", "/webhooks/mlflow", b"{}").status == 404


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    write_new_key(tmp_path / "key.pem")
    os.chmod(tmp_path / "key.pem", 0o644)
    assert "others can read" in refused(tmp_path, "--key", tmp_path / "key.pem", **MLFLOW)


def test_the_command_line_imports_no_server_until_it_serves() -> None:
    code = (
        "import sys; sys.argv = ['adapter-scanner', 'serve', '--help']\n"
        "from scanner.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('starlette', 'uvicorn', 'mlflow', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
