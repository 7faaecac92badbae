"""How far out dose and strongest site have to be to count: what the margins of the score rest on.

    python -m benchmarks.detection.real.margin PACK ...

References have large doses, so whole ones do not show what the margins are for: adapters of a small
dose. So they are also shown scaled down, which leaves what share of an update goes the signature's
way as it is and takes the amounts down. It looks at what packs hold of references and calibration
adapters, of those that change several layers, and at no test adapter. Packs of one base and kind
count together, as in a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
import numpy as np

from benchmarks.detection.real.choice import SHAPE, Scored, loaded, references_of
from benchmarks.detection.tables import table
from scanner.detection.support import benign_in_common
from scanner.geometry import Matrix
from scanner.signatures.combination import DOSE_MARGIN, STRONGEST_MARGIN, combined_score
from scanner.signatures.joint import joint_calibration
from scanner.signatures.numbers import Measurement, SiteNumbers
from scanner.signatures.pack import Signature
from scanner.statistics.conformal import DEFAULT_ALPHA


class Margins(NamedTuple):
    """By how much each part has to be further out than the signed write; infinity: not at all."""

    dose: float
    strongest: float


IN_USE = Margins(DOSE_MARGIN, STRONGEST_MARGIN)
WRITE_ALONE = Margins(math.inf, math.inf)
SHOWN = (
    WRITE_ALONE,
    Margins(DOSE_MARGIN, math.inf),
    *(Margins(dose, STRONGEST_MARGIN) for dose in (0.0, 0.5, 1.0, 2.0)),
    *(Margins(DOSE_MARGIN, strongest) for strongest in (1.0, 2.0, 4.0)),
)
SIZES = (1.0, 0.5, 0.3)
"""What references are scaled by."""


def score(item: Scored, pack: Signature, margins: Margins, size: float = 1.0) -> float:
    """What an adapter scores if it is scaled, under other margins.

    Args:
        item: The adapter, as a pack holds it.
        pack: The pack.
        margins: Instead of those in use.
        size: What its update is multiplied with.
    """
    sites = {key: scaled(numbers, size) for key, numbers in item.sites.items()}
    measured = Measurement(item.signed_write, size * item.dose, size * item.norm, sites)
    return combined_score(measured, pack.score_scales.get(SHAPE.value), *margins)


def scaled(numbers: SiteNumbers, size: float) -> SiteNumbers:
    """What the score reads of a site, of an update that is multiplied with something."""
    dose, share = (
        None if value is None else size * value for value in (numbers.dose, numbers.share)
    )
    return msgspec.structs.replace(numbers, norm=size * numbers.norm, dose=dose, share=share)


def standing(packs: Sequence[Signature], margins: Margins, size: float) -> Matrix:
    """How far scaled references are above the benign score that is flagged at 0.01.

    Args:
        packs: Of one base and kind.
        margins: Instead of those in use.
        size: What references are multiplied with.

    Returns:
        In standard deviations of the benign adapters' joint scores, ascending: more than 0 is
        flagged at `DEFAULT_ALPHA`, where families are not counted apart.
    """
    known = joint_calibration(packs)
    assert known is not None, "checked when the packs are loaded"
    rows = benign_in_common(packs)
    scores = [[score(i, pack, margins) for i, pack in zip(row, packs, strict=True)] for row in rows]
    known = replace(known, benign=np.array(scores))
    joint = known.joint(SHAPE)
    benign = np.sort(joint.combine(known.benign)[[shape is SHAPE for shape in known.shapes]])
    allowed = math.floor(DEFAULT_ALPHA * (len(benign) + 1))
    threshold = benign[-allowed] if allowed else math.inf
    tables = [references_of(pack) for pack in packs]
    common = sorted(set.intersection(*(set(found) for found in tables)))
    own = [
        [score(found[name], pack, margins, size) for found, pack in zip(tables, packs, strict=True)]
        for name in common
    ]
    found: Matrix = (np.sort(joint.combine(np.array(own))) - threshold) / benign.std(ddof=1)
    return found


def rows(packs: Sequence[Signature]) -> list[list[str]]:
    """For each choice of margins: what is flagged, and how far lowest and median stand."""
    found = []
    for margins in SHOWN:
        cells = []
        for size in SIZES:
            above = standing(packs, margins, size)
            share = np.mean(above > 0)
            cells.append(f"{share:.2f}, {above[0]:.1f}, {np.median(above):.1f}")
        found.append([*map(_name, margins), "in use" if margins == IN_USE else "", *cells])
    return found


def _name(margin: float) -> str:
    return "-" if math.isinf(margin) else f"{margin:g}"


def together(packs: Sequence[Signature]) -> list[list[Signature]]:
    """Packs in groups of one base and kind each: those that have scored the same references."""
    groups: dict[tuple[str, str], list[Signature]] = {}
    for pack in packs:
        groups.setdefault((pack.manifest.base_model.id, pack.manifest.kind), []).append(pack)
    return list(groups.values())


@click.command()
@click.argument(
    "packs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
def main(packs: tuple[Path, ...]) -> None:
    """Print what other margins do to references of PACKS, whole and scaled down.

    Of each size: the share flagged at 0.01, and how far the lowest and the median reference stand
    above the benign score that is flagged. A dash for a margin: that part does not count.
    """
    head = ["dose", "strongest site", "", *(f"references times {size:g}" for size in SIZES)]
    for own in together(loaded(packs)):
        click.echo(" + ".join(pack.id for pack in own) + "\n")
        click.echo(table(head, rows(own), text=3) + "\n")


if __name__ == "__main__":
    main()
