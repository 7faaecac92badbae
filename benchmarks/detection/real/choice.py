"""How far references stand out under packs, alone and together: what `signatures make` rests on.

    python -m benchmarks.detection.real.choice PACK ...

Which signatures are made of a base is chosen by such a table: by what packs hold of calibration
adapters and references, and by no test adapter. Scores are in standard deviations above the mean
calibration adapter that changes several layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import click
import numpy as np

from benchmarks.detection.tables import table
from scanner.detection.verdict import joint_calibration
from scanner.results import Shape
from scanner.signatures.manifest import ReferenceScore
from scanner.signatures.pack import Signature, load_signature

SHAPE = Shape.SEVERAL_LAYERS


def rows(signatures: Sequence[Signature]) -> list[list[str]]:
    """One row for each pack, and for each pair of packs of one kind."""
    chosen: list[tuple[Signature, ...]] = [(signature,) for signature in signatures]
    chosen += [
        pair for pair in combinations(signatures, 2) if len({s.manifest.kind for s in pair}) == 1
    ]
    return [_row(packs) for packs in chosen]


def _row(packs: Sequence[Signature]) -> list[str]:
    known = joint_calibration(packs)
    assert known is not None, "checked when the packs are loaded"
    joint, alike = known.joint(SHAPE), np.array([shape is SHAPE for shape in known.shapes])
    benign = joint.combine(known.benign)[alike]
    tables = [_references(signature) for signature in packs]
    common = sorted(set.intersection(*(set(found) for found in tables)))
    scores = joint.combine(np.array([[found[name].score for found in tables] for name in common]))
    middle, spread = benign.mean(), benign.std(ddof=1)
    highest = np.sort(benign)[::-1][:2]
    return [
        " + ".join(signature.id for signature in packs),
        str(len(benign)),
        ", ".join(f"{(score - middle) / spread:.1f}" for score in highest),
        ", ".join(f"{(score - middle) / spread:.1f}" for score in np.sort(scores)),
    ]


def _references(signature: Signature) -> dict[str, ReferenceScore]:
    assert signature.calibration is not None, "checked when the packs are loaded"
    return {item.id: item for item in signature.calibration.references}


@click.command()
@click.argument(
    "packs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
def main(packs: tuple[Path, ...]) -> None:
    """Print how far references stand out under PACKS."""
    signatures = [load_signature(pack) for pack in packs]
    for signature in signatures:
        if signature.calibration is None or not signature.calibration.references:
            raise click.ClickException(f"{signature.path}: holds no scores of references")
    head = ["packs", "benign", "highest benign", "references"]
    click.echo(table(head, rows(signatures)))


if __name__ == "__main__":
    main()
