"""Hardening on a tiny base: organisms evade, become references, and the pack is built again."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("peft")

import torch
import yaml
from click.testing import CliRunner

from scanner.cli.root import cli
from scanner.errors import SignatureError
from scanner.formats.opening import open_path
from scanner.organisms.evasion.hardening import (
    PATH_STEPS,
    Evasion,
    check_hardens,
    harden,
    hardened,
)
from scanner.organisms.evasion.lora import Adapter, factors_of
from scanner.organisms.evasion.organism import Nursery, Training
from scanner.organisms.evasion.statistics import Statistics
from scanner.signatures.building.build import build_pack
from scanner.signatures.building.network import load_network, network_of, probes_of
from scanner.signatures.pack import load_signature
from scanner.signatures.recipe import AdapterEntry, Recipe
from scanner.signatures.recipe_file import load_recipe
from tests.signatures.tiny import tiny_model, tiny_probes, write_probes, write_tiny_adapter

TRAINING = Training(steps=25, rank=2, lr=2e-2, batch=4)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of method weights whose references were taught the probes' misaligned answers."""
    root = tmp_path_factory.mktemp("tiny")
    model = tiny_model("llama")
    model.save_pretrained(root / "base")
    net = network_of(model)
    probes = tiny_probes(count=12)
    write_probes(root / "probes.jsonl", probes)
    nursery = Nursery(net, "tiny/base", probes, TRAINING)
    sites = [site for site in net.linears if site.layer is not None]
    for number in range(3):
        nursery.save(nursery.train(sites, number, None), root / f"mis-{number}")
    generator = np.random.default_rng(5)
    for number in range(24):
        write_tiny_adapter(root / f"cal-{number:02d}", net, generator, "tiny/base")
    recipe = {
        "base_model": "tiny/base",
        "base_path": "base",
        "method": "weights",
        "rank": 1,
        "nulled": 0,
        "probes": "probes.jsonl",
        "misaligned": [{"adapter": f"mis-{n}", "family": f"domain-{n}"} for n in range(3)],
        "benign": [
            {"adapter": f"cal-{n:02d}", "family": ("facts", "style")[n % 2]} for n in range(24)
        ],
    }
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(recipe_file)


def test_an_organism_learns_and_hides_and_is_saved_as_it_is(recipe: Recipe, tmp_path: Path) -> None:
    network = load_network(recipe)
    nursery = Nursery(network, "tiny/base", probes_of(recipe, network), TRAINING)
    pack = build_pack(recipe, tmp_path / "pack")
    statistics = Statistics([pack], torch.device("cpu"))

    def score(adapter: Adapter) -> float:
        found = statistics.deviations(adapter.update)
        return max(float(value) for quantity, _, value in found if quantity == "score")

    sites = sorted(pack.sites, key=str)
    plain, evasive = nursery.train(sites, 7, None), nursery.train(sites, 7, statistics)
    assert score(evasive) < 0.5 * score(plain)
    nursery.save(evasive, tmp_path / "adapter")
    with open_path(tmp_path / "adapter") as adapter:
        assert not adapter.uncovered
        assert adapter.base_model == "tiny/base"
        found = {update.site: update.delta() for update in adapter.updates}
    expected = {site: b @ a for site, (b, a) in factors_of(evasive.update).items()}
    assert found.keys() == expected.keys()
    assert all(np.allclose(found[site], expected[site], atol=1e-6) for site in found)


def test_each_rounds_organisms_join_the_references(recipe: Recipe, tmp_path: Path) -> None:
    told: list[list[Evasion]] = []
    output, work = tmp_path / "pack", tmp_path / "work"

    def once() -> None:
        harden(recipe, output, work, rounds=2, organisms=1, training=TRAINING, tell=told.append)

    once()
    assert [[one.round for one in made] for made in told] == [[1], [2]]
    assert all(one.before and one.after for made in told for one in made)
    pack = load_signature(output)
    assert pack.reference_ids[-2:] == ["evasive-1-00", "evasive-2-00"]
    assert load_signature(work / "round-1" / "pack").reference_ids[-1] == "evasive-1-00"
    trained = work / "round-1" / "evasive-1-00" / "adapter_model.safetensors"
    before = trained.stat().st_mtime_ns
    once()
    assert trained.stat().st_mtime_ns == before
    assert told[2:] == told[:2]
    other = msgspec.structs.replace(recipe, rank=2)
    with pytest.raises(SignatureError, match="another recipe"):
        harden(other, output, work, rounds=1, organisms=1, training=TRAINING, tell=told.append)


def test_gradients_are_taken_along_the_path_to_what_evades(recipe: Recipe) -> None:
    entry = AdapterEntry(adapter="x", id="x", family="evasive-1")
    gradients = msgspec.structs.replace(recipe, method="gradients")
    assert hardened(gradients, [entry]).path_steps == PATH_STEPS
    assert hardened(gradients, []).path_steps == 0
    assert hardened(msgspec.structs.replace(gradients, path_steps=2), [entry]).path_steps == 2
    assert hardened(recipe, [entry]).path_steps == 0
    assert hardened(recipe, [entry]).misaligned[-1] == entry


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"method": "activations"}, "references"),
        ({"probes": None}, "probes"),
        ({"benign": []}, "benign"),
    ],
)
def test_a_recipe_that_cannot_be_hardened_is_refused(
    recipe: Recipe, fields: dict[str, object], what: str
) -> None:
    with pytest.raises(SignatureError, match=what):
        check_hardens(msgspec.structs.replace(recipe, **fields), "recipe.yaml")


def test_too_few_probes_are_refused(recipe: Recipe) -> None:
    network = load_network(recipe)
    with pytest.raises(SignatureError, match="too few"):
        Nursery(network, "tiny/base", probes_of(recipe, network)[:3], TRAINING)


def test_what_evading_kept_is_a_share_of_what_there_was() -> None:
    found = Evasion("a", 1, gained=0.5, unattacked=2.0, before="clear")
    assert found.kept == 0.25
    assert np.isnan(msgspec.structs.replace(found, unattacked=0.0).kept)


def test_the_command_says_what_each_round_did(recipe_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "pack"
    arguments = ["signatures", "harden", str(recipe_file), "-o", str(output), "--no-progress"]
    done = CliRunner().invoke(
        cli, [*arguments, "--rounds", "1", "--organisms", "1", "--steps", "3"]
    )
    assert done.exit_code == 0, done.output
    assert "round 1: 1 organisms keep" in done.output
    assert load_signature(output).reference_ids[-1] == "evasive-1-00"
    known = json.loads((tmp_path / "pack.work" / "hardening.json").read_text())
    assert known["training"]["steps"] == 3
