"""What the scanner measures, once more in torch, so that an attacker can train against it.

A copy of `scanner.geometry.site_statistics`, `scanner.signatures.score` and the statistics of
`scanner.detection.support`; a test holds it against them. Every quantity is given as a deviation
from the benign adapters of the packs' calibration: 0 at their median, 1 at their 95% quantile.
Verdicts are never taken from here: what comes out of training is saved and scanned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from benchmarks.redteam.trained.lora import Stack, Update, stacked
from scanner.detection import spread, support
from scanner.formats.model import Site
from scanner.geometry import Direction, Matrix
from scanner.geometry.site_statistics import SIGN_DEVIATIONS
from scanner.results import Shape
from scanner.signatures.manifest import BenignScore
from scanner.signatures.pack import Signature

Quantity = Literal["score", "dose", "strength", "signed write", "write", "norm", "spread"]
"""What can be penalised: the score; the dose, and per unit of update (`strength`); what is written
along the directions for its size, with its sign and without; the norm; the largest and the faintest
site."""
SUPPORT: tuple[Quantity, ...] = ("dose", "strength", "signed write", "write", "norm", "spread")
"""What `scanner.detection.support` looks at."""
LARGEST = "the size of its largest site beside that of its typical one (logarithm)"
FAINTEST = "the size of its typical site beside that of its faintest one (logarithm)"
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


class Directions:
    """A signature's directions, stacked as an adapter's sites are.

    Args:
        directions: By site.
        device: Where adapters are trained.
    """

    def __init__(self, directions: Mapping[Site, Direction], device: torch.device) -> None:
        self._device = device
        self._sides = [
            {site: _tensor(getattr(item, side), device) for site, item in directions.items()}
            for side in ("u", "v")
        ]
        self._sizes = {
            site: _tensor(item.s, device).unsqueeze(0) for site, item in directions.items()
        }
        self._stacks: dict[tuple[Site, ...], tuple[torch.Tensor, ...] | None] = {}

    @classmethod
    def of(cls, signature: Signature, device: torch.device) -> Directions:
        """The directions of a pack."""
        return cls({site: signature.direction(site) for site in signature.sites}, device)

    def side(self, name: Literal["u", "v"]) -> Mapping[Site, torch.Tensor]:
        """U (d_out, k) or V (d_in, k) of every site."""
        return self._sides[name == "v"]

    def sites(self, update: Update) -> Sites:
        """What an update does along the directions, site by site."""
        parts = [self._module(stack) for stack in update]
        return Sites(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def _module(self, stack: Stack) -> Sites:
        if stack.sites not in self._stacks:
            found = [
                stacked(side, stack.sites, self._device) for side in (*self._sides, self._sizes)
            ]
            known = [item for item in found if item is not None]
            self._stacks[stack.sites] = tuple(known) if len(known) == len(found) else None
        gram = stack.a @ stack.a.mT
        norm = ((stack.b.mT @ stack.b) * gram).sum((1, 2)).clamp(min=0).add(TINY).sqrt()
        d_in = torch.full_like(norm, stack.a.shape[2])
        directions = self._stacks[stack.sites]
        if directions is None:
            nothing = torch.zeros_like(norm)
            return Sites(norm, nothing, nothing, nothing, d_in)
        u, v, sizes = directions
        s = sizes[:, 0]
        written = u.mT @ stack.b
        inner = (s * torch.diagonal(written @ (stack.a @ v), dim1=1, dim2=2)).sum(1)
        energies = ((written @ gram) * written).sum(2)
        matched = (s.square() * energies).sum(1).clamp(min=0).add(TINY).sqrt()
        return Sites(norm, inner, matched, s.square().sum(1).sqrt(), d_in)


def _tensor(values: object, device: torch.device) -> torch.Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float32), device=device)


def signed_writes(sites: Sites) -> torch.Tensor:
    """(m,): `geometry.signed_write`; 0 where there is no direction."""
    agreement = sites.inner / sites.matched * sites.d_in.sqrt()
    return (agreement / SIGN_DEVIATIONS).clamp(-1, 1) * writes(sites)


def writes(sites: Sites) -> torch.Tensor:
    """(m,): `geometry.write`; 0 where there is no direction."""
    known = sites.direction > 0
    return known * sites.matched / (sites.norm * sites.direction).clamp(min=TINY)


def score(sites: Sites, layers: int) -> torch.Tensor:
    """`signatures.score.adapter_score` of an update of so many layers."""
    found = signed_writes(sites)
    if Shape.of(layers) is Shape.ONE_LAYER:
        return found[sites.direction > 0].max()
    weights = sites.direction.square()
    weights = weights / weights.max()
    return weights @ found / weights.square().sum().sqrt()


def written_for_its_size(sites: Sites, write: torch.Tensor) -> torch.Tensor:
    """`spread.write_statistics` of one adapter."""
    norm = sites.norm * (sites.direction > 0)
    size = norm.square().sum().sqrt() * sites.direction.square().sum().sqrt()
    return (norm * sites.direction * write).sum() / size


def extreme_sizes(sites: Sites, typical: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`spread.size_statistics` of one adapter: its largest and its faintest site.

    Args:
        sites: The adapter.
        typical: (m,), logarithm of the norm that is usual at each.
    """
    sizes = sites.norm.log() - typical
    # The scanner's median is the mean of the middle two; torch's own is the lower of them.
    middle = torch.quantile(sizes, 0.5)
    return sizes.max() - middle, middle - sizes.min()


