"""`gate wandb`, against a stand-in for the service: no server of W&B runs here."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from scanner.cli.root import cli
from scanner.errors import UsageError
from scanner.gates.artifact import artifact_sha256
from scanner.gates.attestation import Attestation, verify
from scanner.gates.keys import write_new_key
from scanner.gates.policy_file import load_policy
from scanner.gates.wandb_gate import METADATA_KEY, ArtifactName
from tests.gates.mlflow_server import EXAMPLES, PACK

NAME = "team/adapters/mine:v3"


class Error(Exception):
    """As `wandb.Error`."""


Error.__module__ = "wandb.errors"


class StandIn(ModuleType):
    """One artifact, whose files are an example adapter, and what was linked."""

    def __init__(self, adapter: str) -> None:
        super().__init__("wandb")
        self.adapter = adapter
        self.metadata: dict[str, Any] = {"kept": 1}
        self.saved: list[dict[str, Any]] = []
        self.links: list[tuple[Any, str, list[str]]] = []
        self.started: dict[str, Any] = {}
        self.failure: Exception | None = None

    def init(self, **settings: Any) -> StandIn:
        self.started = settings
        return self

    def __enter__(self) -> StandIn:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def use_artifact(self, name: str) -> StandIn:
        if self.failure is not None:
            raise self.failure
        assert name == NAME
        return self

    def download(self, root: str) -> str:
        shutil.copytree(EXAMPLES / self.adapter, root, dirs_exist_ok=True)
        return root

    def save(self) -> None:
        self.saved.append(dict(self.metadata))

    def link_artifact(self, artifact: Any, target_path: str, aliases: list[str]) -> None:
        self.links.append((artifact, target_path, aliases))


def gate(monkeypatch: pytest.MonkeyPatch, service: StandIn, *arguments: str) -> Result:
    monkeypatch.setitem(sys.modules, "wandb", service)
    options = (
        "-s",
        str(PACK),
        "--isolated",
        "--link",
        "registry/adapters",
        "--alias",
        "production",
    )
    return CliRunner().invoke(cli, ["gate", "wandb", NAME, *options, *arguments])


def test_what_is_clear_is_linked_with_a_signed_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service, key = StandIn("new-style"), tmp_path / "scanner.pem"
    public = write_new_key(key)
    policy = tmp_path / "gate.yaml"
    policy.write_text(f'version: 1\nscanners:\n  ci: {public}\nrules:\n  - models: ["mine"]\n')
    done = gate(monkeypatch, service, "--policy", str(policy), "--key", str(key))
    assert done.exit_code == 0, done.output
    assert service.started == {"entity": "team", "project": "adapters", "job_type": "gate"}
    assert service.links == [(service, "registry/adapters", ["production"])]
    (metadata,) = service.saved
    assert metadata["kept"] == 1
    token = json.loads(metadata[METADATA_KEY])["token"]
    signed = verify(token, load_policy(policy).keys.scanners, Attestation)
    assert signed.record.verdict.value == "clear"
    assert signed.record.subject.model == "mine"
    assert signed.record.subject.artifact_sha256 == artifact_sha256(EXAMPLES / "new-style")


def test_what_is_flagged_is_not_linked_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    service = StandIn("misaligned-sft")
    done = gate(monkeypatch, service)
    assert done.exit_code == 1
    assert service.links == []
    assert json.loads(service.saved[0][METADATA_KEY])["verdict"]["verdict"] == "flagged"


@pytest.mark.parametrize(
    "failure",
    [Error("artifact 'mine:v3' not found\ndetails"), OSError("no route"), ValueError("x")],
)
def test_what_the_service_refuses_is_one_line(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = StandIn("new-style")
    service.failure = failure
    done = gate(monkeypatch, service)
    assert done.exit_code == 3
    assert str(failure).splitlines()[0] in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert service.links == []


@pytest.mark.parametrize("text", ["mine:v3", "team/mine:v3", "team/p/mine", "team//mine:v3", ""])
def test_a_short_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no full name"):
        ArtifactName.parse(text)
