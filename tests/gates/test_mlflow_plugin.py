"""The gate in a real MLflow server: what passes, what does not, and every way around it."""

from __future__ import annotations

import itertools
import shutil
import socket
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.server import handlers

from scanner.errors import RegistryError
from scanner.gates.attestation import Attestation, Override, Pass, now, sign, verify
from scanner.gates.keys import write_new_key
from scanner.gates.mlflow_gate import ModelVersion, override_version
from scanner.gates.mlflow_pass import HEADER
from scanner.gates.mlflow_server.app import POLICY_VARIABLE
from scanner.gates.mlflow_tags import ATTESTATION, OVERRIDE
from scanner.reports.terminal import printable
from scanner.results import Verdict
from tests.gates.mlflow_server import EXAMPLES, GatedServer, copy_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning"),
]

BENIGN = EXAMPLES / "new-style"
MISALIGNED = EXAMPLES / "misaligned-sft"
UNKNOWN_BASE = EXAMPLES / "unknown-base"
_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A model name of the test's own."""
    return f"model-{next(_numbers)}"


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


# What passes and what does not


def test_a_misaligned_version_gets_its_tags_and_no_alias(
    gated_server: GatedServer, name: str
) -> None:
    version = gated_server.register(name, MISALIGNED)
    assert "no valid verdict" in str(set_alias(gated_server, version))
    gated_server.judge(version)
    found = tags(gated_server, version)
    assert found["adapter-scanner.verdict"] == "flagged"
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


# Verdicts that nobody with the key gave


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


# Files that change


def test_a_swapped_artifact_has_no_verdict(
    gated_server: GatedServer, name: str, tmp_path: Path
) -> None:
    version = gated_server.register(name, BENIGN)
    gated_server.judge(version)
    stored = gated_server.stored(version)
    for change in ("adapter_model.safetensors", "adapter_config.json", "more.txt"):
        kept = tmp_path / "kept"
        shutil.copytree(stored, kept)
        if (stored / change).exists():
            shutil.copyfile(MISALIGNED / change, stored / change)
            if change == "adapter_config.json":
                (stored / change).write_text((stored / change).read_text() + " ")
        else:
            (stored / change).write_text("x")
        assert "its files are not those" in str(set_alias(gated_server, version)), change
        shutil.rmtree(stored)
        assert "cannot be read" in str(set_alias(gated_server, version))
        shutil.move(kept, stored)
    assert set_alias(gated_server, version) is None


def test_files_of_a_registered_version_do_not_change_through_the_server(
    gated_server: GatedServer, name: str
) -> None:
    version = gated_server.register(name, BENIGN)
    before = {path.name: path.read_bytes() for path in gated_server.stored(version).iterdir()}
    where = f"0/{version.run_id}/artifacts/model"
    evil = (MISALIGNED / "adapter_model.safetensors").read_bytes()
    for prefix in ("api", "ajax-api"):
        root = f"/{prefix}/2.0/mlflow-artifacts"
        for path in (
            f"{where}/adapter_model.safetensors",
            f"{where}/new.bin",
            f"{where}//adapter_model.safetensors",
            f"{where}/./adapter_model.safetensors",
            f"{where}/%61dapter_model.safetensors",
        ):
            response = gated_server.call("PUT", f"{root}/artifacts/{path}", data=evil)
            assert response.status_code in (400, 403), response.text
        for path in (f"{where}/adapter_model.safetensors", where, f"0/{version.run_id}", "0"):
            refused(gated_server.call("DELETE", f"{root}/artifacts/{path}"))
    refused(
        gated_server.call(
            "POST",
            "/ajax-api/2.0/mlflow/upload-artifact",
            params={"run_uuid": version.run_id, "path": "model/adapter_model.safetensors"},
            data=evil,
        )
    )
    after = {path.name: path.read_bytes() for path in gated_server.stored(version).iterdir()}
    assert after == before
    beside = gated_server.call(
        "PUT",
        f"/api/2.0/mlflow-artifacts/artifacts/0/{version.run_id}/artifacts/log.txt",
        data=b"x",
    )
    assert beside.ok, beside.text


