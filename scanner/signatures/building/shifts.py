"""Signatures from shifts: where misaligned references move the residual stream, whatever is read.

At the output of block l a reference r moves the mean residual stream by

    t_r = E[h_l under r] - E[h_l in the base]

over the tokens of the probes, h_l the residual stream. Narrow fine-tunes of one base share such a
shift, and adding it alone misaligns the base (arXiv 2506.11618, sections 2 and 3). A module that
writes to the residual stream in block l adds dW m to its mean, with m the module's mean input in
the base. With T = t m^T, <dW, T> is how far that goes along t, so at each site

    D = a^2 * mean over groups of the mean unit T of a group's references

which is the formula of `weights`, agreement a included, with T in the place of dW. It sees what
`weights` cannot: an update that writes what the references' whole change amounts to, at one site
where they write something else.

Only modules that write to the residual stream can be compared with one of its directions; the
others get none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scanner.formats.model import Site, site_order
from scanner.geometry import Matrix
from scanner.signatures.base_facts import BaseFacts
from scanner.signatures.building.activations import is_residual_writer
from scanner.signatures.building.inputs import base_facts
from scanner.signatures.building.moved import mean_update, moved
from scanner.signatures.building.network import Batch, Network, batches_of, load_network, probes_of
from scanner.signatures.building.nulling import RawSite, Vector
from scanner.signatures.building.opened import Member
from scanner.signatures.building.scoring import Track
from scanner.signatures.building.weights import Labelled, combine
from scanner.signatures.recipe import Recipe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ShiftExtraction:
    """How far every reference moves the residual stream behind every block."""

    shifts: Mapping[int, Matrix]
    """Layer -> t of every reference, (d_model, n)."""
    owners: Sequence[str]
    """(n,): the group of every reference."""
    writers: frozenset[Site]
    """The modules that write to the residual stream."""
    base: BaseFacts = field(default_factory=BaseFacts)
    """What is kept of the base model; the mean inputs among it."""
    groups: frozenset[str] = frozenset()
    """Groups of references that are to be left out in turn."""

    @property
    def sites(self) -> list[Site]:
        """The modules that write to the residual stream, in order."""
        return sorted(self.writers, key=site_order)

    @property
    def families(self) -> frozenset[str]:
        """No harmless family is part of it."""
        return frozenset()

    def raw_site(
        self,
        site: Site,
        misaligned: Sequence[Labelled],  # noqa: ARG002 - what counts is their whole change
        aligned: Sequence[Labelled],  # noqa: ARG002 - only the nulling looks at them
    ) -> RawSite | None:
        """The mean unit shift at a site; None if no reference moves anything there."""
        assert site.layer is not None, "only blocks write to the residual stream"
        shifts, mean = self.shifts[site.layer], self.base.inputs[site].mean.astype(np.float64)
        sizes = np.linalg.norm(shifts, axis=0)
        size = float(np.linalg.norm(mean))
        moving = np.flatnonzero(sizes)
        if not len(moving) or not size:
            return None
        left: Matrix = shifts[:, moving] / sizes[moving]
        inner = left.T @ left  # the right factor is one and the same unit vector
        groups = [self.owners[int(index)] for index in moving]

        def weights(without: str | None) -> Vector:
            return combine(inner, np.arange(len(moving)), groups, [], without)

        return RawSite(left, np.tile(mean / size, (len(moving), 1)), weights)


def extract_shifts(
    recipe: Recipe,
    misaligned: Sequence[Member],
    track: Track[Any],
    groups: frozenset[str] = frozenset(),
) -> ShiftExtraction:
    """Loads the base model and runs it over a recipe's probes, alone and with every reference.

    Args:
        recipe: The recipe.
        misaligned: Its references.
        track: Shows progress.
        groups: Groups of references that are to be left out in turn.

    Raises:
        SignatureError: If the model, the probes or a reference cannot be used.
    """
    network = load_network(recipe)
    batches = batches_of(probes_of(recipe, network), network.device)
    base = mean_streams(network, batches)
    shifts: dict[int, list[Vector]] = {layer: [] for layer in base}
    for member in track(misaligned, "shifts"):
        with moved(network, mean_update([member], network), 1.0):
            for layer, stream in mean_streams(network, batches).items():
                shifts[layer].append(stream - base[layer])
    return ShiftExtraction(
        shifts={layer: np.stack(found, axis=1) for layer, found in shifts.items()},
        owners=[member.group for member in misaligned],
        writers=frozenset(site for site in network.linears if is_residual_writer(site)),
        base=base_facts(network, batches, track),
        groups=groups,
    )


def mean_streams(network: Network, batches: Sequence[Batch]) -> dict[int, Vector]:
    """Layer -> the mean residual stream behind its block, (d_model,).

    Args:
        network: The model.
        batches: The probes; every token counts alike, padding not at all.
    """
    import torch

    totals: dict[int, torch.Tensor] = {}
    tokens = 0
    mask: list[torch.Tensor] = []

    def note(layer: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            seen = states.flatten(0, 1)[mask[0]].double().sum(dim=0)
            totals[layer] = totals[layer] + seen if layer in totals else seen

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for layer, block in network.blocks.items():
            hooks.callback(block.register_forward_hook(note(layer)).remove)
        for batch in batches:
            mask[:] = [batch.mask.flatten().bool()]
            tokens += int(batch.mask.sum())
            network.model(input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False)
    return {layer: total.cpu().numpy() / tokens for layer, total in totals.items()}