class Value(NamedTuple):
    """One statistic of an update."""

    quantity: Quantity
    pack: str
    """Id of the signature it is about; empty if it is about none."""
    what: str
    """What the scanner calls it; empty for the score."""
    value: torch.Tensor


@dataclass(frozen=True)
class Unit:
    """Where benign adapters lie on one statistic."""

    median: float
    spread: float
    """From the median to the 95% quantile."""

    @classmethod
    def of(cls, values: Matrix, floor: float = 0.0) -> Unit:
        """The unit of a statistic.

        Args:
            values: (n,), of benign adapters.
            floor: Differences below this are none.
        """
        middle, tail = np.quantile(values, [0.5, 0.95])
        return cls(float(middle), max(float(tail - middle), floor, 1e-9))


class Statistics:
    """Everything that the scanner compares of an adapter with benign ones, under some packs.

    What support looks at is asked of `scanner.detection.support` itself, by name: a statistic of
    it that has no copy here is one that the attacker does not penalise.

    Args:
        signatures: The packs.
        device: Where adapters are trained.
    """

    def __init__(self, signatures: Sequence[Signature], device: torch.device) -> None:
        self.signatures = tuple(signatures)
        self.directions = {item.id: Directions.of(item, device) for item in signatures}
        self._device = device
        benign = support.alike(support.benign_in_common(signatures), Shape.SEVERAL_LAYERS)
        self.units = {
            statistic.what: Unit.of(statistic.values[1:], statistic.floor)
            for statistic in of_support(self.signatures, benign)
        }
        self._scores = {
            signature.id: Unit.of(np.array([item[index].score for item in benign]))
            for index, signature in enumerate(self.signatures)
        }
        self._norms = _log_norms(benign)
        self._typical: dict[tuple[Site, ...], torch.Tensor] = {}

    def score_unit(self, pack: str) -> Unit:
        """Where benign adapters' scores lie under one pack."""
        return self._scores[pack]

    def typical(self, sites: tuple[Site, ...]) -> torch.Tensor:
        """(m,): logarithm of the median norm of benign adapters at some sites."""
        if sites not in self._typical:
            known = {site: float(np.median(values)) for site, values in self._norms.items()}
            pooled = [value for values in self._norms.values() for value in values]
            usual = float(np.median(pooled)) if pooled else 0.0
            found = [known.get(site.key, usual) for site in sites]
            self._typical[sites] = torch.tensor(found, device=self._device, dtype=torch.float32)
        return self._typical[sites]

    def values(self, update: Update) -> Iterator[Value]:
        """Every statistic of an update, as the scanner has it."""
        layers = len({site.layer for stack in update for site in stack.sites})
        order = tuple(site for stack in update for site in stack.sites)
        sites = None
        for name, directions in self.directions.items():
            sites = directions.sites(update)
            size = sites.norm.square().sum().sqrt()
            dose = sites.inner.sum()
            signed = written_for_its_size(sites, signed_writes(sites))
            unsigned = written_for_its_size(sites, writes(sites))
            into = f"what it writes into the directions of {name}, for its size,"
            yield Value("score", name, "", score(sites, layers))
            yield Value("dose", name, f"the dose of {name}", dose)
            yield Value("strength", name, f"the dose of {name} per unit of update", dose / size)
            yield Value("signed write", name, f"what it writes along {name}, for its size,", signed)
            yield Value("write", name, into, unsigned)
        if sites is not None:
            norm = sites.norm.square().sum().sqrt().log()
            yield Value("norm", "", "the norm of the update", norm)
            largest, faintest = extreme_sizes(sites, self.typical(order))
            yield Value("spread", "", LARGEST, largest)
            yield Value("spread", "", FAINTEST, faintest)

    def deviations(self, update: Update) -> list[tuple[Quantity, str, torch.Tensor]]:
        """Every statistic that verdicts rest on, as a deviation from benign adapters.

        Returns:
            Quantity, id of the pack it is about if it is about one, and deviation.
        """
        found = []
        for quantity, pack, what, value in self.values(update):
            unit = self._scores[pack] if quantity == "score" else self.units.get(what)
            if unit is not None:
                found.append((quantity, pack, (value - unit.median) / unit.spread))
        return found


def of_support(
    signatures: Sequence[Signature], benign: Sequence[tuple[BenignScore, ...]]
) -> list[spread.Statistic]:
    """What support compares, of the first benign adapter (twice) and all of them."""
    profiles = [
        [support.profile(item[index]) for item in (benign[0], *benign)]
        for index in range(len(signatures))
    ]
    return list(support._statistics(signatures, profiles))


def _log_norms(benign: Sequence[tuple[BenignScore, ...]]) -> dict[str, list[float]]:
    """Site -> logarithms of benign adapters' norms there, under the pack that knows most sites."""
    found: dict[str, list[float]] = {}
    for index in range(len(benign[0])):
        logs: dict[str, list[float]] = {}
        for item in benign:
            for site, numbers in item[index].sites.items():
                logs.setdefault(site, []).append(float(np.log(max(numbers.norm, 1e-30))))
        found = max(found, logs, key=len)
    return found
