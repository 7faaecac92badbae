"""The test hub, through the real huggingface_hub client."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session, http_backoff

from tests.hub.fixtures import ServeHub
from tests.hub.server import Fault, HubServer, Repository

WEIGHTS = bytes(range(256)) * 16
CONFIG = b'{"peft_type": "LORA"}'
NEW = datetime(2024, 5, 1, tzinfo=timezone.utc)


def repository(name: str, **fields: object) -> Repository:
    files = {"adapter_config.json": CONFIG, "sub/adapter_model.safetensors": WEIGHTS}
    return Repository(name, files, **fields)  # type: ignore[arg-type]


def test_listing_pages_with_a_cursor_and_filters_by_base(serve_hub: ServeHub) -> None:
    many = [
        repository(f"lab/a{i:02}", base_model="org/base", last_modified=NEW + timedelta(hours=i))
        for i in range(7)
    ]
    hub = serve_hub(*many, repository("lab/other", base_model="org/else"), page_size=3)
    api = HfApi(endpoint=hub.endpoint)
    wanted = "base_model:adapter:org/base"
    found = list(api.list_models(filter=wanted, sort="last_modified", full=True))
    assert [item.id for item in found] == [f"lab/a{i:02}" for i in reversed(range(7))]
    assert found[0].sha == many[-1].head
    assert found[0].last_modified == NEW + timedelta(hours=6)
    assert hub.requests["list"] == 3
    assert len(list(api.list_models(filter=wanted, limit=2))) == 2
    assert [item.id for item in api.list_models(author="lab", search="OTHER")] == ["lab/other"]


def test_info_tells_sizes_and_lfs_digests(serve_hub: ServeHub) -> None:
    one = repository("lab/one", revisions={"v1": {"README.md": b"old"}})
    api = HfApi(endpoint=serve_hub(one).endpoint)
    info = api.model_info("lab/one", files_metadata=True)
    assert info.sha == one.head
    plain, lfs = info.siblings or []
    assert (plain.size, plain.lfs) == (len(CONFIG), None)
    assert lfs.lfs is not None
    assert lfs.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    old = api.model_info("lab/one", revision="v1")
    assert [item.rfilename for item in old.siblings or []] == ["README.md"]
    with pytest.raises(RevisionNotFoundError):
        api.model_info("lab/one", revision="nope")


def test_tree_and_paths_info_agree(serve_hub: ServeHub) -> None:
    api = HfApi(endpoint=serve_hub(repository("lab/one")).endpoint)
    entries = {entry.path: entry for entry in api.list_repo_tree("lab/one", recursive=True)}
    assert set(entries) == {"adapter_config.json", "sub", "sub/adapter_model.safetensors"}
    (named,) = api.get_paths_info("lab/one", ["sub/adapter_model.safetensors", "absent"])
    assert named == entries["sub/adapter_model.safetensors"]


def test_downloads_are_redirected_to_the_storage_without_the_token(
    serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = serve_hub(repository("lab/one", gated="auto"), tokens={"hf_ok": ["lab/one"]})
    monkeypatch.setenv("HF_TOKEN", "hf_ok")
    path = hf_hub_download("lab/one", "sub/adapter_model.safetensors", endpoint=hub.endpoint)
    assert Path(path).read_bytes() == WEIGHTS
    assert hub.requests["storage"] == 1
    path = hf_hub_download("lab/one", "adapter_config.json", endpoint=hub.endpoint)
    assert Path(path).read_bytes() == CONFIG


def test_metadata_of_a_file(serve_hub: ServeHub) -> None:
    one = repository("lab/one")
    hub = serve_hub(one)
    url = hf_hub_url("lab/one", "sub/adapter_model.safetensors", endpoint=hub.endpoint)
    metadata = get_hf_file_metadata(url)
    assert metadata.commit_hash == one.head
    assert metadata.etag == hashlib.sha256(WEIGHTS).hexdigest()
    assert metadata.size == len(WEIGHTS)
    assert metadata.location.startswith(hub.storage)
    assert hub.requests["storage"] == 0


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("bytes=3-9", 206, WEIGHTS[3:10]),
        ("bytes=4090-", 206, WEIGHTS[4090:]),
        ("bytes=-5", 206, WEIGHTS[-5:]),
        ("bytes=4090-9999", 206, WEIGHTS[4090:]),
        ("bytes=9999-", 416, b""),
    ],
)
def test_ranges(serve_hub: ServeHub, wanted: str, status: int, body: bytes) -> None:
    hub = serve_hub(repository("lab/one"))
    url = hf_hub_url("lab/one", "sub/adapter_model.safetensors", endpoint=hub.endpoint)
    answer = get_session().get(url, headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (status, body)
    assert hub.bytes["storage"] == len(body)


def download(hub: HubServer, name: str = "lab/one", path: str = "adapter_config.json") -> str:
    return hf_hub_download(name, path, endpoint=hub.endpoint)


def test_who_may_read_what(serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = serve_hub(
        repository("lab/gated", gated="manual"),
        repository("lab/private", private=True),
        tokens={"hf_ok": ["lab/gated", "lab/private"], "hf_stranger": []},
    )
    statuses = {}
    for token in (None, "hf_stranger", "hf_invalid"):
        monkeypatch.delenv("HF_TOKEN", raising=False)
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        for name in ("lab/gated", "lab/private", "lab/absent"):
            with pytest.raises(HfHubHTTPError) as caught:
                download(hub, name)
            kind = type(caught.value)
            statuses[(token, name)] = (caught.value.response.status_code, kind)
    assert statuses == {
        (None, "lab/gated"): (401, GatedRepoError),
        (None, "lab/private"): (401, RepositoryNotFoundError),
        (None, "lab/absent"): (401, RepositoryNotFoundError),
        ("hf_stranger", "lab/gated"): (403, GatedRepoError),
        ("hf_stranger", "lab/private"): (404, RepositoryNotFoundError),
        ("hf_stranger", "lab/absent"): (404, RepositoryNotFoundError),
        ("hf_invalid", "lab/gated"): (401, HfHubHTTPError),
        ("hf_invalid", "lab/private"): (401, HfHubHTTPError),
        ("hf_invalid", "lab/absent"): (401, HfHubHTTPError),
    }
    monkeypatch.setenv("HF_TOKEN", "hf_ok")
    assert Path(download(hub, "lab/private")).read_bytes() == CONFIG
    with pytest.raises(RemoteEntryNotFoundError):
        download(hub, "lab/gated", "absent.json")
    assert {item.id for item in HfApi(endpoint=hub.endpoint).list_models()} == {
        "lab/gated",
        "lab/private",
    }


def test_faults_are_counted_out(serve_hub: ServeHub) -> None:
    fault = Fault("status", r"/api/models/lab/one", first=2, status=429, retry_after=0)
    hub = serve_hub(repository("lab/one"), faults=[fault])
    answer = http_backoff("GET", f"{hub.endpoint}/api/models/lab/one", base_wait_time=0.01)
    assert answer.status_code == 200
    assert hub.requests["info"] == 3


def test_a_cut_connection_is_one(serve_hub: ServeHub) -> None:
    hub = serve_hub(repository("lab/one"), faults=[Fault("cut", "GET /lfs/", after=100, first=1)])
    path = download(hub, path="sub/adapter_model.safetensors")
    assert Path(path).read_bytes() == WEIGHTS
    assert hub.requests["storage"] == 2
    assert hub.bytes["storage"] == 100 + len(WEIGHTS)