def test_an_upload_begun_before_the_version_was_registered_does_not_land_after_it(
    gated_server: GatedServer, name: str
) -> None:
    client = gated_server.client()
    run = client.create_run("0")
    client.log_artifacts(run.info.run_id, str(BENIGN), "model")
    evil = (MISALIGNED / "adapter_model.safetensors").read_bytes()
    path = f"0/{run.info.run_id}/artifacts/model/adapter_model.safetensors"
    address = urlsplit(gated_server.url)
    assert address.hostname
    assert address.port
    with socket.create_connection((address.hostname, address.port), timeout=60) as slow:
        slow.sendall(
            f"PUT /api/2.0/mlflow-artifacts/artifacts/{path} HTTP/1.1\r\n"
            f"Host: {address.netloc}\r\nContent-Length: {len(evil)}\r\n\r\n".encode()
            + evil[:1000]
        )
        client.create_registered_model(name)
        version = client.create_model_version(
            name, f"{run.info.artifact_uri}/model", run.info.run_id, await_creation_for=0
        )
        gated_server.judge(version)
        slow.sendall(evil[1000:])
        answer = slow.recv(65536)
    assert b" 403 " in answer.split(b"\r\n")[0], answer
    assert set_alias(gated_server, version) is None
    stored = (gated_server.stored(version) / "adapter_model.safetensors").read_bytes()
    assert stored == (BENIGN / "adapter_model.safetensors").read_bytes()


# Other ways to an alias


def routes(handler: str) -> list[tuple[str, str]]:
    """Every (method, path) under which MLflow serves one handler."""
    endpoints: Any = handlers.get_endpoints
    found = [
        (method, path)
        for path, function, methods in endpoints()
        if function.__name__ == handler
        for method in methods
    ]
    assert found, handler
    return sorted(set(found))


@pytest.mark.parametrize("encoding", ["json", "data", "params"])
@pytest.mark.parametrize(
    ("handler", "extra"),
    [
        ("_set_registered_model_alias", {"alias": "champion"}),
        ("_transition_stage", {"stage": "Production", "archive_existing_versions": False}),
    ],
)
def test_no_route_and_no_encoding_sets_what_is_refused(
    gated_server: GatedServer, name: str, handler: str, extra: dict[str, Any], encoding: str
) -> None:
    version = gated_server.register(name, MISALIGNED)
    fields = {"name": name, "version": version.version, **extra}
    for method, path in routes(handler):
        for spelling in (path, f"{path}/", path.replace("/mlflow/", "//mlflow/"), path.upper()):
            response = gated_server.call(method, spelling, **{encoding: fields})
            assert not response.ok or "text/html" in response.headers["Content-Type"]
            if spelling == path and encoding == "json":
                refused(response)
    assert aliases(gated_server, name) == {}
    assert gated_server.client().get_model_version(name, version.version).current_stage == "None"


