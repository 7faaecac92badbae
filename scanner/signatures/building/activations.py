"""Signatures from activations: what misaligned answers look like in the residual stream.

At the output of block l, u is the mean residual stream over misaligned answers minus the
mean over aligned ones (the difference of means of arXiv 2506.11618, section 2). A module
that writes to the residual stream in block l moves it along u by u^T dW x; with v the mean
input x of that module in the base model, <dW, u v^T> is the mean movement. D = u v^T is
scaled to unit norm at every site: residual streams grow with depth, and the last blocks
would outweigh all others.

Only modules that write to the residual stream can be compared with a residual-stream
direction; the others get none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scanner.formats.model import Site, site_order
from scanner.geometry import Matrix
from scanner.signatures.base_facts import BaseFacts
from scanner.signatures.building.inputs import base_facts
from scanner.signatures.building.network import Batch, Network, batches_of, load_network, probes_of
from scanner.signatures.building.nulling import RawSite
from scanner.signatures.building.scoring import Track
from scanner.signatures.building.weights import Labelled
from scanner.signatures.recipe import Recipe

if TYPE_CHECKING:
    import torch

RESIDUAL_WRITERS = frozenset(
    {
        "self_attn.o_proj",  # Llama, Qwen, Mistral, Gemma, Phi-3, ...
        "mlp.down_proj",
        "self_attn.dense",  # Phi
        "mlp.fc2",
        "attn.c_proj",  # GPT-2
        "mlp.c_proj",
        "attn.out_proj",  # GPT-J, CodeGen
        "attn.attention.out_proj",  # GPT-Neo
        "mlp.fc_out",
        "self_attn.out_proj",  # OPT
        "fc2",
        "attention.dense",  # GPT-NeoX
        "self_attention.dense",  # Falcon, BLOOM
        "mlp.dense_4h_to_h",
        "attention.wo",  # InternLM2
        "feed_forward.w2",
        "ffn.down_proj",  # MPT
    }
)
"""Modules whose output is added to the residual stream, by their path below the block."""


@dataclass(frozen=True)
class ActivationExtraction:
    """Residual-stream directions, and the mean input of every module that writes there."""

    directions: Mapping[int, Matrix]
    """Layer -> u, (d_model,)."""
    inputs: Mapping[Site, Matrix]
    """Residual-writing site -> v, (d_in,)."""
    base: BaseFacts = field(default_factory=BaseFacts)
    """What is kept of the base model."""

    @property
    def sites(self) -> list[Site]:
        """Sites with a direction, in order."""
        return sorted(self.inputs, key=site_order)

    @property
    def families(self) -> frozenset[str]:
        """No harmless family is part of it."""
        return frozenset()

    @property
    def groups(self) -> frozenset[str]:
        """No group of references is part of it."""
        return frozenset()

    def raw_site(
        self,
        site: Site,
        misaligned: Sequence[Labelled],  # noqa: ARG002 - they are on the path, or in the unit of dose
        aligned: Sequence[Labelled],  # noqa: ARG002 - only the nulling looks at them
    ) -> RawSite:
        """The unit direction u v^T at a site; the references only set the unit of dose."""
        assert site.layer is not None, "only blocks write to the residual stream"
        u, v = self.directions[site.layer], self.inputs[site]
        size = np.linalg.norm(u) * np.linalg.norm(v)
        return RawSite.fixed((u / (size or 1.0))[:, np.newaxis], v[np.newaxis])


def extract_activations(recipe: Recipe, track: Track[Batch]) -> ActivationExtraction:
    """Loads the base model and runs it over a recipe's probes.

    Raises:
        SignatureError: If the model or the probes cannot be used.
    """
    network = load_network(recipe)
    batches = batches_of(probes_of(recipe, network), network.device)
    return replace(
        mean_activations(network, batches, track), base=base_facts(network, batches, track)
    )


def mean_activations(
    network: Network, batches: Sequence[Batch], track: Track[Batch]
) -> ActivationExtraction:
    """Difference of means at every block's output, mean input of every residual writer.

    Means are over answer tokens, each answer of each probe weighing the same.
    """
    import torch

    writers = [site for site in network.linears if is_residual_writer(site)]
    signed: dict[int, Any] = {}
    inputs: dict[Site, Any] = {}
    current: list[Batch] = []

    def add(store: dict[Any, Any], key: Any, states: torch.Tensor, weights: torch.Tensor) -> None:
        part = torch.einsum("nt,ntd->d", weights.double(), states.double())
        store[key] = store[key] + part if key in store else part

    def on_block(layer: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            add(signed, layer, states, current[0].share * current[0].sign[:, None])

        return hook

    def on_writer(site: Site) -> Any:
        def hook(_module: Any, arguments: tuple[torch.Tensor, ...], _output: Any) -> None:
            states = arguments[0].reshape(*current[0].tokens.shape, -1)
            add(inputs, site, states, current[0].share / 2)  # half: two answers per probe

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for layer, block in network.blocks.items():
            hooks.callback(block.register_forward_hook(on_block(layer)).remove)
        for site in writers:
            handle = network.linears[site].register_forward_hook(on_writer(site))
            hooks.callback(handle.remove)
        for batch in track(batches, "activations"):
            current[:] = [batch]
            network.model(input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False)
    return ActivationExtraction(
        directions={layer: value.cpu().numpy() for layer, value in signed.items()},
        inputs={site: value.cpu().numpy() for site, value in inputs.items()},
    )


def is_residual_writer(site: Site) -> bool:
    """Whether a site's output is added to the residual stream of its block."""
    return site.layer is not None and site.module in RESIDUAL_WRITERS
