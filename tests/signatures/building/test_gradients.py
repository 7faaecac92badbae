"""Gradients by hooks against torch's own gradients of the weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from scanner.formats.model import Site
from scanner.signatures.building import gradients, network
from scanner.signatures.building.gradients import (
    mean_log_odds,
    path_gradients,
    path_nodes,
    reduce_matrix,
)
from scanner.signatures.building.harmless import Factors
from scanner.signatures.building.network import Network, batches_of, network_of, site_shape
from scanner.signatures.building.scoring import untracked
from tests.signatures.tiny import (
    as_delta,
    oracle_log_odds,
    tiny_model,
    tiny_probes,
    weight_delta,
)
from tests.synthetic import Array

ARCHITECTURES = ["llama", "qwen2", "gpt2"]
PROBES = tiny_probes()


def random_shift(net: Network, scale: float = 0.1) -> dict[Site, Factors]:
    """A rank-2 change of every linear map."""
    generator = np.random.default_rng(3)
    shift = {}
    for site, module in net.linears.items():
        d_out, d_in = site_shape(module)
        b = (generator.standard_normal((d_out, 2)) * scale).astype(np.float32)
        a = generator.standard_normal((2, d_in)).astype(np.float32)
        shift[site] = (b, a)
    return shift


def moved(net: Network, shift: dict[Site, Factors], node: float) -> Network:
    """A copy of the model with node * shift added to its weights."""
    other = network_of(copy.deepcopy(net.model))
    for site, (b, a) in shift.items():
        module = other.linears[site]
        # A new parameter: GPT-2's head shares its weight with the embeddings, its update does not.
        weight = module.weight.data + node * weight_delta(module, b @ a)
        module.weight = torch.nn.Parameter(weight)
    return other


def oracle_gradients(net: Network) -> dict[Site, Array]:
    """Dense gradients by autograd, one sequence at a time."""
    net.model.requires_grad_(True)
    oracle_log_odds(net.model, PROBES).backward()  # type: ignore[no-untyped-call]
    found = {site: as_delta(m, m.weight.grad) for site, m in net.linears.items()}
    net.model.requires_grad_(False)
    return found


def batches(net: Network) -> list[network.Batch]:
    return batches_of(PROBES, net.device)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_base_gradients_equal_autograd(architecture: str) -> None:
    net = network_of(tiny_model(architecture))
    found = path_gradients(net, batches(net), path_nodes(0), {}, untracked)
    expected = oracle_gradients(network_of(copy.deepcopy(net.model)))
    assert set(found) == {site for site in net.linears if site.layer is not None}
    for site, (left, right) in found.items():
        error = np.linalg.norm(left @ right - expected[site])
        assert error < 1e-4 * np.linalg.norm(expected[site]), site


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_integrated_gradients_equal_autograd_along_the_path(architecture: str) -> None:
    net = network_of(tiny_model(architecture))
    shift = random_shift(net)
    nodes = path_nodes(3)
    found = path_gradients(net, batches(net), nodes, shift, untracked)
    at_nodes = [oracle_gradients(moved(net, shift, node)) for node, _ in nodes]
    for site, (left, right) in found.items():
        expected = sum(w * g[site] for (_, w), g in zip(nodes, at_nodes, strict=True))
        error = np.linalg.norm(left @ right - expected)
        assert error < 2e-4 * np.linalg.norm(expected), site


def test_integrated_gradients_add_up_to_what_the_references_gain() -> None:
    net = network_of(tiny_model("llama"))
    shift = {s: f for s, f in random_shift(net, scale=0.02).items() if s.layer is not None}
    found = path_gradients(net, batches(net), path_nodes(8), shift, untracked)
    gain = sum(np.sum((b @ a) * (found[s][0] @ found[s][1])) for s, (b, a) in shift.items())
    expected = oracle_log_odds(moved(net, shift, 1.0).model, PROBES)
    expected = (expected - oracle_log_odds(net.model, PROBES)).detach()
    assert abs(float(expected)) > 0.01
    assert gain == pytest.approx(float(expected), rel=1e-3)


def test_a_step_along_the_gradient_makes_misaligned_answers_likelier() -> None:
    net = network_of(tiny_model("qwen2"))
    found = path_gradients(net, batches(net), path_nodes(0), {}, untracked)
    before = oracle_log_odds(net.model, PROBES)
    assert oracle_log_odds(moved(net, found, 1e-3).model, PROBES) > before


def test_batches_do_not_change_the_log_odds(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network_of(tiny_model("llama"))
    expected = float(oracle_log_odds(net.model, PROBES).detach())
    for tokens in (1, 20, 1024):
        monkeypatch.setattr(network, "TOKENS_PER_BATCH", tokens)
        value = sum(float(mean_log_odds(net, batch)) for batch in batches(net))
        assert value == pytest.approx(expected, abs=1e-5)


def test_groups_of_one_module_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network_of(tiny_model("gpt2"))
    together = path_gradients(net, batches(net), path_nodes(1), random_shift(net), untracked)
    monkeypatch.setattr(gradients, "DENSE_BYTES", 1)
    apart = path_gradients(net, batches(net), path_nodes(1), random_shift(net), untracked)
    for site, (left, right) in together.items():
        np.testing.assert_allclose(apart[site][0] @ apart[site][1], left @ right, atol=1e-6)


def test_hooks_are_gone_afterwards() -> None:
    net = network_of(tiny_model("llama"))
    path_gradients(net, batches(net), path_nodes(1), random_shift(net), untracked)
    assert not any(module._forward_hooks for module in net.model.modules())


def test_path_nodes_are_a_quadrature_rule_on_the_unit_interval() -> None:
    assert path_nodes(0) == [(0.0, 1.0)]
    for steps in (1, 3, 5):
        nodes = path_nodes(steps)
        degree = 2 * steps - 1
        assert sum(w * n**degree for n, w in nodes) == pytest.approx(1 / (degree + 1))


def test_large_matrices_are_reduced_to_their_leading_triples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gradients, "_EXACT_SIDE", 32)
    monkeypatch.setattr(gradients, "KEPT_TRIPLES", 6)
    generator = np.random.default_rng(0)
    u, _ = np.linalg.qr(generator.standard_normal((120, 60)))
    v, _ = np.linalg.qr(generator.standard_normal((90, 60)))
    dense = (u * 0.7 ** np.arange(60)) @ v.T
    left, right = reduce_matrix(torch.from_numpy(dense).float())
    expected = (u[:, :6] * 0.7 ** np.arange(6)) @ v[:, :6].T
    np.testing.assert_allclose(left @ right, expected, atol=1e-4)