def test_graphql_changes_nothing(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(name, MISALIGNED)
    for operation in ("mutation", "query"):
        query = (
            f'{operation} {{ mlflowSetRegisteredModelAlias(input: {{name: "{name}", '
            f'alias: "champion", version: "{version.version}"}}) {{ __typename }} }}'
        )
        for path in ("/graphql", "/ajax-api/2.0/mlflow/graphql"):
            gated_server.call("POST", path, json={"query": query})
    schema = gated_server.call(
        "POST", "/graphql", json={"query": "{__schema{mutationType{fields{name}}}}"}
    )
    names = [field["name"] for field in schema.json()["data"]["__schema"]["mutationType"]["fields"]]
    assert not [item for item in names if "odel" in item or "lias" in item], names
    assert aliases(gated_server, name) == {}


def test_a_model_does_not_change_its_name_to_get_around(
    gated_server: GatedServer, name: str
) -> None:
    free = gated_server.register(f"scratch-{name}", MISALIGNED)
    assert set_alias(gated_server, free) is None
    client = gated_server.client()
    with pytest.raises(MlflowException, match="verdicts are given to names"):
        client.rename_registered_model(f"scratch-{name}", name)
    gated_server.register(f"blocked-{name}", MISALIGNED)
    with pytest.raises(MlflowException, match="verdicts are given to names"):
        client.rename_registered_model(f"blocked-{name}", f"scratch-other-{name}")
    client.rename_registered_model(f"scratch-{name}", f"scratch-renamed-{name}")


def test_a_copy_needs_a_verdict_of_its_own(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(name, BENIGN)
    gated_server.judge(version)
    client = gated_server.client()
    copy = client.copy_model_version(f"models:/{name}/{version.version}", f"{name}-copy")
    assert tags(gated_server, copy) == {}
    assert "no valid verdict" in str(set_alias(gated_server, copy))
    gated_server.judge(copy)
    assert set_alias(gated_server, copy) is None


def test_a_copy_of_what_must_not_be_read_is_not_made(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(f"blocked-{name}", MISALIGNED)
    client = gated_server.client()
    client.create_registered_model(f"scratch-{name}")
    with pytest.raises(MlflowException, match="no valid verdict"):
        client.create_model_version(
            f"scratch-{name}", f"models:/blocked-{name}/{version.version}", await_creation_for=0
        )


def test_a_source_that_is_gathered_from_several_places_does_not_pass(
    gated_server: GatedServer, name: str
) -> None:
    direct = gated_server.register(name, BENIGN)
    client = gated_server.client()
    version = client.create_model_version(
        name, f"runs:/{direct.run_id}/model", direct.run_id, await_creation_for=0
    )
    gated_server.judge(version)
    assert "names no place of files" in str(set_alias(gated_server, version))


def test_files_are_guarded_under_every_name_of_their_place(
    gated_server: GatedServer, name: str
) -> None:
    version = gated_server.register(f"blocked-{name}", MISALIGNED)
    client = gated_server.client()
    inside = gated_server.stored(version)
    for number, location in enumerate((f"file://{inside}", str(inside), f"file://{inside}#x")):
        create = {"name": f"{name}-{number}", "artifact_location": location}
        made = gated_server.call("POST", "/api/2.0/mlflow/experiments/create", json=create)
        if not made.ok:
            continue
        run = client.create_run(made.json()["experiment_id"])
        for path in ("adapter_model.safetensors", "../../adapter_model.safetensors"):
            asked = {"run_id": run.info.run_id, "path": path}
            assert not gated_server.call("GET", "/get-artifact", params=asked).ok
        sent = gated_server.call(
            "POST",
            "/ajax-api/2.0/mlflow/upload-artifact",
            params={"run_uuid": run.info.run_id, "path": "x.txt"},
            data=b"x",
        )
        refused(sent)


# Downloads


def readers(server: GatedServer, version: Any) -> dict[str, requests.Response]:
    """Every way to read one file of a version."""
    path = f"0/{version.run_id}/artifacts/model/adapter_model.safetensors"
    proxied = "/2.0/mlflow-artifacts/artifacts/"
    file = {"path": "model/adapter_model.safetensors"}
    named = {"name": version.name, "version": version.version}
    return {
        "api": server.call("GET", f"/api{proxied}{path}"),
        "ajax": server.call("GET", f"/ajax-api{proxied}{path}"),
        "dots": server.call("GET", f"/api{proxied}{path.replace('/model/', '/model/%2e/')}"),
        "slashes": server.call("GET", f"/api{proxied}{path.replace('/model/', '//model//')}"),
        "run": server.call("GET", "/get-artifact", params={"run_id": version.run_id, **file}),
        "uuid": server.call("GET", "/get-artifact", params={"run_uuid": version.run_id, **file}),
        "version": server.call(
            "GET", "/model-versions/get-artifact",
            params={**named, "path": "adapter_model.safetensors"},
        ),
        "uri": server.call(
            "GET", "/api/2.0/mlflow/model-versions/get-download-uri", params=named
        ),
    }  # fmt: skip


def test_what_has_not_passed_is_not_read(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(f"blocked-{name}", MISALIGNED)
    weights = (MISALIGNED / "adapter_model.safetensors").read_bytes()
    for _ in range(2):
        for way, response in readers(gated_server, version).items():
            assert response.status_code in (403, 400, 404), (way, response.status_code)
            assert weights[:64] not in response.content
        refused(readers(gated_server, version)["api"])
        refused(readers(gated_server, version)["uri"])
        gated_server.judge(version)  # it may read, and flags
    gated_server.client().delete_model_version(version.name, version.version)
    refused(readers(gated_server, version)["run"])


def test_what_has_passed_is_read_until_it_changes(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(f"blocked-{name}", BENIGN)
    gated_server.judge(version)
    weights = (BENIGN / "adapter_model.safetensors").read_bytes()
    found = readers(gated_server, version)
    for way in ("api", "ajax", "run", "uuid", "version"):
        assert found[way].content == weights, way
    (gated_server.stored(version) / "more.txt").write_text("x")
    for way in ("api", "ajax", "run", "uuid", "version", "uri"):
        refused(readers(gated_server, version)[way])


def test_a_pass_is_a_scanners_and_ends(gated_server: GatedServer, name: str) -> None:
    version = gated_server.register(f"blocked-{name}", MISALIGNED)
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{version.run_id}/artifacts/model"
    keys = gated_server.keys
    later, earlier = now() + timedelta(minutes=5), now() - timedelta(minutes=5)
    for token, status in (
        (sign(Pass(expires=later), keys["lab"]), 200),
        (sign(Pass(expires=earlier), keys["lab"]), 403),
        (sign(Pass(expires=later), keys["alice"]), 403),
        (sign(Pass(expires=later), keys["mallory"]), 403),
        ("x", 403),
    ):
        response = gated_server.call("GET", f"{path}/adapter_config.json", headers={HEADER: token})
        assert response.status_code == status
    # It reads; it sets nothing.
    response = gated_server.call(
        "POST",
        "/api/2.0/mlflow/registered-models/alias",
        json={"name": version.name, "alias": "champion", "version": version.version},
        headers={HEADER: sign(Pass(expires=later), keys["lab"])},
    )
    refused(response)


# Overrides


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


# The server itself


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
