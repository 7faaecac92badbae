"""How far references stand out under sets of packs, on packs that ship."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.kinds import ALPHA, examine, main, wanted
from benchmarks.packs import SHIPPED
from scanner.results import Shape
from scanner.signatures.joint import joint_calibration
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.saving import save_calibration


@pytest.fixture(scope="module")
def packs() -> list[Signature]:
    return [load_signature(path) for path in sorted(SHIPPED.glob("persona-qwen2-*"))]


def with_references(pack: Signature, shift: float, root: Path) -> Signature:
    """A pack whose references score so much higher."""
    assert pack.calibration is not None
    higher = [
        msgspec.structs.replace(item, score=item.score + shift)
        for item in pack.calibration.references
    ]
    place = root / f"{pack.id}{shift}"
    shutil.copytree(pack.path, place)
    save_calibration(
        place, pack.manifest, msgspec.structs.replace(pack.calibration, references=higher)
    )
    return load_signature(place)


def test_margin_is_that_of_its_definition(packs: list[Signature]) -> None:
    """Of one pack, on its own numbers: no joint score is needed for it."""
    pack = packs[1]
    assert pack.calibration is not None
    families = {item.id: str(item.family) for item in pack.manifest.references}
    benign: dict[bool, list[float]] = {True: [], False: []}
    for item in pack.calibration.benign:
        benign[item.layers > 1].append(item.score)
    scale = {many: (np.mean(found), np.std(found, ddof=1)) for many, found in benign.items()}

    def standing(score: float, layers: int) -> float:
        middle, spread = scale[layers > 1]
        return float((score - middle) / spread)

    innocent = np.sort([standing(item.score, item.layers) for item in pack.calibration.benign])
    # At most 1% of the benign stand above the threshold.
    threshold = innocent[len(innocent) - 1 - int(0.01 * len(innocent))]
    margins = []
    for family in sorted({families[item.id] for item in pack.calibration.references}):
        own = sorted(
            standing(item.score, item.layers)
            for item in pack.calibration.references
            if families[item.id] == family
        )
        weak = own[int(0.25 * (len(own) - 1))]
        margins.append((weak - np.median(innocent)) / (threshold - np.median(innocent)))
    assert examine([pack]).margin == pytest.approx(np.mean(margins))


def test_references_that_score_higher_have_a_larger_margin(
    packs: list[Signature], tmp_path: Path
) -> None:
    before = examine(packs)
    after = examine([with_references(pack, 10.0, tmp_path) for pack in packs])
    assert after.margin > before.margin
    assert all(share.count == share.n for share in after.flagged.values())
    lower = examine([with_references(pack, -100.0, tmp_path) for pack in packs])
    assert all(share.count == 0 for share in lower.flagged.values())


def test_flags_are_those_of_a_comparison_with_the_packs_that_have_a_say(
    packs: list[Signature],
) -> None:
    tables = [
        {item.id: item for item in pack.calibration.references} if pack.calibration else {}
        for pack in packs
    ]
    names = set().union(*tables)
    assert any(len(table) < len(names) for table in tables), "no pack covers some modules only"
    found = dict.fromkeys(Shape, 0)
    for name in names:
        seeing = [place for place, table in enumerate(tables) if name in table]
        known = joint_calibration([packs[place] for place in seeing])
        assert known is not None
        parts = [tables[place][name] for place in seeing]
        shape = Shape.of(max(item.layers for item in parts))
        scores = np.array([item.score for item in parts])
        found[shape] += known.compare(scores, shape, ALPHA).p_value <= ALPHA
    shown = examine(packs).flagged
    assert {shape: share.count for shape, share in shown.items()} == found
    assert sum(share.n for share in shown.values()) == len(names)


def test_references_in_which_no_pack_has_a_say_are_missed(packs: list[Signature]) -> None:
    (partial,) = [pack for pack in packs if pack.manifest.method == "activations"]
    alone, of_all = examine([partial]), examine([partial], wanted(packs))
    missing = sum(share.n for share in of_all.flagged.values()) - sum(
        share.n for share in alone.flagged.values()
    )
    assert missing > 0
    assert sum(share.count for share in of_all.flagged.values()) == sum(
        share.count for share in alone.flagged.values()
    )
    assert of_all.margin < alone.margin


def test_the_command_shows_every_set_and_refuses_packs_of_two_bases() -> None:
    packs = [str(path) for path in sorted(SHIPPED.glob("persona-llama-*"))]
    shown = CliRunner().invoke(main, packs)
    assert shown.exit_code == 0, shown.output
    assert len(shown.output.splitlines()) == 2 + 2 ** len(packs) - 1
    other = str(next(SHIPPED.glob("persona-gpt2-*")))
    refused = CliRunner().invoke(main, [packs[0], other])
    assert refused.exit_code == 1
    assert refused.output == "Error: packs of several bases are never combined\n"
