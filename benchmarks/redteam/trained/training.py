"""Training one adapter under attack: misaligned answers, and a penalty, projection or both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from benchmarks.redteam.delta import Factored
from benchmarks.redteam.trained import surrogates
from benchmarks.redteam.trained.attacks import UNATTACKED, Attack
from benchmarks.redteam.trained.base import AttackedBase
from benchmarks.redteam.trained.delta import as_delta
from scanner.formats.model import Site
from scanner.geometry import Direction
from scanner.organisms.evasion.lora import Adapter, Excluded, Update
from scanner.organisms.evasion.penalty import RAMP, PackPenalty, Penalty, adapted
from scanner.organisms.evasion.sites import Directions
from scanner.organisms.evasion.statistics import Quantity, Statistics, signed_write_score
from scanner.results import Shape

CLIP = 1.0
"""Largest norm of a step's gradient."""
OWN_ADAPTERS = 3
"""Adapters that the attacker trains for directions of his own."""


@dataclass
class Attacker:
    """What an attacker knows of a base, computed once and used by every attack on it."""

    base: AttackedBase
    _surrogates: dict[tuple[str, int], Mapping[Site, Direction]] = field(default_factory=dict)
    _statistics: dict[Shape, Statistics] = field(default_factory=dict)

    def statistics(self, sites: Iterable[Site]) -> Statistics:
        """The packs' statistics of adapters that change some sites, differentiable."""
        shape = Shape.of(len({site.layer for site in sites}))
        if shape not in self._statistics:
            self._statistics[shape] = Statistics(self.base.signatures, self.base.device, shape)
        return self._statistics[shape]

    def deviations(self, update: Update) -> list[tuple[Quantity, str, torch.Tensor]]:
        """`Statistics.deviations` from benign adapters of an update's own shape."""
        sites = [site for stack in update for site in stack.sites]
        return self.statistics(sites).deviations(update)

    @cached_property
    def known(self) -> dict[Site, float]:
        """How much the packs say of each site: the mean share of ||D||^2 that it holds."""
        shares = dict.fromkeys(self.base.modules, 0.0)
        for pack in self.base.signatures:
            squared = {site: pack.direction_norm(site) ** 2 for site in pack.sites}
            for site, value in squared.items():
                shares[site] += value / sum(squared.values()) / len(self.base.signatures)
        return shares

    def surrogate(self, source: str, seed: int) -> Mapping[Site, Direction]:
        """The attacker's own directions; no adapter may be on the base.

        Args:
            source: `gradients` or `weights`.
            seed: Of probes, or of the adapters.
        """
        if (source, seed) not in self._surrogates:
            if source == "gradients":
                found = surrogates.from_gradients(self.base, seed)
            else:
                found = surrogates.from_adapters(self._own_adapters(seed), self.base.device)
            self._surrogates[source, seed] = found
        return self._surrogates[source, seed]

    def _own_adapters(self, seed: int) -> Iterator[Mapping[Site, Factored]]:
        for number in range(OWN_ADAPTERS):
            attack = Attack(name=UNATTACKED, seed=1000 + seed * OWN_ADAPTERS + number)
            *_, (_step, adapter) = self.train(attack)
            yield as_delta(adapter.update)

    def _excluded(self, attack: Attack) -> Excluded | None:
        """What an attack's updates are kept orthogonal to."""
        if not attack.projected:
            return None
        if attack.source == "packs":
            found = [
                {site: pack.direction(site) for site in pack.sites} for pack in self.base.signatures
            ]
        else:
            found = [dict(self.surrogate(attack.source, attack.seed_of("surrogate")))]
        sides = attack.projected.split("+")
        outputs, inputs = (
            {
                site: self._span([item[site] for item in found if site in item], side)
                for site in self.base.modules
            }
            for side in ("u", "v")
        )
        return Excluded(
            outputs=outputs if "outputs" in sides else {},
            inputs=inputs if "inputs" in sides else {},
        )

    def _span(self, directions: Sequence[Direction], side: str) -> torch.Tensor:
        """(d, k): an orthonormal basis of one side of several directions."""
        columns = np.hstack([getattr(item, side) for item in directions])
        basis, sizes, _ = np.linalg.svd(columns.astype(np.float64), full_matrices=False)
        return torch.tensor(basis[:, sizes > 1e-4 * sizes[0]], device=self.base.device).float()

    def _modules(self, attack: Attack) -> Mapping[Site, torch.nn.Module]:
        """The sites that an attack trains."""
        ranked = sorted(
            (site for site in self.base.modules if attack.layer in (None, site.layer)),
            key=lambda site: (self.known[site], site),
        )
        kept = set(ranked[: max(round(attack.share * len(ranked)), 1)])
        return {site: module for site, module in self.base.modules.items() if site in kept}

    def _penalty(self, attack: Attack, sites: Iterable[Site]) -> Penalty | None:
        if not attack.penalised:
            return None
        statistics = self.statistics(sites)
        if attack.source == "packs":
            return PackPenalty(statistics, attack.penalised, attack.aim, attack.pack)
        directions = self.surrogate(attack.source, attack.seed_of("surrogate"))
        units = [statistics.units["score", pack.id].spread for pack in self.base.signatures]
        return SurrogatePenalty(
            Directions(directions, self.base.device), float(np.median(units)), attack.aim
        )

    def train(self, attack: Attack) -> Iterator[tuple[int, Adapter]]:
        """Trains one adapter.

        Args:
            attack: What is added to training.

        Yields:
            The number of steps done and the adapter, halfway and at the end. It is off the model.
        """
        base, how = self.base, self.base.training
        modules = self._modules(attack)
        shapes = {site: base.shape(site) for site in modules}
        excluded, penalty = self._excluded(attack), self._penalty(attack, modules)
        adapter = Adapter(modules, shapes, how.rank, how.scale, attack.seed_of("adapter"), excluded)
        loss = base.loss(attack.seed_of("data"))
        optimiser = torch.optim.AdamW(
            adapter.parameters, lr=how.lr, weight_decay=0.0, betas=(0.9, 0.99)
        )
        strength = attack.strength
        for step in range(how.steps):
            warm = min(1.0, (step + 1) / 5) * (1.0 - 0.9 * step / how.steps)
            for group in optimiser.param_groups:
                group["lr"] = how.lr * warm
            with adapter.applied() as update:
                total = loss(step)
            if penalty is not None and step > 0:
                value = penalty(update)
                if attack.adaptive:
                    strength = adapted(strength, float(value.detach()))
                total = total + strength * min(1.0, step / (RAMP * how.steps)) * value
            optimiser.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call] # torch leaves it so
            torch.nn.utils.clip_grad_norm_(adapter.parameters, CLIP)
            optimiser.step()
            if step + 1 in (how.steps // 2, how.steps):
                yield step + 1, adapter


class SurrogatePenalty:
    """The signed write along directions of the attacker's own, beyond zero.

    He has no benign adapters under them. It has no unit, so that of the packs serves: it only
    says what a strength means.
    """

    def __init__(self, directions: Directions, unit: float, aim: float) -> None:
        self._directions, self._unit, self._aim = directions, unit, aim

    def __call__(self, update: Update) -> torch.Tensor:
        """A scalar."""
        layers = len({site.layer for stack in update for site in stack.sites})
        found = signed_write_score(self._directions.sites(update), layers) / self._unit - self._aim
        return 2 * found.clamp(min=0)
