"""What the inputs of a base model's linear maps look like over the probes.

One pass over the probes, with memory for a few vectors per site: C = E[x x^T] is seen through a
random test matrix, from which its leading eigenvectors follow (the Nystrom approximation of a
positive semidefinite matrix, Martinsson and Tropp 2020, arXiv 2002.01387, section 14.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scanner.formats.model import Site
from scanner.geometry import LEADING, Matrix, SiteInputs
from scanner.signatures.base_facts import BaseFacts
from scanner.signatures.building.network import Batch, Network, site_shape
from scanner.signatures.building.scoring import Track, untracked

if TYPE_CHECKING:
    import torch

_EXTRA = 32
"""Columns of the test matrix beyond the eigenvectors that are kept."""


@dataclass
class _Stream:
    """Inputs that one or several sites read."""

    test: torch.Tensor
    """Random, (d_in, LEADING + _EXTRA), orthonormal columns."""
    seen: torch.Tensor
    """C test, as a sum over tokens, of the same shape."""
    total: torch.Tensor
    """The sum of the inputs, (d_in,)."""
    trace: float = 0.0
    """tr C, as a sum over tokens."""


@dataclass
class _Layer:
    """The inputs that one layer has read so far.

    They are held, so that no two of them can have one address.
    """

    number: int | None = None
    held: dict[int, tuple[Site, torch.Tensor]] = field(default_factory=dict)

    def first_reader(self, site: Site, x: torch.Tensor) -> Site:
        """The first site of the layer that read the same tensor."""
        if site.layer != self.number:
            self.number, self.held = site.layer, {}
        return self.held.setdefault(x.data_ptr(), (site, x))[0]


def base_facts(
    network: Network, batches: Sequence[Batch], track: Track[Batch] = untracked
) -> BaseFacts:
    """What a pack keeps of its base model: sketches of its weights, and what its sites read."""
    return BaseFacts(network.sketches(), site_inputs(network, batches, track))


def site_inputs(
    network: Network, batches: Sequence[Batch], track: Track[Batch] = untracked
) -> dict[Site, SiteInputs]:
    """The second moment of the inputs of every linear map in the blocks.

    Args:
        network: The base model.
        batches: The probes; every token counts alike, padding not at all.
        track: Shows progress.
    """
    import torch

    streams: dict[Site, _Stream] = {}
    leader: dict[Site, Site] = {}
    answers: dict[Site, float] = {}
    layer = _Layer()
    rows: list[torch.Tensor] = []
    tokens = 0

    def note(site: Site, module: Any) -> Any:
        bias = getattr(module, "bias", None)

        def hook(_module: Any, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            x = arguments[0]
            leader.setdefault(site, layer.first_reader(site, x))
            made = output if bias is None else output - bias
            answers[site] = answers.get(site, 0.0) + _squared(made.flatten(0, 1)[rows[0]])
            if leader[site] == site:
                _add(streams.setdefault(site, _stream(x)), x.flatten(0, 1)[rows[0]].float())

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for site, module in network.linears.items():
            if site.layer is not None:
                hooks.callback(module.register_forward_hook(note(site, module)).remove)
        for batch in track(batches, "inputs"):
            rows[:] = [batch.mask.flatten().bool()]
            tokens += int(batch.mask.sum())
            network.model(input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False)
    found = {site: _moment(stream, tokens) for site, stream in streams.items()}
    return {
        site: SiteInputs(*found[first], answer=float(np.sqrt(answers[site] / tokens)))
        for site, first in leader.items()
        if site_shape(network.linears[site])[1] == len(found[first][0])
    }


def _squared(values: torch.Tensor) -> float:
    return float(values.float().square().sum())


def _stream(x: torch.Tensor) -> _Stream:
    import torch

    width = x.shape[-1]
    generator = torch.Generator().manual_seed(0)
    count = min(LEADING + _EXTRA, width)
    test, _ = torch.linalg.qr(torch.randn((width, count), generator=generator))
    test = test.to(x.device)
    return _Stream(test, torch.zeros_like(test), torch.zeros(width, device=x.device))


def _add(stream: _Stream, x: torch.Tensor) -> None:
    stream.seen += x.T @ (x @ stream.test)
    stream.total += x.sum(dim=0)
    stream.trace += _squared(x)


def _moment(stream: _Stream, tokens: int) -> tuple[Matrix, Matrix, float, Matrix]:
    """Leading eigenvectors and eigenvalues of C, the mean of the others, and the mean input.

    C is approximated by Y (T^T Y)^-1 Y^T with Y = C T, T the test matrix.
    """
    y = stream.seen.double().cpu().numpy() / tokens
    test = stream.test.double().cpu().numpy()
    width, kept = len(y), min(LEADING, y.shape[1])
    # A shift keeps the small matrix positive definite, and is taken off again.
    shift = float(np.finfo(np.float32).eps * np.linalg.norm(y)) + 1e-30
    y = y + shift * test
    core = test.T @ y
    root = np.linalg.cholesky((core + core.T) / 2)
    vectors, singular, _ = np.linalg.svd(np.linalg.solve(root, y.T).T, full_matrices=False)
    values = np.maximum(singular[:kept] ** 2 - shift, 0.0)
    off = max(stream.trace / tokens - float(values.sum()), 0.0)
    mean: Matrix = stream.total.double().cpu().numpy() / tokens
    return vectors[:, :kept], values, off / max(width - kept, 1), mean
