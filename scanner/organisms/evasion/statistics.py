"""What the scanner measures, once more in torch, so that an attacker can train against it.

A copy of `scanner.geometry.site_statistics`, `scanner.signatures.score`,
`scanner.signatures.combination` and the statistics of
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

from scanner.detection import spread, support
from scanner.formats.model import Site
from scanner.geometry import Matrix
from scanner.organisms.evasion.lora import Update
from scanner.organisms.evasion.sites import TINY, Directions, Sites
from scanner.results import Shape
from scanner.signatures.combination import AMOUNTS, DOSE_MARGIN, STRONGEST_MARGIN
from scanner.signatures.manifest import BenignScore
from scanner.signatures.numbers import Amount, ScoreScale, SiteScale
from scanner.signatures.pack import Signature

Quantity = Literal["score", "dose", "write", "support"]
"""What can be penalised: the scores; the doses; what is written into the directions for its size,
whatever its sign; and everything that `scanner.detection.support` looks at."""
_NORMS = "norm"
_FELT = "felt"


def score(
    sites: Sites, order: Sequence[Site], layers: int, scales: Mapping[str, ScoreScale]
) -> torch.Tensor:
    """`signatures.score.adapter_score` of an update of so many layers.

    Args:
        sites: What it does along the signature.
        order: Which sites those are.
        layers: How many layers it changes.
        scales: Shape -> where benign adapters lie.
    """
    signed_write = signed_write_score(sites, layers)
    scale = scales.get(Shape.of(layers).value)
    if scale is None:
        return signed_write
    middle, spread = scale.signed_write
    norm = sites.norm.square().sum().sqrt()
    size = scale.norm / norm.clamp(min=scale.norm)
    together = (
        (signed_write - middle) / spread
        + (size * sites.inner.sum() - scale.dose[0]) / scale.dose[1]
    ) / 2
    further = [signed_write, middle + spread * (together / scale.both - DOSE_MARGIN)]
    for amount, (mean, deviation) in scale.strongest.items():
        found = strongest(sites, order, scale, amount)
        if found is not None:
            above = (size * found - mean) / deviation
            further.append(middle + spread * (above - STRONGEST_MARGIN))
    return torch.stack(further).max()


def strongest(
    sites: Sites, order: Sequence[Site], scale: ScoreScale, amount: Amount
) -> torch.Tensor | None:
    """`signatures.combination.strongest` of one adapter."""
    done = sites.inner if amount == "dose" else sites.felt_writes * sites.felt / sites.answer
    units = [AMOUNTS[amount](scale.sites.get(site.key, SiteScale(None, None))) for site in order]
    known = [place for place, unit in enumerate(units) if unit is not None]
    if not known:
        return None
    unit = torch.tensor([units[place] for place in known], device=done.device, dtype=done.dtype)
    return (done[known] / unit).max()


def signed_write_score(sites: Sites, layers: int) -> torch.Tensor:
    """`signatures.score.signed_write_score` of an update of so many layers."""
    found = sites.signed_writes
    if Shape.of(layers) is Shape.ONE_LAYER:
        return found[sites.direction > 0].max()
    total = combined(sites.direction.square(), found)
    if not sites.knows_inputs:
        return total
    return torch.maximum(
        total, combined(sites.felt / sites.answer * sites.direction, sites.felt_writes)
    )


def combined(weights: torch.Tensor, writes: torch.Tensor) -> torch.Tensor:
    """Liptak-Stouffer: sum_s w_s c_s / sqrt(sum_s w_s^2)."""
    weights = weights / weights.max().clamp(min=TINY)
    return weights @ writes / weights.square().sum().sqrt()


def written_for_its_size(sites: Sites, write: torch.Tensor) -> torch.Tensor:
    """`spread.write_statistics` of one adapter."""
    norm = sites.norm * (sites.direction > 0)
    size = norm.square().sum().sqrt() * sites.direction.square().sum().sqrt()
    return (norm * sites.direction * write).sum() / size


def middle_of(values: torch.Tensor) -> torch.Tensor:
    """The median as numpy has it: of an even number, the mean of the middle two."""
    return torch.quantile(values, 0.5)


class Value(NamedTuple):
    """One statistic of an update."""

    what: str
    """What the scanner calls it."""
    pack: str
    """Id of the signature it is about; empty if it is about none."""
    value: torch.Tensor


@dataclass(frozen=True)
class Unit:
    """Where benign adapters lie on one statistic."""

    median: float
    spread: float
    """From the median to the 95% quantile."""
    low: bool = False
    """Whether an adapter is unusual where it is low; median and spread are then of the negative."""

    @classmethod
    def of(cls, values: Matrix, floor: float = 0.0, low: bool = False) -> Unit:
        """The unit of a statistic.

        Args:
            values: (n,), of benign adapters.
            floor: Differences below this are none.
            low: Whether low values are the unusual ones.
        """
        middle, tail = np.quantile(-values if low else values, [0.5, 0.95])
        return cls(float(middle), max(float(tail - middle), floor, 1e-9), low)

    def deviation(self, value: torch.Tensor) -> torch.Tensor:
        """How far a value is out: 0 at the benign median, 1 at the 95% quantile."""
        return ((-value if self.low else value) - self.median) / self.spread


class Statistics:
    """Everything that the scanner compares of an adapter with benign ones, under some packs.

    What support looks at is asked of `scanner.detection.support` itself, by name: a statistic of
    it that has no copy here is one that the attacker does not penalise.

    Args:
        signatures: The packs.
        device: Where adapters are trained.
        shape: Of the adapters that are trained: they are compared with benign ones of the same.
    """

    def __init__(
        self,
        signatures: Sequence[Signature],
        device: torch.device,
        shape: Shape = Shape.SEVERAL_LAYERS,
    ) -> None:
        self.signatures = tuple(signatures)
        self.directions = {item.id: Directions.of(item, device) for item in signatures}
        self._device = device
        self._scales = {item.id: item.score_scales for item in signatures}
        benign = support.alike(support.benign_in_common(signatures), shape)
        self.support = [
            (item.what, Unit.of(item.values[1:], item.floor, item.low))
            for item in of_support(self.signatures, benign)
        ]
        """Names of what support compares, and where benign adapters lie on it."""
        self.units: dict[tuple[Quantity, str], Unit] = {}
        """Of score, dose and write, by pack."""
        for index, signature in enumerate(self.signatures):
            own = [item[index] for item in benign]
            self.units["score", signature.id] = Unit.of(np.array([item.score for item in own]))
            self.units["dose", signature.id] = Unit.of(np.array([item.dose for item in own]))
            if all(item.sites for item in own):
                table = spread.SiteTable.of([item.sites for item in own])
                known = [signature.direction_norm(Site.from_key(site)) for site in table.sites]
                *_, written = spread.write_statistics(table, np.array(known), signature.id)
                self.units["write", signature.id] = Unit.of(written.values)
        self._logs = {name: _logs(benign, name) for name in (_NORMS, _FELT)}
        self._usual: dict[tuple[str, tuple[Site, ...]], torch.Tensor] = {}

    def _typical(self, name: str, sites: tuple[Site, ...]) -> torch.Tensor:
        """(m,): the benign median of a logarithm of `_logs` at some sites."""
        if (name, sites) not in self._usual:
            logs = self._logs[name]
            known = {site: float(np.median(values)) for site, values in logs.items()}
            pooled = [value for values in logs.values() for value in values]
            usual = float(np.median(pooled)) if pooled else 0.0
            found = [known.get(site.key, usual) for site in sites]
            self._usual[name, sites] = torch.tensor(found, device=self._device, dtype=torch.float32)
        return self._usual[name, sites]

    def values(self, update: Update) -> Iterator[Value]:
        """Every statistic of an update, as the scanner has it."""
        every = tuple(site for stack in update for site in stack.sites)
        widest: tuple[Sites, tuple[Site, ...]] | None = None
        for name, directions in self.directions.items():
            sites, order = covered(directions.sites(update), every)
            if not order:  # a pack that sees nothing of it has no say
                continue
            layers = len({site.layer for site in order})
            yield Value("score", name, score(sites, order, layers, self._scales[name]))
            yield from _of_pack(sites, name)
            if widest is None or (sites.knows_inputs, len(order)) > (
                widest[0].knows_inputs,
                len(widest[1]),
            ):
                widest = sites, order
        if widest is not None:
            yield from self._of_sizes(*widest)
            if widest[0].knows_inputs:
                yield from self._of_inputs(*widest)

    def _of_sizes(self, sites: Sites, order: tuple[Site, ...]) -> Iterator[Value]:
        """The norm, and `spread.size_statistics`."""
        yield Value("the norm of the update", "", sites.norm.square().sum().sqrt().log())
        sizes = sites.norm.log() - self._typical(_NORMS, order)
        middle = middle_of(sizes)
        what = "the size of its {} site beside that of its {} one (logarithm)"
        yield Value(what.format("largest", "typical"), "", sizes.max() - middle)
        yield Value(what.format("typical", "faintest"), "", middle - sizes.min())

    def _of_inputs(self, sites: Sites, order: tuple[Site, ...]) -> Iterator[Value]:
        """`spread.input_statistics` of one adapter."""
        felt = (sites.felt / sites.norm).log() - self._typical(_FELT, order)
        yield Value("how much of its typical site is felt (logarithm)", "", middle_of(felt))
        yield Value("how much of its least felt site is felt (logarithm)", "", felt.min())
        squared = (sites.felt / sites.answer).square()
        total = squared.sum()
        what = "the share that one {} has of what is felt"
        nothing = torch.zeros_like(total)
        several = len(order) > 1
        yield Value(what.format("site"), "", squared.max() / total if several else nothing)
        numbers = sorted({site.layer or 0 for site in order})
        place = [numbers.index(site.layer or 0) for site in order]
        layers = squared.new_zeros(len(numbers)).index_add(
            0, torch.tensor(place, device=squared.device), squared
        )
        several = len(numbers) > 1
        yield Value(what.format("layer"), "", layers.max() / total if several else nothing)
        moved = middle_of(sites.spread.clamp(min=1).log())
        yield Value("the number of directions that its typical site moves (logarithm)", "", moved)

    def deviations(self, update: Update) -> list[tuple[Quantity, str, torch.Tensor]]:
        """Every statistic as a deviation from benign adapters.

        Returns:
            Quantity, id of the pack it is about if it is about one, and deviation.
        """
        values = list(self.values(update))
        named = {item.what: item for item in values}
        found: list[tuple[Quantity, str, torch.Tensor]] = [
            ("support", named[what].pack, unit.deviation(named[what].value))
            for what, unit in self.support
            if what in named
        ]
        names: dict[str, Quantity] = {"score": "score"}
        for pack in self.directions:
            names |= {dose_of(pack): "dose", written_into(pack): "write"}
        for item in values:
            quantity = names.get(item.what)
            if quantity is not None and (quantity, item.pack) in self.units:
                unit = self.units[quantity, item.pack]
                found.append((quantity, item.pack, unit.deviation(item.value)))
        return found


def covered(sites: Sites, order: tuple[Site, ...]) -> tuple[Sites, tuple[Site, ...]]:
    """The sites at which a signature has a direction: a scan sees no more of an update.

    Args:
        sites: What an update does at every site it changes.
        order: Which sites those are.
    """
    known = (sites.direction > 0).tolist()
    kept = [place for place, there in enumerate(known) if there]
    return Sites(*(values[kept] for values in sites)), tuple(order[place] for place in kept)


def dose_of(pack: str) -> str:
    """What support calls the dose."""
    return f"the dose of {pack}"


def written_into(pack: str) -> str:
    """What support calls the unsigned write."""
    return f"what it writes into the directions of {pack}, for its size,"


def _of_pack(sites: Sites, pack: str) -> Iterator[Value]:
    """The dose in every way, `spread.write_statistics` and `spread.pack_statistics`."""
    dose = sites.inner.sum()
    yield Value(dose_of(pack), pack, dose)
    size = sites.norm.square().sum().sqrt()
    yield Value(f"the dose of {pack} per unit of update", pack, dose / size)
    signed = written_for_its_size(sites, sites.signed_writes)
    yield Value(f"what it writes along {pack}, for its size,", pack, signed)
    yield Value(written_into(pack), pack, written_for_its_size(sites, sites.writes))
    if sites.knows_inputs:
        felt = (sites.felt / sites.answer).square().sum().sqrt()
        yield Value(f"the dose of {pack} per unit of what is felt", pack, dose / felt)
        known = sites.direction > 0
        strongest = torch.where(known, sites.felt_writes, -1.0).max()
        yield Value(f"what its strongest site writes along {pack}", pack, strongest)
        steady = sites.steady.sum()
        yield Value(f"the dose of {pack} that it gives whatever is read", pack, steady)


def of_support(
    signatures: Sequence[Signature], benign: Sequence[tuple[BenignScore, ...]]
) -> list[spread.Statistic]:
    """What support compares, of the first benign adapter (twice) and all of them."""
    profiles = [
        [support.profile(item[index]) for item in (benign[0], *benign)]
        for index in range(len(signatures))
    ]
    return list(support.compared_statistics(signatures, profiles))


def _logs(benign: Sequence[tuple[BenignScore, ...]], name: str) -> dict[str, list[float]]:
    """Site -> logarithms of what benign adapters have there, under the widest pack.

    Args:
        benign: The adapters under every pack.
        name: `norm`, or `felt`: the felt size over the norm.
    """
    found: dict[str, list[float]] = {}
    for index in range(len(benign[0])):
        logs: dict[str, list[float]] = {}
        for item in benign:
            for site, numbers in item[index].sites.items():
                value = numbers.norm if name == _NORMS else (numbers.felt or 0.0) / numbers.norm
                logs.setdefault(site, []).append(float(np.log(max(value, 1e-30))))
        found = max(found, logs, key=len)
    return found
