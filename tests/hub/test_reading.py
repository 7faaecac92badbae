"""Adapters on a hub: found, opened, scanned, with the same result as local copies."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scanner.errors import (
    LfsPointerError,
    MalformedFileError,
    NothingToScanError,
    NotOnHubError,
    TargetError,
    UnreadableFileError,
    UsageError,
)
from scanner.formats.discover import find_adapters
from scanner.formats.opening import open_files
from scanner.hub.address import HubAddress, parse_address
from scanner.hub.reading import adapters_in, find_hub_adapters, open_hub_adapter
from scanner.hub.snapshot import HubFile, Snapshot
from scanner.results import Verdict
from scanner.scanning.opening import scan
from scanner.signatures.pack import Signature
from tests.hub.adapters import adapter_files, client, misaligned_files
from tests.hub.fixtures import ServeHub
from tests.hub.server import Content, Repository
from tests.synthetic import random_factors, safetensors_bytes, write_adapter

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"


def write_files(root: Path, files: dict[str, Content]) -> Path:
    for name, content in files.items():
        assert isinstance(content, bytes)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_a_scan_on_the_hub_and_of_a_copy_say_the_same(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path
) -> None:
    files = misaligned_files()
    repository = Repository("lab/one", files)
    hub = serve_hub(repository)
    with open_hub_adapter("hf://lab/one", client=client()) as adapter:
        there = scan(adapter, [pack])
    here = scan(write_files(tmp_path / "copy", files), [pack])
    assert there.verdict == Verdict.FLAGGED
    assert there.target == f"hf://lab/one@{repository.head}"
    assert msgspec.structs.replace(there, target="") == msgspec.structs.replace(here, target="")
    assert hub.requests == {"info": 1, "resolve": 2, "cache": 1, "storage": 1}


def many_adapters() -> dict[str, Content]:
    return {
        **adapter_files(folder="", seed=1),
        **adapter_files(folder="b/checkpoint-10", seed=2),
        **adapter_files(folder="b-1", seed=3),
        **adapter_files(folder="B", seed=4),
        **adapter_files(folder=".git/lfs", seed=5),
        "b/checkpoint-10/optimizer.pt": b"\x80\x04.",
        "b-1/another.safetensors": b"",
        "only/adapter_config.json": b"{}",
        "shard/model-00001-of-00002.safetensors": b"",
        "README.md": b"# text",
    }


@pytest.mark.parametrize("folder", ["", "b", "b-1", "b/checkpoint-10", "only", "shard"])
def test_the_same_adapters_are_found_as_in_a_directory(
    serve_hub: ServeHub, tmp_path: Path, folder: str
) -> None:
    files = many_adapters()
    hub = serve_hub(Repository("lab/many", files))
    root = write_files(tmp_path / "copy", files)
    address = HubAddress("lab/many", None, folder)
    found = find_hub_adapters(address, client())
    assert hub.requests == {"info": 1}

    def told(path: Path | None) -> str | None:
        return path.relative_to(root).as_posix() if path else None

    local = [
        (
            told(item.target),
            told(item.weights),
            told(item.config),
            tuple(path.name for path in item.others),
            item.problem and item.problem.what,
        )
        for item in find_adapters(root / folder)
    ]
    assert local == [
        (
            item.address.folder or ".",
            item.weights and item.weights.path,
            item.config and item.config.path,
            item.others,
            item.problem and item.problem.what,
        )
        for item in found
    ]


def test_what_cannot_be_opened_says_what_a_directory_says(
    serve_hub: ServeHub, tmp_path: Path
) -> None:
    whole = adapter_files()
    weights = whole["adapter_model.safetensors"]
    assert isinstance(weights, bytes)
    broken: dict[str, dict[str, Content]] = {
        "truncated": {**whole, "adapter_model.safetensors": weights[:-10]},
        "cut-header": {**whole, "adapter_model.safetensors": weights[:50]},
        "pointer": {**whole, "adapter_model.safetensors": POINTER},
        "config-pointer": {**whole, "adapter_config.json": POINTER},
        "empty": {**whole, "adapter_model.safetensors": b""},
        "hostile": {**whole, "adapter_model.safetensors": b"\xff" * 64},
        "page": {**whole, "adapter_model.safetensors": b"<!DOCTYPE html>" + b" " * 99},
        "no-config-json": {**whole, "adapter_config.json": b"{"},
        "config-only": {"adapter_config.json": whole["adapter_config.json"]},
        "lone-shard": {"model-00001-of-00002.safetensors": weights},
    }
    serve_hub(*(Repository(f"lab/{name}", files) for name, files in broken.items()))

    def said(error: TargetError) -> tuple[type, str]:
        return type(error), error.what

    for name, files in broken.items():
        with pytest.raises(TargetError) as local:
            open_files(find_adapters(write_files(tmp_path / name, files))[0])
        with pytest.raises(TargetError) as remote:
            open_hub_adapter(f"hf://lab/{name}", client=client())
        assert said(remote.value) == said(local.value), name
        assert remote.value.where.startswith(f"hf://lab/{name}@"), name


def test_a_pointer_that_was_committed_is_no_adapter(serve_hub: ServeHub) -> None:
    serve_hub(Repository("lab/p", {**adapter_files(), "adapter_model.safetensors": POINTER}))
    with pytest.raises(LfsPointerError, match="12,345 bytes"):
        open_hub_adapter("hf://lab/p", client=client())


def test_digests_are_known_before_anything_is_fetched(serve_hub: ServeHub, tmp_path: Path) -> None:
    files = adapter_files()
    changed = {**files, "adapter_config.json": b'{"peft_type": "LORA", "r": 9}'}
    hub = serve_hub(
        Repository("lab/one", {**files, "README.md": b"one"}),
        Repository("other/copy", {f"deep/{name}": data for name, data in files.items()}),
        Repository("lab/changed", changed),
        Repository("lab/beside", {**files, "more.safetensors": b"x"}),
    )
    one, copy, other, beside = (
        find_hub_adapters(HubAddress(name), client())[0]
        for name in ("lab/one", "other/copy", "lab/changed", "lab/beside")
    )
    assert one.content_digest == copy.content_digest
    assert len({one.content_digest, other.content_digest, beside.content_digest}) == 3
    assert hub.requests == {"info": 4}


def shards(split: int = 5) -> dict[str, Content]:
    """An adapter in two shards with their index."""
    from tests.synthetic import lora_config, lora_tensors

    tensors = lora_tensors(random_factors(np.random.default_rng(3)))
    names = list(tensors)
    parts = {
        "model-00001-of-00002.safetensors": names[:split],
        "model-00002-of-00002.safetensors": names[split:],
    }
    weight_map = {name: file for file, held in parts.items() for name in held}
    return {
        **{file: safetensors_bytes({n: tensors[n] for n in held}) for file, held in parts.items()},
        "model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode(),
        "adapter_config.json": json.dumps(lora_config()).encode(),
    }


def test_shards_are_read_together(serve_hub: ServeHub, pack: Signature, tmp_path: Path) -> None:
    files = shards()
    serve_hub(Repository("lab/s", files), Repository("lab/t", shards(split=3)))
    (found,) = find_hub_adapters(HubAddress("lab/s"), client())
    (other,) = find_hub_adapters(HubAddress("lab/t"), client())
    assert found.content_digest != other.content_digest
    with found.open() as adapter:
        there = scan(adapter, [pack])
    here = scan(write_files(tmp_path / "copy", files), [pack])
    assert msgspec.structs.replace(there, target="") == msgspec.structs.replace(here, target="")


def test_a_shard_that_is_not_there(serve_hub: ServeHub) -> None:
    files = shards()
    del files["model-00002-of-00002.safetensors"]
    serve_hub(Repository("lab/s", files))
    with pytest.raises(UnreadableFileError, match="model-00002-of-00002"):
        open_hub_adapter("hf://lab/s", client=client())


def test_many_folders_take_no_longer_than_their_number() -> None:
    files = {f"{i}/{name}": HubFile(f"{i}/{name}", 1, "a" * 64, "") for i in range(20_000)
             for name in ("adapter_model.safetensors", "adapter_config.json")}  # fmt: skip
    snapshot = Snapshot(HubAddress("lab/many", "c" * 40), files)
    assert len(adapters_in(snapshot, client())) == 20_000  # squared, it would take hours


def test_addresses_of_files_revisions_and_nothing(serve_hub: ServeHub) -> None:
    old = adapter_files(seed=7)
    repository = Repository("lab/one", many_adapters(), revisions={"v1": old})
    serve_hub(repository, Repository("lab/none", {"README.md": b"x"}))

    def found(text: str) -> list[str]:
        return [item.target for item in find_hub_adapters(parse_address(text), client())]

    head, v1 = repository.head, repository.commit_of(old)
    assert found("hf://lab/one@v1") == [f"hf://lab/one@{v1}"]
    assert found(f"hf://lab/one@{v1}") == [f"hf://lab/one@{v1}"]
    file = "b-1/adapter_model.safetensors"
    assert found(f"hf://lab/one/{file}") == [f"hf://lab/one@{head}/{file}"]
    assert found("hf://lab/one/b-1/adapter_config.json") == [f"hf://lab/one@{head}/b-1"]
    with pytest.raises(UsageError, match=f"6 adapters.*hf://lab/one@{head}/shard"):
        open_hub_adapter("hf://lab/one@main", client=client())
    with pytest.raises(NotOnHubError, match="no such folder"):
        found("hf://lab/one/absent")
    with pytest.raises(NothingToScanError, match="hf://lab/none@"):
        found("hf://lab/none")


def test_other_containers_are_fetched_whole(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path
) -> None:
    import torch

    local = write_adapter(tmp_path / "bin", random_factors(np.random.default_rng(5)))
    from safetensors.torch import load_file

    weights = local / "adapter_model.safetensors"
    torch.save(load_file(weights), local / "adapter_model.bin")
    weights.unlink()
    files: dict[str, Content] = {path.name: path.read_bytes() for path in local.iterdir()}
    serve_hub(Repository("lab/bin", files))
    with open_hub_adapter("hf://lab/bin", client=client()) as adapter:
        there = scan(adapter, [pack])
    here = scan(local, [pack])
    assert msgspec.structs.replace(there, target="") == msgspec.structs.replace(here, target="")


def test_nothing_is_left_in_the_temporary_directory(
    serve_hub: ServeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    serve_hub(
        Repository("lab/one", adapter_files()),
        Repository("lab/bad", {**adapter_files(), "adapter_model.safetensors": b"\xff" * 64}),
    )
    with open_hub_adapter("hf://lab/one", client=client()):
        assert list(scratch.iterdir()) == []  # open, and already without a name
    with pytest.raises(TargetError):
        open_hub_adapter("hf://lab/bad", client=client())
    assert list(scratch.iterdir()) == []


def test_no_room_for_the_copy_is_an_error(
    serve_hub: ServeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    serve_hub(Repository("lab/one", adapter_files()))
    with pytest.raises(TargetError, match=r"cannot be kept in .*set TMPDIR"):
        open_hub_adapter("hf://lab/one", client=client())


def test_a_large_header_is_no_memory_bomb(serve_hub: ServeHub) -> None:
    header = (2**40).to_bytes(8, "little")
    files = {**adapter_files(), "adapter_model.safetensors": header + b"{" * 4096}
    serve_hub(Repository("lab/one", files))
    with pytest.raises(TargetError, match="claims 1,099,511,627,776 bytes"):
        open_hub_adapter("hf://lab/one", client=client())


def test_a_config_that_is_too_large_is_not_fetched(serve_hub: ServeHub) -> None:
    hub = serve_hub(Repository("lab/one", {**adapter_files(), "adapter_config.json": b" " * 2**23}))
    with pytest.raises(TargetError, match="8,388,608 bytes"):
        open_hub_adapter("hf://lab/one", client=client())
    assert hub.requests == {"info": 1}


def test_a_malformed_tensor_is_named_as_on_disk(serve_hub: ServeHub) -> None:
    raw = b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}'
    weights = len(raw).to_bytes(8, "little") + raw + b"\0" * 4
    serve_hub(Repository("lab/one", {**adapter_files(), "adapter_model.safetensors": weights}))
    with pytest.raises(MalformedFileError, match="tensor 'x'"):
        open_hub_adapter("hf://lab/one", client=client())
