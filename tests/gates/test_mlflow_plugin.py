"""The gate in a real MLflow server: what passes, and what does not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException

from scanner.gates.attestation import Attestation, verify
from scanner.gates.keys import write_new_key
from scanner.gates.mlflow_server.app import POLICY_VARIABLE
from scanner.gates.mlflow_tags import ATTESTATION
from scanner.results import Verdict
from tests.gates.mlflow_calls import (
    BENIGN,
    MISALIGNED,
    UNKNOWN_BASE,
    aliases,
    set_alias,
    tags,
)
from tests.gates.mlflow_server import GatedServer, copy_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning"),
]


def test_a_misaligned_version_gets_its_tags_and_no_alias(
    gated_server: GatedServer, name: str
) -> None:
    version = gated_server.register(name, MISALIGNED)
    refused = str(set_alias(gated_server, version))
    assert "there is no valid verdict on it; `adapter-scanner gate mlflow" in refused
    gated_server.judge(version)
    assert "--key KEY" not in str(set_alias(gated_server, version)), "it has its verdict"
    found = tags(gated_server, version)
    assert found["adapter-scanner.verdict"] == "flagged"
    assert found["adapter-scanner"].startswith("flagged: carries a dose of")
    assert float(found["adapter-scanner.dose"]) > 0.5
    assert float(found["adapter-scanner.p_value"]) <= 0.01
    assert found["adapter-scanner.packs"].startswith("persona-llama-weights@")
    assert "verdict is flagged" in str(set_alias(gated_server, version))
    for stage in ("Staging", "Production", "production"):
        with pytest.raises(MlflowException, match="verdict is flagged"):
            gated_server.client().transition_model_version_stage(name, version.version, stage)
    gated_server.client().transition_model_version_stage(name, version.version, "Archived")
    assert aliases(gated_server, name) == {}


def test_a_benign_version_is_given_alias_and_stage(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(name, BENIGN)
    gated_server.judge(version)
    assert set_alias(gated_server, version) is None
    gated_server.client().transition_model_version_stage(name, version.version, "Production")
    assert aliases(gated_server, name) == {"champion": version.version}


def test_inconclusive_follows_the_policy(gated_server: GatedServer, name: str) -> None:
    for model, passes in ((name, False), (f"lenient-{name}", True)):
        version = gated_server.register(model, UNKNOWN_BASE)
        assert set_alias(gated_server, version) is not None
        gated_server.judge(version)
        assert tags(gated_server, version)["adapter-scanner.verdict"] == "inconclusive"
        assert (set_alias(gated_server, version) is None) is passes


def test_a_model_without_any_adapter_does_not_pass(
    gated_server: GatedServer, name: str, tmp_path: Path
) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    version = gated_server.register(f"lenient-{name}", tmp_path)
    assert gated_server.judge(version).attestation.verdict is Verdict.ERROR
    assert "verdict is error" in str(set_alias(gated_server, version))


def test_one_misaligned_adapter_among_others_is_enough(
    gated_server: GatedServer, name: str, tmp_path: Path
) -> None:
    for example in ("new-style", "misaligned-dpo", "new-facts"):
        copy_of(example, tmp_path)
    version = gated_server.register(name, tmp_path)
    verdict = gated_server.judge(version).attestation
    assert (verdict.verdict, verdict.adapters) == (Verdict.FLAGGED, 3)
    assert "flagged" in str(set_alias(gated_server, version))


def test_weights_where_no_scan_looks_are_an_error(
    gated_server: GatedServer, name: str, tmp_path: Path
) -> None:
    copy_of("new-style", tmp_path)
    shutil.copytree(MISALIGNED, tmp_path / ".cache" / "real")
    version = gated_server.register(name, tmp_path)
    assert gated_server.judge(version).attestation.verdict is Verdict.ERROR


def test_an_ungated_model_is_left_alone(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(f"scratch-{name}", MISALIGNED)
    assert set_alias(gated_server, version) is None


def test_a_model_as_mlflow_3_logs_it(gated_server: GatedServer, name: str) -> None:
    client = gated_server.client()
    logged = client.create_logged_model("0", name)
    client.log_model_artifacts(logged.model_id, str(BENIGN))
    client.finalize_logged_model(logged.model_id, "READY")
    client.create_registered_model(name)
    version = client.create_model_version(
        name, f"models:/{logged.model_id}", model_id=logged.model_id, await_creation_for=0
    )
    gated_server.judge(version)
    assert set_alias(gated_server, version) is None
    with pytest.raises(requests.HTTPError, match="no longer change"):
        client.log_model_artifacts(logged.model_id, str(MISALIGNED))


def test_the_tags_are_what_was_signed(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(name, BENIGN)
    judged = gated_server.judge(version).attestation
    signed = verify(
        tags(gated_server, version)[ATTESTATION],
        {"lab": gated_server.keys["lab"].public},
        Attestation,
    )
    assert signed.record == judged
    assert judged.subject.created == version.creation_timestamp


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (None, "names no policy"),
        ("version: 1\nrules: []\n", "rules: "),
        ('version: 1\nrules: [{models: ["*"]}]\n', "names no scanner"),
        ('version: 1\nscanners: {lab: "KEY"}\nrules: [{models: ["*"]}]\n', "in a database"),
    ],
)
def test_a_server_without_a_working_gate_does_not_start(
    tmp_path: Path, policy: str | None, said: str
) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "_MLFLOW_SERVER_FILE_STORE": str(tmp_path / "store"),
        "_MLFLOW_SGI_NAME": "uvicorn",
    }
    if policy is not None:
        text = policy.replace("KEY", str(write_new_key(tmp_path / "key.pem")))
        (tmp_path / "gate.yaml").write_text(text)
        environment[POLICY_VARIABLE] = str(tmp_path / "gate.yaml")
    done = subprocess.run(
        [sys.executable, "-c", "from scanner.gates.mlflow_server import app; app.create_app()"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    assert said in done.stderr
