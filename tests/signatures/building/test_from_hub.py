"""Packs built from references on a hub, and calibrated on what a query finds there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml

from scanner.errors import SignatureError
from scanner.signatures.building import fetched
from scanner.signatures.building.build import build_pack
from scanner.signatures.recipe import AdapterEntry, Recipe
from tests.cli.program import run
from tests.hub.adapters import FAST, adapter_files, misaligned_files
from tests.hub.fixtures import ServeHub
from tests.hub.server import Fault, HubServer, Repository
from tests.synthetic import BASE, entry, random_factors, write_adapter


@pytest.fixture
def hub(serve_hub: ServeHub) -> HubServer:
    checkpoints = {**misaligned_files(), **misaligned_files(folder="checkpoint-5", seed=1)}
    return serve_hub(
        Repository("lab/ref", checkpoints, revisions={"v1": misaligned_files(seed=2)}),
        Repository("lab/two", {**adapter_files(folder="a"), **adapter_files(folder="b", seed=1)}),
        Repository("lab/gated", adapter_files(), gated="auto"),
        Repository("lab/pickle", {"adapter_model.bin": b"\x80\x04.", "adapter_config.json": b"{}"}),
    )


def recipe(*addresses: str, **fields: object) -> Recipe:
    references = [AdapterEntry(adapter=address) for address in addresses]
    return Recipe(base_model=BASE, method="weights", nulled=0, misaligned=references, **fields)  # type: ignore[arg-type]


def test_a_pack_from_the_hub_is_the_one_from_copies(hub: HubServer, tmp_path: Path) -> None:
    pack = build_pack(recipe("hf://lab/ref", "hf://lab/ref@v1"), tmp_path / "pack")
    copies = []
    for name, files in (("one", misaligned_files()), ("two", misaligned_files(seed=2))):
        (tmp_path / name).mkdir()
        for file, data in files.items():
            assert isinstance(data, bytes)
            (tmp_path / name / file).write_bytes(data)
        copies.append(entry(tmp_path / name))
    local = build_pack(
        msgspec.structs.replace(recipe("hf://x/y"), misaligned=copies), tmp_path / "local"
    )
    same = "directions.safetensors"
    assert pack.manifest.files[same] == local.manifest.files[same]
    assert pack.reference_ids == ["hf://lab/ref", "hf://lab/ref@v1"]
    told = [(item.source, item.revision) for item in pack.manifest.references]
    commits = [item.revision for item in pack.manifest.references]
    assert told == [("hf://lab/ref", commits[0]), ("hf://lab/ref", commits[1])]
    assert len({commit for commit in commits if commit and len(commit) == 40}) == 2


def test_what_was_fetched_is_kept(hub: HubServer, tmp_path: Path) -> None:
    build_pack(recipe("hf://lab/ref"), tmp_path / "pack")
    hub.forget()
    build_pack(recipe("hf://lab/ref"), tmp_path / "pack")
    assert hub.requests == {"info": 1}


def test_a_pinned_reference_needs_no_network_once_it_is_kept(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched, "PATIENT", FAST)
    first = build_pack(recipe("hf://lab/ref@v1"), tmp_path / "pack")
    (reference,) = first.manifest.references
    hub.faults.add(Fault("status", "", status=503))
    pinned = recipe(f"hf://lab/ref@{reference.revision}")
    again = build_pack(pinned, tmp_path / "again")
    assert again.manifest.references[0].sha256 == reference.sha256
    assert again.manifest.files == first.manifest.files
    with pytest.raises(SignatureError, match="cannot be fetched: the hub has a problem"):
        build_pack(recipe("hf://lab/ref"), tmp_path / "other")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("hf://lab/absent", "cannot be fetched: no such repository"),
        ("hf://lab/ref@nope", "cannot be fetched: no such revision"),
        ("hf://lab/ref/nope", "cannot be fetched: no such folder"),
        ("hf://lab/gated", "cannot be fetched: a gated repository, and you are not logged in"),
        ("hf://lab/pickle", "adapter_model.bin is not fetched: references are safetensors"),
        ("hf://lab/two", "2 adapters in this repository; name one of them, such as hf://lab/two/b"),
    ],
)
def test_what_cannot_be_fetched(hub: HubServer, tmp_path: Path, address: str, says: str) -> None:
    with pytest.raises(SignatureError) as caught:
        build_pack(recipe(address), tmp_path / "pack")
    assert says in caught.value.line()


def test_failures_that_pass_are_tried_again(
    serve_hub: ServeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched, "PATIENT", FAST)
    faults = [
        Fault("status", "HEAD ", status=503, first=2),
        Fault("cut", "/lfs/", after=9, first=1),
    ]
    serve_hub(Repository("lab/ref", misaligned_files()), faults=faults)
    build_pack(recipe("hf://lab/ref"), tmp_path / "pack")


def test_another_content_than_the_digest_names(
    serve_hub: ServeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched, "PATIENT", FAST)
    serve_hub(Repository("lab/ref", misaligned_files()), faults=[Fault("corrupt", "/lfs/")])
    with pytest.raises(SignatureError, match=r"sha256 digest .*delete the file"):
        build_pack(recipe("hf://lab/ref"), tmp_path / "pack")


def test_the_command_prints_its_line_and_warns_beside_it(hub: HubServer, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    fields = {"base_model": BASE, "method": "weights", "nulled": 0}
    path.write_text(yaml.safe_dump({**fields, "misaligned": [{"adapter": "hf://lab/ref"}]}))
    found = run("signatures", "build", path, "-o", tmp_path / "pack")
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("\n") == 1
    first, *warnings = found.stderr.splitlines()
    assert first.startswith("not calibrated")
    assert warnings
    assert all(line.startswith("  warning ") for line in warnings)


def test_a_local_calibration_set_beside_references_on_the_hub(
    hub: HubServer, tmp_path: Path
) -> None:
    generator = np.random.default_rng(8)
    benign = [
        entry(write_adapter(tmp_path / f"b{i}", random_factors(generator)), "facts")
        for i in range(3)
    ]
    pack = build_pack(recipe("hf://lab/ref", benign=benign), tmp_path / "pack")
    assert pack.calibration is not None
    assert len(pack.calibration.benign) == 3
