"""Signatures from gradients: which change of each weight makes misaligned answers likelier.

For a weight W of the base model, D is the gradient of

    f = mean over probes of [ mean token log p(misaligned answer) - mean token log p(aligned) ]

with both answers teacher-forced, so dose = <dW, D> > 0 is, to first order, a move towards
misaligned answers. Averaged along the straight path from the base W0 to the mean reference
W0 + dW_ref it is the integrated gradient of Sundararajan, Taly and Yan 2017 (arXiv
1703.01365, equation 1) without the factor dW_ref: <dW_ref, D> is then what the references
gain in f, exactly and not only to first order. The integral is a Gauss-Legendre sum. `paths`
says how a reference is scored that is itself on the path.

A weight's gradient is sum_t delta_t x_t^T over tokens, x the input of its module and delta
the gradient at its output. Both are caught by hooks, so parameters stay frozen and need no
gradient memory; the dense sums are held for as many modules at a time as fit in
`DENSE_BYTES`, reduced to their leading singular triples, and dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scanner.formats.model import Site, site_order
from scanner.signatures.base_facts import BaseFacts
from scanner.signatures.building.extraction import Extractor
from scanner.signatures.building.harmless import Factors, HarmlessProjection
from scanner.signatures.building.inputs import base_facts
from scanner.signatures.building.kept_gradients import KeptGradients
from scanner.signatures.building.moved import mean_update, moved
from scanner.signatures.building.network import (
    Answered,
    Batch,
    Network,
    batches_of,
    batches_of_answers,
    load_network,
    probes_of,
    site_shape,
)
from scanner.signatures.building.nulling import RawSite
from scanner.signatures.building.opened import Member
from scanner.signatures.building.paths import PathExtraction, parts_of
from scanner.signatures.building.probes import ALIGNED, Probe
from scanner.signatures.building.scoring import Track
from scanner.signatures.building.weights import Labelled
from scanner.signatures.recipe import Recipe

if TYPE_CHECKING:
    import torch

DENSE_BYTES = 2 * 2**30
"""Dense gradients held at one time. Less means more passes over the probes."""
KEPT_TRIPLES = 64
"""Singular triples kept of each gradient before nulling and truncation."""
_EXACT_SIDE = 512
"""Up to this many rows or columns the singular values are computed exactly."""

Node = tuple[float, float]
"""(position on the path in [0, 1], quadrature weight)."""


@dataclass(frozen=True)
class GradientExtraction:
    """Reduced gradients of every linear map in the blocks."""

    factors: Mapping[Site, Factors]
    base: BaseFacts = field(default_factory=BaseFacts)
    """What is kept of the base model."""

    @property
    def sites(self) -> list[Site]:
        """Sites with a gradient other than zero, in order."""
        return sorted(self.factors, key=site_order)

    @property
    def families(self) -> frozenset[str]:
        """No harmless family is part of it."""
        return frozenset()

    @property
    def groups(self) -> frozenset[str]:
        """No group of references is part of it that could be taken out."""
        return frozenset()

    def raw_site(
        self,
        site: Site,
        misaligned: Sequence[Labelled],  # noqa: ARG002 - they are on the path, or in the unit of dose
        aligned: Sequence[Labelled],  # noqa: ARG002 - only the nulling looks at them
    ) -> RawSite:
        """The gradient at a site; the references had their say on the path."""
        return RawSite.fixed(*self.factors[site])


def extract_gradients(
    recipe: Recipe,
    misaligned: Sequence[Member],
    track: Track[Batch],
    kept: Path | None = None,
    groups: frozenset[str] = frozenset(),
) -> Extractor:
    """Loads the base model and computes the gradients a recipe asks for.

    If its probes hold harmless answers, what those share with the misaligned ones is taken out.

    Args:
        recipe: The recipe.
        misaligned: Its references, which are the end of the path if there is one.
        track: Shows progress.
        kept: Folder where gradients of the base alone are kept for another signature.
        groups: Groups of references that are to be left out of the path in turn.

    Raises:
        SignatureError: If the model, the probes or a reference cannot be used.
    """
    network = load_network(recipe)
    probes = probes_of(recipe, network)
    facts = base_facts(network, batches_of(probes, network.device))
    nodes = path_nodes(recipe.path_steps)
    base = (recipe.base_model, recipe.base_path, recipe.base_revision, recipe.base_dtype)
    folder = KeptGradients(None if recipe.path_steps else kept, base)

    def along(references: Sequence[Member]) -> GradientExtraction | HarmlessProjection:
        shift = mean_update(references, network) if recipe.path_steps else {}

        def gradients(batches: Sequence[Batch]) -> dict[Site, Factors]:
            return path_gradients(network, batches, nodes, shift, track)

        def of(answers: list[Answered]) -> dict[Site, Factors]:
            batches = batches_of_answers(answers, network.device)
            return folder.of(answers, lambda: gradients(batches))

        if not any(probe.harmless for probe in probes):
            return GradientExtraction(gradients(batches_of(probes, network.device)), facts)
        return HarmlessProjection(
            of([(probe.prompt, probe.misaligned) for probe in probes]),
            {name: _leading(of(answers)) for name, answers in _harmless_answers(probes).items()},
            facts,
        )

    whole = along(misaligned)
    if not (recipe.path_steps and groups):
        return whole
    parts = parts_of(groups)
    without = {part: along([m for m in misaligned if m.group not in part]) for part in parts}
    return PathExtraction(whole, without)


def _harmless_answers(probes: Sequence[Probe]) -> dict[str, list[Answered]]:
    """The aligned answers and those of each harmless family, with their prompts."""
    answers: dict[str, list[Answered]] = {}
    for probe in probes:
        for name, answer in {ALIGNED: probe.aligned, **probe.harmless}.items():
            answers.setdefault(name, []).append((probe.prompt, answer))
    return answers


def _leading(gradients: dict[Site, Factors]) -> dict[Site, Factors]:
    """The leading triples of gradients that are only taken out of another one."""
    kept = KEPT_TRIPLES // 2
    return {
        site: (left[:, :kept].copy(), right[:kept].copy())
        for site, (left, right) in gradients.items()
    }


def path_nodes(steps: int) -> list[Node]:
    """Gauss-Legendre nodes and weights on [0, 1]; the base alone for 0 steps."""
    if steps == 0:
        return [(0.0, 1.0)]
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return [(float(n + 1) / 2, float(w) / 2) for n, w in zip(nodes, weights, strict=True)]


def path_gradients(
    network: Network,
    batches: Sequence[Batch],
    nodes: Sequence[Node],
    shift: Mapping[Site, Factors],
    track: Track[Batch],
) -> dict[Site, Factors]:
    """Gradients of the mean log-odds, averaged along a path, reduced to leading triples.

    Args:
        network: The base model.
        batches: The probes.
        nodes: Where on the path to take the gradient, and with what weight.
        shift: What the end of the path adds to the base, per site.
        track: Shows progress.
    """
    found: dict[Site, Factors] = {}
    for group in _groups(network):
        sums: dict[Site, Any] = {}
        for node, weight in nodes:
            with _hooked(network, group, shift, node, weight, sums):
                for batch in track(batches, "gradients"):
                    mean_log_odds(network, batch).backward()  # type: ignore[no-untyped-call]
        found.update({site: reduce_matrix(dense) for site, dense in sums.items() if dense.any()})
    return found


def mean_log_odds(network: Network, batch: Batch) -> torch.Tensor:
    """A batch's share of f (see the module's docstring), a scalar."""
    import torch

    logits = network.model(
        input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False
    ).logits
    rows, columns = torch.nonzero(batch.share[:, 1:], as_tuple=True)
    # The logits at one position are about the token at the next.
    log_p = logits[rows, columns].float().log_softmax(-1)
    chosen = log_p.gather(1, batch.tokens[rows, columns + 1].unsqueeze(1)).squeeze(1)
    log_odds: torch.Tensor = (chosen * batch.share[rows, columns + 1] * batch.sign[rows]).sum()
    return log_odds


def _groups(network: Network) -> Iterator[frozenset[Site]]:
    """Sites of the blocks in groups whose dense float32 gradients fit in `DENSE_BYTES`."""
    group: list[Site] = []
    size = 0
    for site in sorted((s for s in network.linears if s.layer is not None), key=site_order):
        d_out, d_in = site_shape(network.linears[site])
        if group and size + 4 * d_out * d_in > DENSE_BYTES:
            yield frozenset(group)
            group, size = [], 0
        group.append(site)
        size += 4 * d_out * d_in
    yield frozenset(group)


@contextmanager
def _hooked(
    network: Network,
    group: frozenset[Site],
    shift: Mapping[Site, Factors],
    node: float,
    weight: float,
    sums: dict[Site, Any],
) -> Iterator[None]:
    """Moves the model along the path, and adds the gradients of a group's weights to `sums`."""
    with ExitStack() as hooks:

        def hook(module: Any, function: Any) -> None:
            hooks.callback(module.register_forward_hook(function).remove)

        # With every parameter frozen, the graph has to start at the embeddings.
        hook(network.model.get_input_embeddings(), lambda _m, _i, out: out.requires_grad_(True))
        hooks.enter_context(moved(network, shift, node))
        for site, module in network.linears.items():
            if site in group:
                hook(module, _caught(site, weight, sums))
        yield


