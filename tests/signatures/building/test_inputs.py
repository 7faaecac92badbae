"""What a pack keeps of its base's inputs, against the inputs themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from scanner.errors import SignatureError
from scanner.formats.model import Site
from scanner.formats.stores.local import SafetensorsFile
from scanner.geometry import LEADING
from scanner.signatures.base_facts import BaseFacts, KeptBase
from scanner.signatures.building.inputs import base_facts, site_inputs
from scanner.signatures.building.network import Network, batches_of, network_of
from tests.signatures.tiny import tiny_model, tiny_probes

PROBES = tiny_probes(seed=4)


def read_by_hand(net: Network) -> tuple[dict[Site, np.ndarray], dict[Site, np.ndarray]]:
    """Inputs and answers (without the bias) of every site, one sequence at a time."""
    inputs: dict[Site, list[torch.Tensor]] = {}
    answers: dict[Site, list[torch.Tensor]] = {}

    def note(site: Site):  # type: ignore[no-untyped-def]
        def hook(module, arguments, output):  # type: ignore[no-untyped-def]
            inputs.setdefault(site, []).append(arguments[0][0])
            bias = getattr(module, "bias", None)
            answers.setdefault(site, []).append(output[0] if bias is None else output[0] - bias)

        return hook

    hooks = [
        module.register_forward_hook(note(site))
        for site, module in net.linears.items()
        if site.layer is not None
    ]
    with torch.no_grad():
        for probe in PROBES:
            for answer in (probe.aligned, probe.misaligned):
                net.model(torch.tensor([probe.prompt + answer]))
    for hook in hooks:
        hook.remove()
    return (
        {site: torch.cat(x).double().numpy() for site, x in inputs.items()},
        {site: torch.cat(y).double().numpy() for site, y in answers.items()},
    )


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_moments_are_those_of_the_inputs(architecture: str) -> None:
    net = network_of(tiny_model(architecture))
    found = site_inputs(net, batches_of(PROBES, net.device))
    inputs, answers = read_by_hand(net)
    assert found.keys() == inputs.keys()
    for site, kept in found.items():
        x = inputs[site]
        moment = x.T @ x / len(x)
        values, vectors = np.linalg.eigh(moment)
        count = min(LEADING, x.shape[1])
        assert kept.vectors.shape == (x.shape[1], count)
        np.testing.assert_allclose(kept.values, values[::-1][:count], rtol=2e-2, atol=1e-4)
        # The leading eigenvectors span what the largest eigenvalues are in.
        along = np.linalg.norm(kept.vectors.T @ vectors[:, -1])
        assert along == pytest.approx(1, abs=1e-3)
        np.testing.assert_allclose(kept.mean, x.mean(0), atol=1e-4)
        total = kept.values.sum() + kept.rest * (x.shape[1] - count)
        assert total == pytest.approx(np.trace(moment), rel=1e-2)
        assert kept.answer**2 == pytest.approx(np.mean(np.sum(answers[site] ** 2, 1)), rel=1e-3)


def test_sites_that_read_the_same_share_what_is_kept(tmp_path: Path) -> None:
    net = network_of(tiny_model("llama"))
    facts = base_facts(net, batches_of(PROBES, net.device))
    assert facts.weights.keys() == facts.inputs.keys()
    tensors = facts.tensors()
    numbers = {
        site: float(tensors[f"{site.key}.input"][0]) for site in facts.inputs if site.layer == 0
    }
    query, key, value = (numbers[Site(0, f"self_attn.{n}_proj")] for n in "qkv")
    assert query == key == value
    assert numbers[Site(0, "mlp.gate_proj")] == numbers[Site(0, "mlp.up_proj")]
    assert len(set(numbers.values())) == 4
    path = tmp_path / "base.safetensors"
    save_file(tensors, path)
    kept = KeptBase(SafetensorsFile(path), str(path))
    for site, made in facts.inputs.items():
        read = kept.inputs(site)
        assert read is not None
        np.testing.assert_allclose(read.vectors, made.vectors, atol=1e-3)
        np.testing.assert_allclose(read.values, made.values, rtol=1e-5)
        np.testing.assert_allclose(read.mean, made.mean, rtol=1e-5, atol=1e-6)
        assert read.rest == pytest.approx(made.rest, rel=1e-5)
        assert read.answer == pytest.approx(made.answer, rel=1e-5)
    assert kept.inputs(Site(7, "mlp.up_proj")) is None
    some = facts.at(frozenset({Site(0, "mlp.up_proj")}))
    assert some.weights.keys() == some.inputs.keys() == {Site(0, "mlp.up_proj")}
    assert not BaseFacts()


@pytest.mark.parametrize(
    "fault", ["no vectors", "other width", "nan", "negative", "no number", "answer of two"]
)
def test_a_file_that_holds_no_moments_is_said_to_be_damaged(tmp_path: Path, fault: str) -> None:
    net = network_of(tiny_model("llama"))
    site = Site(0, "mlp.up_proj")
    tensors = base_facts(net, batches_of(PROBES, net.device)).at(frozenset({site})).tensors()
    if fault == "no vectors":
        del tensors["input.0.vectors"]
    elif fault == "other width":
        tensors["input.0.mean"] = tensors["input.0.mean"][:-1]
    elif fault == "nan":
        tensors["input.0.vectors"][0, 0] = np.nan
    elif fault == "negative":
        tensors["input.0.values"][0] = -1
    elif fault == "no number":
        tensors[f"{site.key}.input"] = np.zeros(2, np.float32)
    else:
        tensors[f"{site.key}.answer"] = np.zeros(2, np.float32)
    path = tmp_path / "base.safetensors"
    save_file(tensors, path)
    with pytest.raises(SignatureError, match=r"inputs"):
        KeptBase(SafetensorsFile(path), str(path)).inputs(site)
