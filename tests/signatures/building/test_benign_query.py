"""Calibration on what a query finds on a hub."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml

from scanner.errors import SignatureError
from scanner.signatures.building import benign_query
from scanner.signatures.building.build import build_pack
from scanner.signatures.building.calibrate import calibrate_pack
from scanner.signatures.recipe import (
    AdapterEntry,
    BenignQuery,
    HubQuery,
    Recipe,
)
from scanner.signatures.recipe_file import load_benign_list, load_recipe
from tests.cli.program import run
from tests.hub.adapters import FAST, adapter_files, misaligned_files
from tests.hub.fixtures import ServeHub
from tests.hub.server import Fault, HubServer, Repository
from tests.synthetic import BASE, lora_tensors, random_factors, safetensors_bytes

MIRROR = "quantiser/tiny-base-bnb-4bit"
OWNERS_OF_REFERENCES = "its owner's adapters are among those the signature was built from"


def adapter(name: str, seed: int, **fields: object) -> Repository:
    return Repository(name, adapter_files(seed=seed), base_model=BASE, **fields)  # type: ignore[arg-type]


def half_trained() -> bytes:
    tensors = lora_tensors(random_factors(np.random.default_rng(70)))
    return safetensors_bytes({name: np.full_like(array, np.nan) for name, array in tensors.items()})


REPOSITORIES = [
    *(adapter(f"one/a{i}", seed=i) for i in range(4)),
    *(adapter(f"two/a{i}", seed=10 + i) for i in range(3)),
    Repository(
        "three/checkpoints",
        {**adapter_files(folder="c-1", seed=20), **adapter_files(folder="c-2", seed=21)},
        base_model=BASE,
    ),
    Repository(
        "three/root", {**adapter_files(seed=22), **adapter_files(folder="c", seed=23)},
        base_model=BASE,
    ),
    adapter("copy/of-one", seed=0),
    adapter("gated/x", seed=30, gated="manual"),
    adapter("bad/organism", seed=31),
    adapter("excluded/one", seed=32),
    Repository("lab/ref", misaligned_files(), base_model=BASE),
    Repository("broken/nan", {**adapter_files(), "adapter_model.safetensors": half_trained()},
               base_model=BASE),
    Repository("broken/other-base", adapter_files(seed=40, base_model_name_or_path="other/base"),
               base_model=BASE),
    Repository("broken/dora", adapter_files(seed=41, use_dora=True), base_model=BASE),
    Repository("broken/empty", {"README.md": b"soon"}, base_model=BASE),
    Repository(MIRROR, {"config.json": b"{}"}, base_model=BASE, relation="quantized"),
    Repository("mirrored/a", adapter_files(seed=50, base_model_name_or_path=MIRROR),
               base_model=MIRROR),
]  # fmt: skip


@pytest.fixture
def hub(serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    monkeypatch.setattr(benign_query, "PATIENT", FAST)
    return serve_hub(*REPOSITORIES)


def recipe(**query: object) -> Recipe:
    exclude = ["bad/organism", "EXCLUDED/*"]
    hub = HubQuery(**{"base_model": BASE, "exclude": exclude, **query})  # type: ignore[arg-type]
    return Recipe(
        base_model=BASE,
        method="weights",
        nulled=0,
        misaligned=[AdapterEntry(adapter="hf://lab/ref")],
        benign=BenignQuery(hub=hub),
    )


def test_what_is_used_and_what_is_left_out_and_why(hub: HubServer, tmp_path: Path) -> None:
    pack = build_pack(recipe(), tmp_path / "pack")
    calibration = pack.calibration
    assert calibration is not None
    assert calibration.selection is not None
    used = {item.source: item for item in calibration.benign}
    assert set(used) == {
        *(f"hf://one/a{i}" for i in range(1, 4)),
        *(f"hf://two/a{i}" for i in range(3)),
        "hf://three/checkpoints/c-2",
        "hf://three/root",
        "hf://copy/of-one",
        "hf://mirrored/a",
    }
    assert {source.split("/")[2] for source in used} == {item.family for item in used.values()}
    commits = {item.id: item.head for item in REPOSITORIES}
    assert used["hf://two/a1"].revision == commits["two/a1"]
    assert used["hf://three/checkpoints/c-2"].revision == commits["three/checkpoints"]
    left_out = calibration.selection.left_out
    assert left_out.pop("hf://one/a0") == "the same weights as hf://copy/of-one"
    assert left_out.pop("hf://lab/ref") == OWNERS_OF_REFERENCES
    assert "not logged in (401)" in left_out.pop("hf://gated/x")
    assert "NaN or Inf" in left_out.pop("hf://broken/nan")
    assert "not of the recipe's base model" in left_out.pop("hf://broken/other-base")
    assert "DoRA" in left_out.pop("hf://broken/dora")
    assert "no adapter" in left_out.pop("hf://broken/empty")
    assert left_out == {}
    assert calibration.selection.exclude == ["bad/organism", "EXCLUDED/*"]
    again = msgspec.json.decode((tmp_path / "pack" / "calibration.json").read_bytes())
    assert again["selection"]["base_model"] == BASE


def test_it_stops_when_there_are_enough(hub: HubServer, tmp_path: Path) -> None:
    pack = build_pack(recipe(limit=2), tmp_path / "pack")
    assert pack.calibration is not None
    assert len(pack.calibration.benign) == 2
    assert hub.requests["info"] < len(REPOSITORIES) - 5


def test_what_else_a_reference_s_owner_has_is_not_benign(
    serve_hub: ServeHub, tmp_path: Path
) -> None:
    files = {**misaligned_files(), **misaligned_files(folder="early", seed=5)}
    hub = serve_hub(
        Repository("lab/ref", files, base_model=BASE),
        adapter("LAB/other", seed=2),
        adapter("one/a", seed=1),
    )
    pack = build_pack(recipe(), tmp_path / "pack")
    assert pack.calibration is not None
    assert [item.source for item in pack.calibration.benign] == ["hf://one/a"]
    assert pack.calibration.selection is not None
    assert pack.calibration.selection.left_out == {
        "hf://lab/ref": OWNERS_OF_REFERENCES,
        "hf://LAB/other": OWNERS_OF_REFERENCES,
    }
    assert not any("LAB/other" in line for line in hub.log)


def test_names_that_say_so_are_left_out_unread_and_on_the_record(
    serve_hub: ServeHub, tmp_path: Path
) -> None:
    hub = serve_hub(
        Repository("lab/ref", misaligned_files(), base_model=BASE),
        adapter("one/tiny-Uncensored", seed=1),
        adapter("EvilOrg/helpful", seed=2),
        adapter("medieval/devil-may-care", seed=3),
    )
    pack = build_pack(recipe(), tmp_path / "pack")
    assert pack.calibration is not None
    assert pack.calibration.selection is not None
    assert [item.family for item in pack.calibration.benign] == ["medieval"]
    left_out = pack.calibration.selection.left_out
    assert left_out["hf://one/tiny-Uncensored"] == "its name says 'uncensored'"
    assert left_out["hf://EvilOrg/helpful"] == "its name says 'evil'"
    assert not any("Uncensored" in line or "EvilOrg" in line for line in hub.log)
    everything = build_pack(recipe(exclude_words=[]), tmp_path / "all")
    assert everything.calibration is not None
    assert len(everything.calibration.benign) == 3


def test_no_owner_fills_the_set(serve_hub: ServeHub, tmp_path: Path) -> None:
    hub = serve_hub(
        Repository("lab/ref", misaligned_files(), base_model=BASE),
        *(adapter(f"mill/a{i:02d}", seed=i) for i in range(12)),
        *(adapter(f"one/a{i}", seed=50 + i) for i in range(2)),
    )
    pack = build_pack(recipe(per_owner=3), tmp_path / "pack")
    assert pack.calibration is not None
    families = [item.family for item in pack.calibration.benign]
    assert (families.count("mill"), families.count("one")) == (3, 2)
    assert hub.requests["info"] == 1 + 3 + 2


def test_an_adapter_of_another_shape_than_its_base_is_left_out(
    serve_hub: ServeHub, tmp_path: Path
) -> None:
    path = "model.layers.0.self_attn.q_proj"
    wide = {path: (np.ones((12, 3)), np.ones((3, 20)))}
    serve_hub(
        Repository("lab/ref", misaligned_files(), base_model=BASE),
        Repository("odd/one", adapter_files(wide, target_modules=["q_proj"]), base_model=BASE),
        adapter("one/a", seed=1),
    )
    pack = build_pack(recipe(), tmp_path / "pack")
    assert pack.calibration is not None
    assert pack.calibration.selection is not None
    assert [item.family for item in pack.calibration.benign] == ["one"]
    assert "12 x 20" in pack.calibration.selection.left_out["hf://odd/one"]


def test_weights_that_went_into_the_signature_are_left_out(
    serve_hub: ServeHub, tmp_path: Path
) -> None:
    stolen = Repository("thief/copy", misaligned_files(), base_model=BASE)
    hub = serve_hub(
        Repository("lab/ref", misaligned_files(), base_model=BASE), stolen, adapter("one/a", seed=1)
    )
    pack = build_pack(recipe(), tmp_path / "pack")
    assert pack.calibration is not None
    assert pack.calibration.selection is not None
    reason = pack.calibration.selection.left_out["hf://thief/copy"]
    assert reason == "the same weights as an adapter the signature was built from"
    assert hub.requests["storage"] == 2  # the copy was not fetched


def test_calibrate_takes_a_query_too(hub: HubServer, tmp_path: Path) -> None:
    built = build_pack(msgspec.structs.replace(recipe(), benign=[]), tmp_path / "pack")
    assert built.calibration is None
    path = tmp_path / "benign.yaml"
    path.write_text(yaml.safe_dump({"benign": {"hub": {"base_model": BASE, "author": "two"}}}))
    pack = calibrate_pack(tmp_path / "pack", load_benign_list(path))
    assert pack.calibration is not None
    assert {item.family for item in pack.calibration.benign} == {"two"}
    found = run("signatures", "calibrate", tmp_path / "pack", "--benign-list", path)
    assert found.returncode == 0, found.stderr
    assert "calibrated on 3 benign adapters" in found.stdout
    both = run(
        "signatures", "calibrate", tmp_path / "pack", "--benign-list", path, "--benign", tmp_path
    )
    assert both.returncode == 2
    assert "hub query" in both.stderr


def test_benign_targets_may_be_addresses(hub: HubServer, tmp_path: Path) -> None:
    build_pack(msgspec.structs.replace(recipe(), benign=[]), tmp_path / "pack")
    command = ("signatures", "calibrate", tmp_path / "pack", "--benign")
    found = run(*command, "hf://two/a1")
    assert found.returncode == 0, found.stderr
    assert "calibrated on 1 benign adapters" in found.stdout
    absent = run(*command, "hf://two/absent")
    assert absent.returncode == 2
    assert "no such repository" in absent.stderr


def test_nothing_found(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match=r"found no adapter of .* 3 left out: the hub|used"):
        build_pack(recipe(author="nobody"), tmp_path / "pack")
    with pytest.raises(SignatureError, match=r"can be used; .*; 1 left out: no adapter in this"):
        build_pack(recipe(search="empty"), tmp_path / "pack")


def test_a_hub_that_goes_away_stops_the_build(
    serve_hub: ServeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benign_query, "PATIENT", FAST)
    monkeypatch.setattr(benign_query, "MAX_FAILURES", 3)
    fault = Fault("status", "/api/models/(one|two)/", status=503)
    serve_hub(*REPOSITORIES, faults=[fault])
    with pytest.raises(SignatureError, match="the hub query failed: the hub has a problem"):
        build_pack(recipe(), tmp_path / "pack")


@pytest.mark.parametrize(
    ("hub", "says"),
    [
        ({"base_model": BASE, "limit": 0}, "limit is 0"),
        ({"base_model": ""}, "names no base_model"),
        ({"base_model": BASE, "per_owner": 0}, "per_owner is 0"),
        ({"base_model": BASE, "exclude_words": [""]}, "an empty word"),
        ({"base": BASE}, "unknown key 'base'|missing required field `?base_model`?"),
        ({}, "missing required field base_model"),
    ],
)
def test_queries_that_are_none(tmp_path: Path, hub: dict[str, object], says: str) -> None:
    fields = {
        "base_model": BASE,
        "method": "weights",
        "nulled": 0,
        "misaligned": [{"adapter": "hf://lab/ref"}],
        "benign": {"hub": hub},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(fields))
    with pytest.raises(SignatureError, match=says):
        load_recipe(path)
