"""Ways around the gate in a real MLflow server: files, routes, names, downloads."""

from __future__ import annotations

import shutil
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.server import handlers

from scanner.gates.attestation import Pass, now, sign
from scanner.gates.mlflow_pass import HEADER
from tests.gates.mlflow_calls import (
    BENIGN,
    MISALIGNED,
    aliases,
    refused,
    set_alias,
    tags,
)
from tests.gates.mlflow_server import GatedServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning"),
]


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
