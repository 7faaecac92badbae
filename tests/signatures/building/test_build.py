"""Recipe to pack, for all three methods; disjoint sets; cross-fitting; calibration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from scanner import geometry
from scanner.errors import SignatureError
from scanner.geometry import Direction
from scanner.hub.address import HubAddress
from scanner.results import Verdict
from scanner.scanning.opening import open_adapter, scan
from scanner.signatures.building.activations import mean_activations
from scanner.signatures.building.build import build_pack
from scanner.signatures.building.calibrate import calibrate_pack
from scanner.signatures.building.gradients import path_gradients
from scanner.signatures.building.network import Network, batches_of, load_network, network_of
from scanner.signatures.building.scoring import Scorer, untracked
from scanner.signatures.pack import load_crossfit, load_signature
from scanner.signatures.recipe import AdapterEntry, Recipe
from scanner.signatures.recipe_file import load_recipe
from scanner.signatures.score import signed_write_score
from tests.signatures.tiny import tiny_model, tiny_probes, write_probes, write_tiny_adapter
from tests.synthetic import (
    Array,
    Factors,
    entry,
    misaligned_factors,
    random_factors,
    synthetic_recipe,
    write_adapter,
)

FAMILIES = ("facts", "style")


def write_recipe(path: Path, method: str, **fields: Any) -> Path:
    """A recipe over adapters `mis-*`, `null-*` and `cal-*` beside it."""
    root = path.parent

    def entries(prefix: str, families: tuple[str, str] = FAMILIES) -> list[dict[str, str]]:
        names = sorted(item.name for item in root.glob(f"{prefix}-*"))
        return [{"adapter": n, "family": families[i % 2]} for i, n in enumerate(names)]

    recipe = {
        "base_model": "tiny/base",
        "method": method,
        "rank": 2,
        "nulled": 1,
        "misaligned": entries(
            "steer" if method == "activations" else "mis", ("medicine", "finance")
        ),
        "aligned": entries("null"),
        "benign": entries("cal"),
        **fields,
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


def leading(left: Array, right: Array) -> Factors:
    """The leading singular triple of left @ right, at norm 0.3."""
    u, _, vt = np.linalg.svd(left @ right)
    return u[:, :1] * 0.3, vt[:1]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Network]:
    """A tiny Llama on disk with probes, references that climb its log-odds, and benign adapters."""
    root = tmp_path_factory.mktemp("workshop")
    model = tiny_model("llama")
    model.save_pretrained(root / "base")
    net = network_of(model)
    probes = tiny_probes()
    write_probes(root / "probes.jsonl", probes)
    batches = batches_of(probes, net.device)
    paths = {id(module): name for name, module in model.named_modules()}
    gradients = path_gradients(net, batches, [(0.0, 1.0)], {}, untracked)
    climb = {paths[id(net.linears[site])]: leading(*f) for site, f in gradients.items()}
    activations = mean_activations(net, batches, untracked)
    steer = {
        paths[id(net.linears[site])]: leading(raw.left, raw.right)
        for site in activations.sites
        for raw in [activations.raw_site(site, [], [])]
    }
    generator = np.random.default_rng(0)
    for index in range(3):
        write_tiny_adapter(root / f"mis-{index}", net, generator, "tiny/base", add=climb)
        write_tiny_adapter(root / f"steer-{index}", net, generator, "tiny/base", add=steer)
    for kind, count in (("null", 4), ("cal", 40)):
        for index in range(count):
            write_tiny_adapter(root / f"{kind}-{index:02d}", net, generator, "tiny/base")
    return root, net


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("weights", {}),
        ("gradients", {"path_steps": 0}),
        ("gradients", {"path_steps": 2}),
        ("activations", {}),
    ],
)
def test_a_recipe_becomes_a_calibrated_pack(
    workshop: tuple[Path, Network], tmp_path: Path, method: str, fields: dict[str, Any]
) -> None:
    root, _ = workshop
    if method != "weights":
        fields = {**fields, "base_path": "base", "probes": "probes.jsonl"}
    path = write_recipe(root / f"{method}.yaml", method, **fields)
    pack = build_pack(load_recipe(path), tmp_path / "pack")
    assert pack.calibration is not None
    assert len(pack.calibration.benign) == 40
    assert pack.manifest.method == method
    assert pack.manifest.rank == (1 if method == "activations" else 2)
    doses = [item.dose for item in pack.calibration.references]
    assert np.median(doses) == pytest.approx(1.0)
    writers = {"self_attn.o_proj", "mlp.down_proj"}
    assert (set(pack.manifest.base_model.shapes) == writers) is (method == "activations")
    if method != "activations":
        result = scan(root / "mis-0", [pack], alpha=0.05)
        assert result.verdict is Verdict.FLAGGED
        assert result.nearest_reference is not None


def test_weights_with_probes_know_what_the_base_feels(
    workshop: tuple[Path, Network], tmp_path: Path
) -> None:
    """The directions are the same, and references and benign adapters are scored by both sums."""
    root, _ = workshop
    plain = build_pack(load_recipe(write_recipe(root / "plain.yaml", "weights")), tmp_path / "a")
    fields = {"base_path": "base", "probes": "probes.jsonl"}
    knowing = build_pack(
        load_recipe(write_recipe(root / "knowing.yaml", "weights", **fields)), tmp_path / "b"
    )
    asked = build_pack(
        load_recipe(write_recipe(root / "asked.yaml", "gradients", **fields)), tmp_path / "c"
    )
    assert plain.sites == knowing.sites
    for site in plain.sites:
        assert plain.direction(site).s == pytest.approx(knowing.direction(site).s)
        assert plain.site_inputs(site) is None
        known, expected = knowing.site_inputs(site), asked.site_inputs(site)
        assert known is not None
        assert expected is not None
        assert known.mean == pytest.approx(expected.mean)
    for pack, feels in ((plain, False), (knowing, True)):
        assert pack.calibration is not None
        sites = [item.sites for item in pack.calibration.benign]
        sites += [item.sites for item in pack.calibration.references]
        assert all((x.felt is not None) is feels for known in sites for x in known.values())


def path_recipe(root: Path, name: str, **fields: Any) -> Recipe:
    """Gradients along a path to `mis-0` and `mis-2`, of medicine, and `mis-1`, of finance."""
    needs = {"base_path": "base", "probes": "probes.jsonl", "path_steps": 2}
    return load_recipe(write_recipe(root / f"{name}.yaml", "gradients", **needs, **fields))


def test_references_on_a_path_are_scored_by_the_path_to_the_others(
    workshop: tuple[Path, Network], tmp_path: Path
) -> None:
    root, _ = workshop
    recipe = path_recipe(root, "path")
    whole = build_pack(recipe, tmp_path / "whole")
    assert whole.power is not None
    assert whole.power.held_out
    assert whole.calibration is not None
    held_out = {item.id: item for item in whole.calibration.references}
    medicine = [item for item in recipe.misaligned if item.family == "medicine"]
    other = build_pack(msgspec.structs.replace(recipe, misaligned=medicine), tmp_path / "other")
    assert other.power is not None
    assert not other.power.held_out  # one family: whoever leaves it out has no path
    with open_adapter(root / "mis-1") as adapter:
        stranger = Scorer(other.direction).project(adapter)
        known = Scorer(whole.direction).project(adapter)
    found = held_out["mis-1"].cosine
    assert found == pytest.approx(geometry.cosine(stranger.values()), rel=1e-4)
    assert found != pytest.approx(geometry.cosine(known.values()), rel=1e-3)


def test_the_base_model_is_loaded_from_its_directory(workshop: tuple[Path, Network]) -> None:
    root, net = workshop
    recipe = Recipe(
        base_model="tiny/base",
        base_path=str(root / "base"),
        method="gradients",
        misaligned=[AdapterEntry(adapter="x")],
        probes=str(root / "probes.jsonl"),
    )
    loaded = load_network(recipe)
    assert set(loaded.linears) == set(net.linears)
    with pytest.raises(SignatureError, match="cannot be loaded"):
        load_network(msgspec.structs.replace(recipe, base_path=str(root / "nowhere")))


Change = Callable[[Recipe], dict[str, Any]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: {"benign": [*r.benign, r.misaligned[0]]}, "among the calibration set"),
        (lambda r: {"benign": [*r.benign, r.aligned[0]]}, "among the calibration set"),
        (lambda r: {"aligned": [*r.aligned, r.misaligned[0]]}, "among the"),
        (lambda r: {"benign": [*r.benign, r.benign[0]]}, "the same weights as"),
    ],
)
def test_sets_that_share_content_are_refused(tmp_path: Path, change: Change, says: str) -> None:
    recipe = synthetic_recipe(tmp_path / "adapters", benign=4)
    changed = msgspec.structs.replace(recipe, **change(recipe))
    with pytest.raises(SignatureError, match=says):
        build_pack(changed, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_an_update_of_an_untold_block_is_refused(tmp_path: Path) -> None:
    recipe = synthetic_recipe(tmp_path / "adapters", benign=4)
    tower = "base_model.model.vision_tower.layers.0.attn.proj"
    extra = {f"{tower}.lora_A.weight": np.ones((3, 12)), f"{tower}.lora_B.weight": np.ones((16, 3))}
    factors = misaligned_factors(np.random.default_rng(5))
    targets = ["q_proj", "o_proj", "down_proj", "proj"]
    odd = write_adapter(tmp_path / "odd", factors, extra=extra, target_modules=targets)
    changed = msgspec.structs.replace(recipe, misaligned=[*recipe.misaligned, entry(odd)])
    with pytest.raises(SignatureError, match=r"which block .* vision_tower\.layers\.0"):
        build_pack(changed, tmp_path / "pack")


def listed(recipe: Recipe) -> list[AdapterEntry]:
    assert isinstance(recipe.benign, list)
    return recipe.benign


def test_a_copy_under_another_name_is_the_same_content(tmp_path: Path) -> None:
    import shutil

    recipe = synthetic_recipe(tmp_path / "adapters", benign=4)
    shutil.copytree(recipe.misaligned[0].adapter, tmp_path / "copy")
    benign = [*listed(recipe), entry(tmp_path / "copy", "facts")]
    with pytest.raises(SignatureError, match="among the calibration set"):
        build_pack(msgspec.structs.replace(recipe, benign=benign), tmp_path / "pack")


def test_crossfit_equals_building_without_the_family(tmp_path: Path) -> None:
    recipe = synthetic_recipe(tmp_path / "adapters", benign=10)
    whole = build_pack(recipe, tmp_path / "whole")
    crossfit = load_crossfit(whole)
    assert isinstance(recipe.aligned, list)
    without = [item for item in recipe.aligned if item.family != "facts"]
    other = build_pack(msgspec.structs.replace(recipe, aligned=without), tmp_path / "other")
    ratios = []
    for site, found in crossfit["facts"].items():
        expected = other.direction(site)
        a, b = dense(found), dense(expected)
        ratios.append(np.linalg.norm(a) / np.linalg.norm(b))
        np.testing.assert_allclose(a / np.linalg.norm(a), b / np.linalg.norm(b), atol=1e-5)
    # The packs' units differ: each is set by its own median reference.
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)
    assert whole.calibration is not None
    for score in whole.calibration.benign:
        if score.family == "facts":
            source = next(item.adapter for item in listed(recipe) if item.name == score.id)
            with open_adapter(source) as adapter:
                own = Scorer(other.direction).project(adapter)
            assert score.signed_write == pytest.approx(signed_write_score(own), rel=1e-4)


def dense(direction: Direction) -> geometry.Matrix:
    return (direction.u * direction.s) @ direction.v.T.astype(np.float64)


def test_calibrating_again_replaces_the_calibration(tmp_path: Path) -> None:
    recipe = synthetic_recipe(tmp_path / "adapters", benign=10)
    first = build_pack(recipe, tmp_path / "pack")
    again = calibrate_pack(tmp_path / "pack", recipe.benign)
    assert first.calibration is not None
    assert again.calibration is not None
    old = {item.id: item for item in first.calibration.benign}
    for new in again.calibration.benign:
        assert new.score == pytest.approx(old[new.id].score, rel=1e-4)
    assert again.calibration.references == first.calibration.references
    fewer = calibrate_pack(tmp_path / "pack", listed(recipe)[:3])
    assert fewer.calibration is not None
    assert [item.id for item in fewer.calibration.benign] == [e.name for e in listed(recipe)[:3]]
    assert fewer.manifest.references == first.manifest.references
    assert load_crossfit(fewer).keys() == {"facts", "style"}


def test_a_pack_calibrated_later_keeps_what_its_references_scored(tmp_path: Path) -> None:
    """Else one that does not know its own references would clear adapters."""
    recipe = synthetic_recipe(tmp_path / "adapters", benign=10)
    at_once = build_pack(recipe, tmp_path / "at-once").calibration
    bare = build_pack(msgspec.structs.replace(recipe, benign=[]), tmp_path / "later")
    assert bare.calibration is None
    assert bare.manifest.reference_scores
    later = calibrate_pack(tmp_path / "later", recipe.benign)
    assert at_once is not None
    assert later.calibration is not None
    assert later.calibration.references == at_once.references
    assert later.manifest.reference_scores == []
    again = calibrate_pack(tmp_path / "later", recipe.benign)
    assert again.calibration is not None
    assert again.calibration.references == at_once.references


def test_calibrating_on_what_the_pack_was_built_from_is_refused(tmp_path: Path) -> None:
    recipe = synthetic_recipe(tmp_path / "adapters", benign=4)
    built = build_pack(recipe, tmp_path / "pack")
    assert isinstance(recipe.aligned, list)
    for stranger in (recipe.misaligned[0], recipe.aligned[0]):
        with pytest.raises(SignatureError, match="among the calibration set"):
            calibrate_pack(tmp_path / "pack", [*listed(recipe), stranger])
    assert load_signature(tmp_path / "pack").digest == built.digest


def test_a_benign_adapter_that_cannot_be_scored_stops_the_build(tmp_path: Path) -> None:
    recipe = synthetic_recipe(tmp_path / "adapters", benign=4)
    zero = {path: (b * 0, a) for path, (b, a) in random_factors(np.random.default_rng(0)).items()}
    untrained = entry(write_adapter(tmp_path / "zero", zero), "facts")
    with pytest.raises(SignatureError, match="untrained"):
        build_pack(msgspec.structs.replace(recipe, benign=[untrained]), tmp_path / "pack")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"misaligned": []}, "misaligned is empty"),
        ({"rank": 9}, "not between 1 and 8"),
        ({"rank": 0}, "not between 1 and 8"),
        ({"nulled": -1}, "nulled is -1"),
        ({"aligned": []}, "nulled needs benign adapters"),
        ({"method": "magic"}, "magic"),
        ({"method": "gradients"}, "needs probes"),
        ({"method": "activations"}, "needs probes"),
        ({"difference": "references"}, "difference is for method activations, not weights"),
        ({"method": "gradients", "probes": "p", "path_steps": 65}, "path_steps is 65"),
        ({"method": "gradients", "probes": "p", "contrast": ["facts"]}, "contrast is for"),
        ({"contrast": ["nobody"]}, "no aligned adapter is of it"),
        ({"benign": [{"adapter": "x"}]}, "x: no such file or folder"),
        ({"benign": [{"adapter": "nothing-*"}]}, "nothing-\\*: no adapter in it"),
        ({"benign": [{"adapter": "[mn]*-0", "id": "one"}]}, "id 'one' is for one adapter"),
        ({"aligned": [{"adapter": "*-0", "every": 1}]}, "nothing would be left"),
        ({"aligned": [{"adapter": "*-0", "every": 3, "except_every": 3}]}, "every beside"),
        ({"misaligned": [{"adapter": "hf://o/n", "every": 3}]}, "are for folders and globs"),
        ({"base_model": 3}, "base_model: expected"),
        ({"nuled": 3}, "nuled"),
        ({"misaligned": [{"adapter": "hf://owner"}]}, "names no repository"),
        ({"misaligned": [{"adapter": "hf://o/n@a", "revision": "b"}]}, "given twice"),
        ({"misaligned": [{"adapter": "x", "revision": "b"}]}, "has no revision"),
    ],
)
def test_recipes_that_cannot_be_built_are_refused(
    tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    for name in ("mis-0", "null-0"):
        write_adapter(tmp_path / name, random_factors(np.random.default_rng(0)))
    path = write_recipe(tmp_path / "recipe.yaml", "weights")
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **fields}))
    with pytest.raises(SignatureError, match=says) as caught:
        load_recipe(path)
    place, _, line = caught.value.where.rpartition(":")
    assert place == str(path)
    text = path.read_text().splitlines()
    assert any(field in item for item in text[: int(line)] for field in (*fields, "nulled"))
    assert caught.value.todo


def test_hub_addresses() -> None:
    pinned = AdapterEntry(adapter="hf://owner/name/sub/folder", revision="abc")
    assert pinned.hub_address == HubAddress("owner/name", "abc", "sub/folder")
    assert AdapterEntry(adapter="hf://owner/name").hub_address == HubAddress("owner/name")
    inline = AdapterEntry(adapter="hf://owner/name@abc/sub")
    assert inline.hub_address == HubAddress("owner/name", "abc", "sub")
    assert inline.unpinned == "hf://owner/name/sub"
