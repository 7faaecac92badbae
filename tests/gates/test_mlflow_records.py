"""Verdicts and overrides that somebody without the right key wants to be believed."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from mlflow.exceptions import MlflowException

from scanner.errors import RegistryError
from scanner.gates.attestation import Override, sign, verify
from scanner.gates.mlflow_gate import ModelVersion, override_version
from scanner.gates.mlflow_tags import ATTESTATION, OVERRIDE
from scanner.reports.terminal import printable
from scanner.results import Verdict
from tests.gates.mlflow_calls import (
    BENIGN,
    MISALIGNED,
    set_alias,
    slip_in,
    tags,
)
from tests.gates.mlflow_server import GatedServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning"),
]


def test_a_forged_tag_is_refused(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(name, MISALIGNED)
    client = gated_server.client()
    forgeries = {
        ATTESTATION: "v1.clear",
        OVERRIDE: "yes",
        "adapter-scanner.verdict": "clear",
        "adapter-scanner.other": "x",
        "Adapter-Scanner.verdict": "clear",
        " adapter-scanner.verdict": "clear",
    }
    for key, value in forgeries.items():
        with pytest.raises(MlflowException, match="adapter-scanner: "):
            client.set_model_version_tag(name, version.version, key, value)
        with pytest.raises(MlflowException, match="adapter-scanner: "):
            client.set_registered_model_tag(name, key, value)
        with pytest.raises(MlflowException, match="adapter-scanner: "):
            client.create_model_version(name, version.source, version.run_id, tags={key: value})
        with pytest.raises(MlflowException, match="adapter-scanner: "):
            client.create_registered_model(f"{name}-{len(key)}", tags={key: value})
    assert tags(gated_server, version) == {}
    client.set_model_version_tag(name, version.version, "reviewed", "yes")
    assert set_alias(gated_server, version) is not None


@pytest.mark.parametrize("signer", ["mallory", "alice"])
def test_a_verdict_signed_by_another_is_refused(
    gated_server: GatedServer, name: str, signer: str
) -> None:
    version = gated_server.register(name, MISALIGNED)
    with pytest.raises(RegistryError, match="not believed"):
        gated_server.judge(version, signer)
    assert tags(gated_server, version) == {}


def test_a_tag_that_slips_in_is_not_believed(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(name, MISALIGNED)
    honest = gated_server.judge(version).attestation
    lie = msgspec.structs.replace(honest, verdict=Verdict.CLEAR)
    slip_in(gated_server, version, "adapter-scanner.verdict", "clear")
    for token in (sign(lie, gated_server.keys["mallory"]), "clear", ""):
        slip_in(gated_server, version, ATTESTATION, token)
        assert "no valid verdict" in str(set_alias(gated_server, version))


def test_a_verdict_cannot_be_taken_away_or_turned_back(
    gated_server: GatedServer, name: str
) -> None:
    version = gated_server.register(name, MISALIGNED)
    flagged = gated_server.judge(version).attestation
    client = gated_server.client()
    for key in (ATTESTATION, "adapter-scanner.verdict"):
        with pytest.raises(MlflowException, match="a newer verdict"):
            client.delete_model_version_tag(name, version.version, key)
    for earlier in (timedelta(seconds=1), timedelta(0)):
        older = msgspec.structs.replace(flagged, verdict=Verdict.CLEAR, time=flagged.time - earlier)
        with pytest.raises(MlflowException, match="newer verdict"):
            client.set_model_version_tag(
                name, version.version, ATTESTATION, sign(older, gated_server.keys["lab"])
            )


def test_a_verdict_is_no_good_for_another_version(gated_server: GatedServer, name: str) -> None:
    clear = gated_server.register(name, BENIGN)
    gated_server.judge(clear)
    token = tags(gated_server, clear)[ATTESTATION]
    other = gated_server.register(name, MISALIGNED)
    client = gated_server.client()
    with pytest.raises(MlflowException, match="another version"):
        client.set_model_version_tag(name, other.version, ATTESTATION, token)
    slip_in(gated_server, other, ATTESTATION, token)
    assert "another version" in str(set_alias(gated_server, other))


def test_a_version_made_again_under_its_old_number_is_another(
    gated_server: GatedServer, name: str
) -> None:
    version = gated_server.register(name, BENIGN)
    gated_server.judge(version)
    token = tags(gated_server, version)[ATTESTATION]
    client = gated_server.client()
    client.delete_registered_model(name)
    again = gated_server.register(name, BENIGN)
    assert again.version == version.version
    with pytest.raises(MlflowException, match="another version"):
        client.set_model_version_tag(name, again.version, ATTESTATION, token)


def test_an_override_of_a_named_person_is_recorded(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(name, MISALIGNED)
    client = gated_server.client()
    target = ModelVersion(name, version.version)
    with pytest.raises(RegistryError, match="no verdict yet"):
        override_version(target, "too early", 7, gated_server.keys["alice"], client)
    gated_server.judge(version)
    for person in ("bob", "mallory", "lab"):
        with pytest.raises(RegistryError, match=r"may not override|not believed"):
            override_version(target, "please", 7, gated_server.keys[person], client)
    assert "flagged" in str(set_alias(gated_server, version))
    reason = "a red-team organism,\nrefused: nothing"
    override_version(target, reason, 7, gated_server.keys["alice"], client)
    assert set_alias(gated_server, version) is None
    found = tags(gated_server, version)
    assert found["adapter-scanner.override_reason"] == reason
    assert found["adapter-scanner.verdict"] == "flagged"
    people = {"alice": gated_server.keys["alice"].public}
    assert verify(found[OVERRIDE], people, Override).record.reason == reason
    log = (gated_server.root / "server.log").read_text()
    assert printable(reason) in log
    assert reason not in log


def test_an_override_is_about_files_and_ends(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(name, MISALIGNED)
    gated_server.judge(version)
    client = gated_server.client()
    alice = gated_server.keys["alice"]
    record = override_version(ModelVersion(name, version.version), "once", 7, alice, client)
    (gated_server.stored(version) / "more.txt").write_text("x")
    assert "its files are not those" in str(set_alias(gated_server, version))
    (gated_server.stored(version) / "more.txt").unlink()
    over = msgspec.structs.replace(record, expires=record.time - timedelta(days=1))
    client.set_model_version_tag(name, version.version, OVERRIDE, sign(over, alice))
    assert "ended" in str(set_alias(gated_server, version))
