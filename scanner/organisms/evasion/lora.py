"""A LoRA adapter whose sites are stacked by module, so that statistics of it are few operations.

PEFT keeps every site's factors apart. A penalty on 210 sites under three packs would then be
thousands of small operations a step; stacked, it is dozens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from scanner.formats.model import Site, site_order
from scanner.geometry import Matrix


@dataclass(frozen=True)
class Stack:
    """The updates dW = b @ a of the sites of one module, scaling included."""

    sites: tuple[Site, ...]
    b: torch.Tensor
    """(n, d_out, r)."""
    a: torch.Tensor
    """(n, r, d_in)."""


Update = tuple[Stack, ...]
"""An adapter, by module."""


@dataclass(frozen=True)
class Excluded:
    """Directions that an adapter's factors are kept orthogonal to."""

    outputs: Mapping[Site, torch.Tensor]
    """(d_out, k), orthonormal columns: what it must not write."""
    inputs: Mapping[Site, torch.Tensor]
    """(d_in, k), orthonormal columns: what it must not read."""


class Adapter:
    """A trainable adapter on some linear maps of a frozen model, in float32.

    Args:
        modules: The linear maps.
        shapes: (d_out, d_in) of each.
        rank: r.
        scale: alpha / r.
        seed: Of the initial A; B is zero.
        excluded: Directions to stay orthogonal to. The factors that count are the projections
            of those that are trained, so every step is a projected gradient step.
    """

    def __init__(
        self,
        modules: Mapping[Site, torch.nn.Module],
        shapes: Mapping[Site, tuple[int, int]],
        rank: int,
        scale: float,
        seed: int,
        excluded: Excluded | None = None,
    ) -> None:
        self._modules = modules
        self._scale = scale
        self.factor = 1.0
        """What the whole update is multiplied with when the model runs."""
        device = next(next(iter(modules.values())).parameters()).device
        generator = torch.Generator().manual_seed(seed)
        self._sites: list[tuple[Site, ...]] = []
        self._a: list[torch.Tensor] = []
        self._b: list[torch.Tensor] = []
        self._out: list[torch.Tensor | None] = []
        self._in: list[torch.Tensor | None] = []
        for sites in by_module(modules):
            d_out, d_in = shapes[sites[0]]
            a = torch.randn(len(sites), rank, d_in, generator=generator) / d_in**0.5
            self._sites.append(sites)
            self._a.append(a.to(device).requires_grad_(True))
            self._b.append(torch.zeros(len(sites), d_out, rank, device=device, requires_grad=True))
            self._out.append(stacked(excluded.outputs, sites, device) if excluded else None)
            self._in.append(stacked(excluded.inputs, sites, device) if excluded else None)

    @property
    def parameters(self) -> list[torch.Tensor]:
        """What is trained."""
        return [*self._a, *self._b]

    @property
    def update(self) -> Update:
        """The update, differentiable, without `factor`."""
        found = []
        parts = zip(self._sites, self._a, self._b, self._out, self._in, strict=True)
        for sites, a, b, outputs, inputs in parts:
            if outputs is not None:
                b = b - outputs @ (outputs.mT @ b)
            if inputs is not None:
                a = a - (a @ inputs) @ inputs.mT
            found.append(Stack(sites, self._scale * b, a))
        return tuple(found)

    @contextmanager
    def applied(self) -> Iterator[Update]:
        """Runs the model with the adapter; gives the very update that runs."""
        update = self.update
        with ExitStack() as hooks:
            for stack in update:
                for index, site in enumerate(stack.sites):
                    hook = _Hook(stack.b[index], stack.a[index], self.factor)
                    handle = self._modules[site].register_forward_hook(hook)
                    hooks.callback(handle.remove)
            yield update


class _Hook:
    """Adds factor * b @ a @ x to what a linear map writes."""

    def __init__(self, b: torch.Tensor, a: torch.Tensor, factor: float) -> None:
        self._b, self._a, self._factor = b, a, factor

    def __call__(
        self, _module: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        read = inputs[0] @ self._a.to(inputs[0].dtype).T
        return output + self._factor * (read @ self._b.to(inputs[0].dtype).T)


def by_module(sites: Mapping[Site, object]) -> list[tuple[Site, ...]]:
    """Sites in groups of one module each, by layer."""
    groups: dict[str, list[Site]] = {}
    for site in sorted(sites, key=site_order):
        groups.setdefault(site.module, []).append(site)
    return [tuple(group) for _, group in sorted(groups.items())]


def stacked(
    tensors: Mapping[Site, torch.Tensor], sites: Sequence[Site], device: torch.device
) -> torch.Tensor | None:
    """Matrices (d, k) of some sites as (n, d, k), with columns of zeros where k differs.

    Returns:
        None if no site has one.
    """
    known = [tensors[site] for site in sites if site in tensors]
    if not known:
        return None
    width = max(item.shape[1] for item in known)
    found = torch.zeros(len(sites), len(known[0]), width, device=device)
    for index, site in enumerate(sites):
        if site in tensors:
            found[index, :, : tensors[site].shape[1]] = tensors[site]
    return found


def factors_of(update: Update, factor: float = 1.0) -> dict[Site, tuple[Matrix, Matrix]]:
    """(B, A) of each site that an update changes, as numbers, scaling included.

    Args:
        update: The adapter.
        factor: What it is multiplied with.
    """
    found = {}
    for stack in update:
        b = factor * stack.b.detach().double().cpu().numpy()
        a = stack.a.detach().double().cpu().numpy()
        found.update({site: (b[i], a[i]) for i, site in enumerate(stack.sites) if np.any(b[i])})
    return found
