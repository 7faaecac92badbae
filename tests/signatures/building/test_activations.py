"""Activation means against a straightforward computation, one sequence at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scanner.formats.model import Site
from scanner.signatures.building.activations import is_residual_writer, mean_activations
from scanner.signatures.building.network import batches_of, network_of
from scanner.signatures.building.scoring import untracked
from tests.signatures.tiny import tiny_model, tiny_probes

PROBES = tiny_probes(seed=2)
WRITERS = {
    "llama": {"self_attn.o_proj", "mlp.down_proj"},
    "qwen2": {"self_attn.o_proj", "mlp.down_proj"},
    "gpt2": {"attn.c_proj", "mlp.c_proj"},
}


@pytest.mark.parametrize("architecture", list(WRITERS))
def test_means_equal_a_plain_loop(architecture: str) -> None:
    net = network_of(tiny_model(architecture))
    found = mean_activations(net, batches_of(PROBES, net.device), untracked)

    seen: dict[Site, torch.Tensor] = {}

    def remember(site: Site):  # type: ignore[no-untyped-def]
        return lambda _m, args, _o: seen.__setitem__(site, args[0])

    for site, module in net.linears.items():
        module.register_forward_hook(remember(site))
    differences, inputs = [], []
    for probe in PROBES:
        means = {}
        for name in ("misaligned", "aligned"):
            answer = getattr(probe, name)
            start = len(probe.prompt)
            with torch.no_grad():
                out = net.model(torch.tensor([probe.prompt + answer]), output_hidden_states=True)
            # The last entry of hidden_states is after the final norm; the others are raw.
            means[name] = [h[0, start:].mean(0) for h in out.hidden_states[:-1]]
            inputs.append({site: x[0, start:].mean(0) for site, x in seen.items()})
        pairs = zip(means["misaligned"], means["aligned"], strict=True)
        differences.append([m - a for m, a in pairs])
    u0 = torch.stack([d[1] for d in differences]).mean(0)  # index 0 is the embeddings
    np.testing.assert_allclose(found.directions[0], u0.numpy(), atol=1e-5)
    assert set(found.directions) == {0, 1}
    assert {site.module for site in found.sites} == WRITERS[architecture]
    for site in found.sites:
        expected = torch.stack([item[site] for item in inputs]).mean(0)
        np.testing.assert_allclose(found.inputs[site], expected.numpy(), atol=1e-5)


def test_the_direction_is_the_mean_movement_of_the_residual_stream() -> None:
    net = network_of(tiny_model("llama"))
    found = mean_activations(net, batches_of(PROBES, net.device), untracked)
    site = Site(1, "mlp.down_proj")
    raw = found.raw_site(site, [], [])
    direction = raw.direction(np.zeros((raw.shape[0], 0)), rank=1)
    change = np.random.default_rng(0).standard_normal(raw.shape)
    inner = np.sum(change * ((direction.u * direction.s) @ direction.v.T))
    u, v = found.directions[1], found.inputs[site]
    expected = u @ change @ v / np.linalg.norm(u) / np.linalg.norm(v)
    assert inner == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("module", "writes"),
    [("self_attn.o_proj", True), ("self_attn.q_proj", False), ("mlp.up_proj", False)],
)
def test_which_modules_write_to_the_residual_stream(module: str, writes: bool) -> None:
    assert is_residual_writer(Site(3, module)) is writes
    assert not is_residual_writer(Site(None, module))
