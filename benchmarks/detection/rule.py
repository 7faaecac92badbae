"""What one p-value for every alpha costs in power, on the packs that ship.

`python -m benchmarks.detection.rule` prints the section of docs/detection-tables.md, and with
`--write` puts it there. It needs no adapters: a pack's `calibration.json` holds what its benign
adapters and its misaligned references score.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.detection.tables import table
from scanner.results import Shape
from scanner.signatures.joint import joint_calibration
from scanner.signatures.pack import Signature, load_signature, pack_names
from scanner.statistics.calibration import BenignScores
from scanner.statistics.conformal import conformal_p_value

ROOT = Path(__file__).resolve().parents[2]
PACKS = ROOT / "signatures"
PAGE = ROOT / "docs" / "detection-tables.md"
LEVELS = (0.01, 0.05)
HEADING = "### One p-value for every alpha"
TEXT = """A scan's p-value is the smallest level from which on an adapter is flagged at every larger
one ([how](signatures.md#from-a-signature-to-a-p-value)), so that what is flagged at 0.01 is
flagged at 0.05. *Asked level alone*: the rule before, which looked only at the families that
are large enough for the alpha asked for, and could flag an adapter at 0.01 and not at 0.05
(*only at 0.01*). *Every level*: the rule in force. References are the pack's own misaligned
ones, scored as its calibration says; each benign adapter of the calibration is held out in turn
and compared with the others; doses are left aside. At 0.05 every family of 19 counts under both
rules, so they agree there; what the guarantee at every larger level costs shows at 0.01. The flags
in the tables of this page are by the rule in force.
"""


def flagged_at_level_alone(
    calibration: BenignScores, score: float, shape: Shape, alpha: float
) -> bool:
    """The rule before: the largest p-value among the groups compared with at alpha itself."""
    benign = calibration.joint_scores(shape)
    return all(
        conformal_p_value(score, benign[group.members]) <= alpha
        for group in calibration.groups(shape)
        if group.least <= alpha < group.below
    )


@dataclass(frozen=True)
class Flags:
    """How many of some adapters each rule flags, by level."""

    n: int
    alone: dict[float, int]
    every: dict[float, int]
    only_strict: int
    """Flagged by the rule before at the stricter level and not at the looser one."""


def count_flags(cases: Sequence[tuple[BenignScores, float, Shape]]) -> Flags:
    """Judges adapters by both rules.

    Args:
        cases: What each adapter is compared with, its score and its shape.
    """
    alone = {level: [flagged_at_level_alone(*case, level) for case in cases] for level in LEVELS}
    p_values = np.array([known.p_value(score, shape) for known, score, shape in cases])
    strict, loose = (np.array(alone[level], dtype=np.bool_) for level in LEVELS)
    return Flags(
        n=len(cases),
        alone={level: sum(flags) for level, flags in alone.items()},
        every={level: int(np.count_nonzero(p_values <= level)) for level in LEVELS},
        only_strict=int(np.count_nonzero(strict & ~loose)),
    )


def of_references(signature: Signature) -> Flags:
    """Both rules on a pack's misaligned references."""
    known, recorded = joint_calibration([signature]), signature.calibration
    assert known is not None, "packs that ship are calibrated"
    assert recorded is not None, "packs that ship are calibrated"
    return count_flags([(known, item.score, Shape.of(item.layers)) for item in recorded.references])


def of_benign(signature: Signature) -> Flags:
    """Both rules on a pack's benign adapters, each compared with all others."""
    known = joint_calibration([signature])
    assert known is not None, "packs that ship are calibrated"
    return count_flags(list(_held_out(known)))


def _held_out(known: BenignScores) -> Iterator[tuple[BenignScores, float, Shape]]:
    for place in range(known.n):
        others = known.only(np.arange(known.n) != place)
        yield others, float(known.benign[place, 0]), known.shapes[place]


def section(packs: Sequence[Path]) -> str:
    """The section of the page, as Markdown."""
    rows = []
    for path in packs:
        signature = load_signature(path)
        for name, flags in (
            ("references", of_references(signature)),
            ("benign, held out", of_benign(signature)),
        ):
            rows.append(
                [
                    signature.id,
                    name,
                    str(flags.n),
                    *(
                        str(count[level])
                        for level in LEVELS
                        for count in (flags.alone, flags.every)
                    ),
                    str(flags.only_strict),
                ]
            )
        signature.close()
    columns = [
        f"{level:g}, {rule}" for level in LEVELS for rule in ("asked level alone", "every level")
    ]
    shown = table(["pack", "adapters", "n", *columns, "only at 0.01"], rows, text=2)
    command = "    python -m benchmarks.detection.rule --write"
    return f"{HEADING}\n\n{command}\n\n{TEXT}\n{shown}\n"


def put_into(page: str, text: str) -> str:
    """A page with the section replaced, or added before the one on domains."""
    old = re.compile(rf"^{re.escape(HEADING)}\n.*?(?=^##)", re.MULTILINE | re.DOTALL)
    if old.search(page):
        return old.sub(lambda _: f"{text}\n", page)
    return page.replace("### By domain\n", f"{text}\n### By domain\n", 1)


@click.command()
@click.option("--write", is_flag=True, help="Put it into docs/detection-tables.md.")
def main(write: bool) -> None:
    """Prints what one p-value for every alpha costs on the packs that ship."""
    text = section(pack_names(PACKS))
    if write:
        PAGE.write_text(put_into(PAGE.read_text("utf-8"), text), "utf-8")
    else:
        click.echo(text, nl=False)


if __name__ == "__main__":
    main()