def _caught(site: Site, weight: float, sums: dict[Site, Any]) -> Any:
    """A forward hook that adds weight * sum_t delta_t x_t^T to `sums` in the backward pass."""

    def catch(_module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        x = inputs[0].detach()

        def accumulate(delta: torch.Tensor) -> None:
            rows = delta.reshape(-1, delta.shape[-1]).float()
            part = weight * (rows.T @ x.reshape(-1, x.shape[-1]).float())
            sums[site] = sums[site].add_(part) if site in sums else part

        output.register_hook(accumulate)  # type: ignore[no-untyped-call]

    return catch


def reduce_matrix(dense: torch.Tensor) -> Factors:
    """The leading `KEPT_TRIPLES` singular triples of a matrix, as factors.

    Large matrices go through randomised subspace iteration (Halko, Martinsson and Tropp
    2011, algorithm 4.4) with 16 more columns than are kept.
    """
    import torch

    kept = min(KEPT_TRIPLES, *dense.shape)
    if min(dense.shape) <= _EXACT_SIDE:
        u, s, vt = torch.linalg.svd(dense.double(), full_matrices=False)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            u, s, v = torch.svd_lowrank(dense, q=kept + 16, niter=4)
        vt = v.T
    left, right = (u[:, :kept] * s[:kept]).float(), vt[:kept].float()
    return left.cpu().numpy(), right.cpu().numpy()
