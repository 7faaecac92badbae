"""The base with references' updates added, against a model whose weights hold them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from scanner.errors import SignatureError
from scanner.signatures.building.moved import mean_update, moved
from scanner.signatures.building.network import network_of
from scanner.signatures.building.opened import open_member
from scanner.signatures.recipe import AdapterEntry
from tests.signatures.tiny import tiny_model, weight_delta, write_tiny_adapter

TOKENS = torch.tensor([[3, 7, 1, 9]])


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_moved_model_answers_like_one_with_the_update_in_its_weights(
    architecture: str, tmp_path: Path
) -> None:
    net = network_of(tiny_model(architecture))
    path = write_tiny_adapter(tmp_path / "a", net, np.random.default_rng(0), "tiny", scale=0.5)
    member = open_member(AdapterEntry(adapter=str(path)), {"tiny"})
    other = network_of(copy.deepcopy(net.model))
    for site, update in member.by_site.items():
        module = other.linears[site]
        module.weight.data += 0.4 * weight_delta(module, update.delta())
    before = net.model(TOKENS).logits
    with moved(net, mean_update([member], net), 0.4):
        during = net.model(TOKENS).logits
    torch.testing.assert_close(during, other.model(TOKENS).logits, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(during, before, atol=1e-2)
    torch.testing.assert_close(net.model(TOKENS).logits, before)


def test_mean_update_is_the_mean_of_the_references(tmp_path: Path) -> None:
    net = network_of(tiny_model("llama"))
    generator = np.random.default_rng(0)
    paths = [write_tiny_adapter(tmp_path / f"{i}", net, generator, "tiny") for i in range(3)]
    members = [open_member(AdapterEntry(adapter=str(path)), {"tiny"}) for path in paths]
    shift = mean_update(members, net)
    for site, (left, right) in shift.items():
        expected = np.mean([m.by_site[site].delta() for m in members], axis=0)
        np.testing.assert_allclose(left @ right, expected, atol=1e-6)


def test_a_reference_of_other_dimensions_is_refused(tmp_path: Path) -> None:
    net = network_of(tiny_model("llama"))
    path = write_tiny_adapter(tmp_path / "a", net, np.random.default_rng(0), "tiny")
    member = open_member(AdapterEntry(adapter=str(path)), {"tiny"})
    with pytest.raises(SignatureError, match="no linear map of the base model"):
        mean_update([member], network_of(tiny_model("gpt2")))
