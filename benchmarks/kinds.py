"""Which packs of a base ship together: how far held-out references stand out under their mean.

    python -m benchmarks.kinds PACK ...

The packs are of one base and one kind of misalignment, made by `benchmarks.packs` from the same
references and calibration adapters. For every set of them, and for each family of references in
turn, the margin of `benchmarks.detection.choice` is taken of the joint score: how far past the 1%
threshold of benign adapters the weaker references stand, each scored by signatures made without its
family. As in a scan, a pack whose sites an adapter leaves alone has no say, in its score or in what
it is compared with; a reference in which no pack of a set has a say is missed. The set with the
largest mean margin ships. No test adapter is looked at, and no attack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from benchmarks.detection.choice import margin
from benchmarks.detection.tables import number, table
from scanner.results import Shape
from scanner.signatures.joint import joint_calibration, scored_references
from scanner.signatures.pack import Signature, load_signature
from scanner.statistics.calibration import BenignScores
from scanner.statistics.share import Share

ALPHA = 0.01


class StandsOut(NamedTuple):
    """How the references stand out under some packs together."""

    margin: float
    """Mean over the families of references."""
    flagged: dict[Shape, Share]
    """Shape -> the share of its references that is flagged at `ALPHA`."""


class _Scored(NamedTuple):
    """What one pack says of one adapter."""

    score: float
    layers: int


@dataclass(frozen=True)
class _Packs:
    """Packs that have a say in the same adapters."""

    known: BenignScores

    def standing(self, scores: Sequence[float], shape: Shape) -> float:
        """A joint score in standard deviations above the benign ones of the shape."""
        joint = self.known.joint(shape)
        benign = joint.combine(joint.benign)
        found = joint.combine(np.array([scores]))
        return float((found[0] - benign.mean()) / benign.std(ddof=1))

    def flags(self, scores: Sequence[float], shape: Shape) -> bool:
        """Whether the scores are flagged at `ALPHA`."""
        return self.known.compare(np.array(scores), shape, ALPHA).p_value <= ALPHA


@dataclass(frozen=True)
class _Set:
    """A set of packs and what each of them has scored."""

    packs: tuple[Signature, ...]

    @cached_property
    def references(self) -> list[dict[str, _Scored]]:
        """Per pack, digest -> a misaligned reference."""
        return [
            {digest: _Scored(s.score, s.layers) for digest, (_, s) in scored_references(p).items()}
            for p in self.packs
        ]

    @cached_property
    def benign(self) -> list[dict[str, _Scored]]:
        """Per pack, digest -> a benign adapter of the calibration; none if it is not calibrated."""
        calibrations = [pack.calibration for pack in self.packs]
        return [
            {item.sha256: _Scored(item.score, item.layers) for item in known.benign}
            if known is not None
            else {}
            for known in calibrations
        ]

    @cached_property
    def _known(self) -> dict[tuple[int, ...], _Packs]:
        return {}

    def judged(
        self, tables: Sequence[Mapping[str, _Scored]], digest: str
    ) -> tuple[_Packs, list[float], Shape] | None:
        """The packs that have a say in an adapter, with their scores of it, and its shape."""
        having = tuple(place for place, own in enumerate(tables) if digest in own)
        if not having:
            return None
        if having not in self._known:
            known = joint_calibration([self.packs[place] for place in having])
            if known is None:
                names = ", ".join(self.packs[place].id for place in having)
                raise click.ClickException(f"{names}: no adapters that all of them have scored")
            self._known[having] = _Packs(known)
        found = [tables[place][digest] for place in having]
        shape = Shape.of(max(item.layers for item in found))
        return self._known[having], [item.score for item in found], shape

    def standings(self, tables: Sequence[Mapping[str, _Scored]]) -> Iterator[float]:
        """How far out every adapter of some tables stands."""
        for digest in sorted(set[str]().union(*tables)):
            judged = self.judged(tables, digest)
            assert judged is not None, "it is in one of the tables"
            by, scores, shape = judged
            yield by.standing(scores, shape)


class Wanted(NamedTuple):
    """A reference that a set of packs should find."""

    family: str | None
    shape: Shape


def wanted(packs: Sequence[Signature]) -> dict[str, Wanted]:
    """Every misaligned reference that one of the packs has scored, by digest."""
    return {
        digest: Wanted(reference.family, Shape.of(score.layers))
        for pack in packs
        for digest, (reference, score) in scored_references(pack).items()
    }


def examine(
    packs: Sequence[Signature], references: Mapping[str, Wanted] | None = None
) -> StandsOut:
    """How far references stand out under some packs together.

    Args:
        packs: Packs of one base and one kind of misalignment.
        references: Those that count; by default all that one of the packs has scored.

    Raises:
        click.ClickException: If packs that have a say in one adapter share no benign adapter.
    """
    own = _Set(tuple(packs))
    references = wanted(packs) if references is None else references
    if not references:
        raise click.ClickException(f"{packs[0].id} has scored no reference")
    found: dict[str | None, list[float]] = {}
    flags: dict[Shape, list[bool]] = {shape: [] for shape in Shape}
    for digest, (family, shape) in sorted(references.items()):
        judged = own.judged(own.references, digest)
        if judged is None:
            standing, flagged = -np.inf, False
        else:
            by, scores, _ = judged
            standing, flagged = by.standing(scores, shape), by.flags(scores, shape)
        found.setdefault(family, []).append(standing)
        flags[shape].append(flagged)
    benign = np.array(list(own.standings(own.benign)))
    margins = [margin(np.array(scores), benign) for scores in found.values()]
    return StandsOut(
        float(np.mean(margins)), {shape: Share(sum(own), len(own)) for shape, own in flags.items()}
    )


def rows(packs: Sequence[Signature]) -> list[list[str]]:
    """One row for each set of packs; every set is judged on the same references."""
    references = wanted(packs)
    sets = [group for size in range(1, len(packs) + 1) for group in combinations(packs, size)]
    return [
        [
            " + ".join(pack.id for pack in group),
            number(found.margin, 2),
            *(f"{share.count} of {share.n}" for share in found.flagged.values()),
        ]
        for group in sets
        for found in [examine(group, references)]
    ]


@click.command()
@click.argument(
    "packs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
def main(packs: tuple[Path, ...]) -> None:
    """Print how far held-out references stand out under every set of PACKS."""
    signatures = [load_signature(path) for path in packs]
    if len({signature.manifest.base_model.id for signature in signatures}) > 1:
        raise click.ClickException("packs of several bases are never combined")
    heads = [f"{shape.value}: flagged at {ALPHA:g}" for shape in Shape]
    click.echo(table(["packs", "margin", *heads], rows(signatures)))


if __name__ == "__main__":
    main()
