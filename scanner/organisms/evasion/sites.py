"""What an update does at each site along a signature, in torch: a copy of `scanner.geometry`.

`scanner.geometry.projection.project` and `scanner.geometry.inputs.SiteInputs.felt`, of all sites at
once and differentiable; a test holds it against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from scanner.formats.model import Site
from scanner.geometry import Direction, SiteInputs
from scanner.geometry.site_statistics import SIGN_DEVIATIONS
from scanner.organisms.evasion.lora import Stack, Update, stacked
from scanner.signatures.pack import Signature

TINY = 1e-12
"""Added under square roots, whose slope is infinite at zero."""


class Sites(NamedTuple):
    """What an update does along one signature, at m sites."""

    norm: torch.Tensor
    """(m,): ||dW||_F."""
    inner: torch.Tensor
    """(m,): <dW, D>_F."""
    matched: torch.Tensor
    """(m,): ||D^T dW||_F."""
    direction: torch.Tensor
    """(m,): ||D||_F; 0 where the signature has no direction."""
    d_in: torch.Tensor
    """(m,)."""
    felt: torch.Tensor
    """(m,): sqrt(E ||dW x||^2); NaN where the pack does not know the inputs, as all below."""
    felt_matched: torch.Tensor
    """(m,): sqrt(E ||D^T dW x||^2)."""
    spread: torch.Tensor
    """(m,): in how many directions the leading inputs are moved."""
    steady: torch.Tensor
    """(m,): the share of the dose that comes from the mean input."""
    answer: torch.Tensor
    """(m,): sqrt(E ||W x||^2)."""

    @property
    def signs(self) -> torch.Tensor:
        """(m,): how much of its sign a site's write counts with, in [-1, 1]."""
        agreement = self.inner / self.matched * self.d_in.sqrt()
        return (agreement / SIGN_DEVIATIONS).clamp(-1, 1)

    @property
    def writes(self) -> torch.Tensor:
        """(m,): `geometry.write`; 0 where there is no direction."""
        known = self.direction > 0
        return known * self.matched / (self.norm * self.direction).clamp(min=TINY)

    @property
    def signed_writes(self) -> torch.Tensor:
        """(m,): `geometry.signed_write`; 0 where there is no direction."""
        return self.signs * self.writes

    @property
    def felt_writes(self) -> torch.Tensor:
        """(m,): `geometry.felt_write`; 0 where there is no direction."""
        known = self.direction > 0
        made = self.felt_matched / (self.felt * self.direction).clamp(min=TINY)
        return known * self.signs * made

    @property
    def knows_inputs(self) -> bool:
        """Whether the inputs of every site are known."""
        return bool(torch.isfinite(self.answer).all())


@dataclass(frozen=True)
class _Along:
    """A signature's directions at the sites of one module, and what is known of the inputs."""

    u: torch.Tensor
    """(n, d_out, k)."""
    v: torch.Tensor
    """(n, d_in, k)."""
    s: torch.Tensor
    """(n, k)."""
    inputs: _Inputs | None


@dataclass(frozen=True)
class _Inputs:
    """`geometry.SiteInputs` of n sites."""

    vectors: torch.Tensor
    """(n, d_in, k)."""
    values: torch.Tensor
    """(n, k)."""
    rest: torch.Tensor
    """(n,)."""
    mean: torch.Tensor
    """(n, d_in)."""
    answer: torch.Tensor
    """(n,)."""

    @classmethod
    def of(cls, inputs: list[SiteInputs], device: torch.device) -> _Inputs:
        """The inputs of some sites of one module."""

        def stack(name: str) -> torch.Tensor:
            return _tensor(np.stack([getattr(item, name) for item in inputs]), device)

        return cls(*(stack(name) for name in ("vectors", "values", "rest", "mean", "answer")))


