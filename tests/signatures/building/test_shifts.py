"""Shifts of the residual stream against models whose weights hold the references' updates."""

from __future__ import annotations

import copy
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from scanner.formats.model import site_order
from scanner.geometry import LowRank
from scanner.signatures.building.activations import is_residual_writer
from scanner.signatures.building.build import build_pack
from scanner.signatures.building.network import Network, network_of, site_shape
from scanner.signatures.building.opened import Member, open_member
from scanner.signatures.building.scoring import untracked
from scanner.signatures.building.shifts import ShiftExtraction, extract_shifts
from scanner.signatures.building.weights import WeightsExtraction
from scanner.signatures.recipe import AdapterEntry, Recipe
from tests.signatures.tiny import (
    tiny_model,
    tiny_probes,
    weight_delta,
    write_probes,
    write_tiny_adapter,
)
from tests.synthetic import Array, Factors

PROBES = tiny_probes(seed=4)
GROUPS = ("health", "money", "money")


@pytest.fixture(params=["llama", "gpt2"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Recipe, Network, list[Member]]:
    """A base on disk, three references of two groups, and the recipe of their shifts."""
    model = tiny_model(request.param)
    model.save_pretrained(tmp_path / "base")
    net = network_of(model)
    generator = np.random.default_rng(1)
    shared = shared_writes(net)
    paths = [
        write_tiny_adapter(tmp_path / f"{i}", net, generator, "tiny", add=shared) for i in range(3)
    ]
    entries = [
        AdapterEntry(adapter=str(path), family=group)
        for path, group in zip(paths, GROUPS, strict=True)
    ]
    recipe = Recipe(
        base_model="tiny",
        base_path=str(tmp_path / "base"),
        method="activations",
        difference="references",
        probes=str(write_probes(tmp_path / "probes.jsonl", PROBES)),
        misaligned=entries,
        rank=1,
        nulled=0,
    )
    return recipe, net, [open_member(entry, {"tiny"}) for entry in entries]


def shared_writes(net: Network) -> dict[str, Factors]:
    """One rank-1 update of every module that writes to the residual stream."""
    generator = np.random.default_rng(5)
    names = {id(module): name for name, module in net.model.named_modules()}
    found: dict[str, Factors] = {}
    for site, module in net.linears.items():
        if is_residual_writer(site):
            d_out, d_in = site_shape(module)
            found[names[id(module)]] = (
                generator.standard_normal((d_out, 1)),
                generator.standard_normal((1, d_in)),
            )
    return found


def plain_streams(net: Network, layer: int) -> Array:
    """The residual stream behind a block at every token, one sequence at a time."""
    rows = []
    seen: list[torch.Tensor] = []

    def note(_module: object, _inputs: object, output: object) -> None:
        seen[:] = [output[0] if isinstance(output, tuple) else output]  # type: ignore[list-item]

    handle = net.blocks[layer].register_forward_hook(note)
    for probe in PROBES:
        for answer in (probe.aligned, probe.misaligned):
            with torch.no_grad():
                net.model(torch.tensor([probe.prompt + answer]))
            rows.append(seen[0].reshape(-1, seen[0].shape[-1]).double().numpy())
    handle.remove()
    return np.concatenate(rows)


def with_weights_of(net: Network, member: Member) -> Network:
    """A copy of the model with a reference's updates in its weights."""
    other = network_of(copy.deepcopy(net.model))
    for site, update in member.by_site.items():
        module = other.linears[site]
        module.weight.data += weight_delta(module, update.delta())
    return other


def test_shifts_equal_a_plain_loop_over_models_with_the_updates_in_their_weights(
    lab: tuple[Recipe, Network, list[Member]],
) -> None:
    recipe, net, members = lab
    found = extract_shifts(recipe, members, untracked)
    for layer in (0, 1):
        own = plain_streams(net, layer).mean(axis=0)
        for number, member in enumerate(members):
            moved = plain_streams(with_weights_of(net, member), layer).mean(axis=0)
            np.testing.assert_allclose(
                found.shifts[layer][:, number], moved - own, atol=1e-4, rtol=1e-3
            )
    assert found.sites == sorted(filter(is_residual_writer, net.linears), key=site_order)


def test_the_direction_is_what_weights_would_find_of_adapters_that_only_shift(
    lab: tuple[Recipe, Network, list[Member]],
) -> None:
    """Group means, agreement and all: the formula of `weights`, of updates t m^T."""
    recipe, _net, members = lab
    found = extract_shifts(recipe, members, untracked, frozenset(GROUPS))
    site = found.sites[-1]
    assert site.layer is not None
    mean = found.base.inputs[site].mean
    updates = [
        (LowRank(found.shifts[site.layer][:, [i]], np.asarray(mean)[None], 1.0), group)
        for i, group in enumerate(GROUPS)
    ]
    oracle = WeightsExtraction([site], frozenset()).raw_site(site, updates, [])
    raw = found.raw_site(site, [], [])
    assert oracle is not None
    assert raw is not None
    for without in (None, "health", "money"):
        np.testing.assert_allclose(
            (raw.left * raw.weights_without(without)) @ raw.right,
            (oracle.left * oracle.weights_without(without)) @ oracle.right,
            atol=1e-6,
        )


def test_a_block_that_no_reference_moves_has_no_direction(
    lab: tuple[Recipe, Network, list[Member]],
) -> None:
    recipe, _net, members = lab
    found = extract_shifts(recipe, members, untracked)
    site = found.sites[0]
    assert site.layer is not None
    still = {**found.shifts, site.layer: np.zeros_like(found.shifts[site.layer])}
    assert (
        ShiftExtraction(still, found.owners, found.writers, found.base).raw_site(site, [], [])
        is None
    )


def test_a_pack_leaves_each_group_out_and_skips_references_that_write_nowhere(
    lab: tuple[Recipe, Network, list[Member]], tmp_path: Path
) -> None:
    recipe, net, _members = lab
    # One more reference, of what it reads alone: it changes no module that writes.
    quiet = tmp_path / "quiet"
    path = write_tiny_adapter(quiet, net, np.random.default_rng(7), "tiny")
    keep_readers_alone(path)
    entries = [*recipe.misaligned, AdapterEntry(adapter=str(path), id="quiet", family="money")]
    pack = build_pack(msgspec.structs.replace(recipe, misaligned=entries), tmp_path / "pack")
    scores = pack.manifest.reference_scores
    assert [item.id for item in scores] == [entry.name for entry in recipe.misaligned]
    assert all(item.held_out for item in scores)
    assert sorted(item.dose for item in scores)[1] == pytest.approx(1.0)
    assert pack.sites
    assert all(is_residual_writer(site) for site in pack.sites)


def keep_readers_alone(path: Path) -> None:
    """Takes the modules that write to the residual stream out of an adapter."""
    file = path / "adapter_model.safetensors"
    kept = {
        name: value
        for name, value in load_file(file).items()
        if not any(part in name for part in ("o_proj", "down_proj", "c_proj"))
    }
    save_file(kept, file)
