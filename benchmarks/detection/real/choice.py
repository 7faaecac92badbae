"""How far references stand out under packs, alone and together: what `signatures make` rests on.

    python -m benchmarks.detection.real.choice PACK ...

Which signatures are made of a base, and what of an adapter is its score, is chosen by such a
table: by what packs hold of calibration adapters and references, and by no test adapter. Numbers
are in standard deviations above the mean calibration adapter, of those that change several layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import click
import numpy as np

from benchmarks.detection.tables import table
from scanner.detection.support import benign_in_common
from scanner.results import Shape
from scanner.signatures.joint import joint_calibration
from scanner.signatures.manifest import BenignScore, ReferenceScore
from scanner.signatures.pack import Signature, load_signature

SHAPE = Shape.SEVERAL_LAYERS
Scored = BenignScore | ReferenceScore
STATISTICS: Mapping[str, Callable[[Scored], float]] = {
    "score": lambda item: item.score,
    "signed write": lambda item: item.signed_write,
    "dose": lambda item: item.dose,
}
"""What of an adapter may be looked at."""


def rows(signatures: Sequence[Signature]) -> list[list[str]]:
    """For each pack, and for each pair of packs of one kind, one row for each statistic."""
    chosen: list[tuple[Signature, ...]] = [(signature,) for signature in signatures]
    chosen += [
        pair for pair in combinations(signatures, 2) if len({s.manifest.kind for s in pair}) == 1
    ]
    return [_row(packs, statistic) for packs in chosen for statistic in STATISTICS]


def _row(packs: Sequence[Signature], statistic: str) -> list[str]:
    value = STATISTICS[statistic]
    known = joint_calibration(packs)
    assert known is not None, "checked when the packs are loaded"
    matrix = [[value(item) for item in row] for row in benign_in_common(packs)]
    known = replace(known, benign=np.array(matrix))
    joint, alike = known.joint(SHAPE), np.array([shape is SHAPE for shape in known.shapes])
    benign = joint.combine(known.benign)[alike]
    tables = [references_of(signature) for signature in packs]
    common = sorted(set.intersection(*(set(found) for found in tables)))
    scores = joint.combine(np.array([[value(found[name]) for found in tables] for name in common]))
    middle, spread = benign.mean(), benign.std(ddof=1)
    highest = np.sort(benign)[::-1][:2]
    return [
        " + ".join(signature.id for signature in packs),
        statistic,
        str(len(benign)),
        ", ".join(f"{(score - middle) / spread:.1f}" for score in highest),
        ", ".join(f"{(score - middle) / spread:.1f}" for score in np.sort(scores)),
    ]


def references_of(signature: Signature) -> dict[str, ReferenceScore]:
    """A pack's references that change several layers, by id."""
    assert signature.calibration is not None, "checked when the packs are loaded"
    own = (item for item in signature.calibration.references if Shape.of(item.layers) is SHAPE)
    return {item.id: item for item in own}


def loaded(packs: Sequence[Path]) -> list[Signature]:
    """Packs that hold scores of references.

    Raises:
        click.ClickException: If one does not.
    """
    signatures = [load_signature(pack) for pack in packs]
    for signature in signatures:
        if signature.calibration is None or not signature.calibration.references:
            raise click.ClickException(f"{signature.path}: holds no scores of references")
    return signatures


@click.command()
@click.argument(
    "packs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
def main(packs: tuple[Path, ...]) -> None:
    """Print how far references stand out under PACKS."""
    signatures = loaded(packs)
    head = ["packs", "by", "benign", "highest benign", "references"]
    click.echo(table(head, rows(signatures)))


if __name__ == "__main__":
    main()