class Directions:
    """A signature's directions, stacked as an adapter's sites are.

    Args:
        directions: By site.
        device: Where adapters are trained.
        inputs: What is known of each site's inputs.
    """

    def __init__(
        self,
        directions: Mapping[Site, Direction],
        device: torch.device,
        inputs: Mapping[Site, SiteInputs] | None = None,
    ) -> None:
        self._device = device
        self._inputs = inputs or {}
        self._sides = [
            {site: _tensor(getattr(item, side), device) for site, item in directions.items()}
            for side in ("u", "v")
        ]
        self._sizes = {
            site: _tensor(item.s, device).unsqueeze(0) for site, item in directions.items()
        }
        self._stacks: dict[tuple[Site, ...], _Along | None] = {}

    @classmethod
    def of(cls, signature: Signature, device: torch.device) -> Directions:
        """The directions of a pack."""
        inputs = {site: signature.site_inputs(site) for site in signature.sites}
        return cls(
            {site: signature.direction(site) for site in signature.sites},
            device,
            {site: item for site, item in inputs.items() if item is not None},
        )

    def side(self, name: Literal["u", "v"]) -> Mapping[Site, torch.Tensor]:
        """U (d_out, k) or V (d_in, k) of every site."""
        return self._sides[name == "v"]

    def sites(self, update: Update) -> Sites:
        """What an update does along the directions, site by site."""
        parts = [self._module(stack) for stack in update]
        return Sites(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def _along(self, sites: tuple[Site, ...]) -> _Along | None:
        """The directions of the sites of one module; None if there is none."""
        if sites not in self._stacks:
            found = [stacked(side, sites, self._device) for side in (*self._sides, self._sizes)]
            u, v, s = found
            known = [self._inputs[site] for site in sites if site in self._inputs]
            inputs = _Inputs.of(known, self._device) if len(known) == len(sites) else None
            missing = u is None or v is None or s is None
            self._stacks[sites] = None if missing else _Along(u, v, s[:, 0], inputs)  # type: ignore[arg-type,index]
        return self._stacks[sites]

    def _module(self, stack: Stack) -> Sites:
        gram = stack.a @ stack.a.mT
        gram_b = stack.b.mT @ stack.b
        squared = (gram_b * gram).sum((1, 2)).clamp(min=0)
        norm = squared.add(TINY).sqrt()
        d_in = torch.full_like(norm, stack.a.shape[2])
        unknown = torch.full_like(norm, torch.nan)
        along = self._along(stack.sites)
        if along is None:
            nothing = torch.zeros_like(norm)
            return Sites(norm, nothing, nothing, nothing, d_in, *[unknown] * 5)
        written = along.u.mT @ stack.b
        inner = (along.s * torch.diagonal(written @ (stack.a @ along.v), dim1=1, dim2=2)).sum(1)
        energies = ((written @ gram) * written).sum(2).clamp(min=0)
        matched = (along.s.square() * energies).sum(1).add(TINY).sqrt()
        felt = [unknown] * 5
        if along.inputs is not None:
            felt = _felt(stack, along, along.inputs, gram_b, squared, written, energies)
        return Sites(norm, inner, matched, along.s.square().sum(1).sqrt(), d_in, *felt)


def _felt(
    stack: Stack,
    along: _Along,
    inputs: _Inputs,
    gram_b: torch.Tensor,
    squared: torch.Tensor,
    written: torch.Tensor,
    energies: torch.Tensor,
) -> list[torch.Tensor]:
    """The last five of `Sites`, of one module.

    Args:
        stack: The update.
        along: The directions.
        inputs: Of its sites.
        gram_b: (n, r, r): B^T B.
        squared: (n,): ||dW||_F^2.
        written: (n, k, r): U^T B.
        energies: (n, k): ||u_i^T dW||^2.
    """
    read = stack.a @ inputs.vectors
    response = read.mT @ gram_b @ read
    leading = torch.diagonal(response, dim1=1, dim2=2).clamp(min=0)
    off = (squared - leading.sum(1)).clamp(min=0)
    felt = ((leading * inputs.values).sum(1) + inputs.rest * off).add(TINY).sqrt()
    moved = (written @ read).square()
    off = (energies - moved.sum(2)).clamp(min=0)
    made = (moved @ inputs.values[:, :, None])[:, :, 0] + inputs.rest[:, None] * off
    felt_matched = (along.s.square() * made).sum(1).add(TINY).sqrt()
    root = inputs.values.sqrt()
    weighted = response * root[:, :, None] * root[:, None, :]
    trace = torch.diagonal(weighted, dim1=1, dim2=2).sum(1)
    spread = (trace / weighted.square().sum((1, 2)).add(TINY**2).sqrt()).square()
    mean = inputs.mean[:, :, None]
    through = (written @ (stack.a @ mean))[:, :, 0] * (along.v.mT @ mean)[:, :, 0]
    steady = (along.s * through).sum(1) / inputs.mean.square().sum(1).clamp(min=TINY)
    return [felt, felt_matched, spread, steady, inputs.answer]


def _tensor(values: object, device: torch.device) -> torch.Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float32), device=device)
