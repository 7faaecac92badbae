"""What one p-value for every alpha costs: counted, and put on the page."""

from __future__ import annotations

import numpy as np

from benchmarks.detection import rule
from scanner.results import Shape
from scanner.signatures.pack import Signature
from scanner.statistics.calibration import BenignScores

SEVERAL = Shape.SEVERAL_LAYERS


def test_the_rule_before_could_flag_at_a_stricter_level_alone() -> None:
    """One of 30 alike scores as high, and none of 200 others: p is 2/31 there, 2/231 in all."""
    benign = np.concatenate([np.arange(29.0), [1000.0], np.arange(200.0)])[:, None]
    known = BenignScores(benign, (SEVERAL,) * 230, ("near",) * 30 + ("far",) * 200)
    flags = rule.count_flags([(known, 500.0, SEVERAL), (known, 2000.0, SEVERAL)])
    assert flags.alone == {0.01: 2, 0.05: 1}
    assert flags.every == {0.01: 1, 0.05: 1}
    assert flags.only_strict == 1


def test_every_adapter_of_a_pack_is_counted(pack: Signature) -> None:
    assert pack.calibration is not None
    references, benign = rule.of_references(pack), rule.of_benign(pack)
    assert references.n == len(pack.calibration.references)
    assert references.every == {0.01: references.n, 0.05: references.n}
    assert benign.n == len(pack.calibration.benign)
    for level in rule.LEVELS:
        assert benign.every[level] <= benign.alone[level] <= level * benign.n


def test_the_section_takes_its_own_place_again() -> None:
    page = "# Page\n\n## Flags\n\ntables\n\n### By domain\n\nmore\n"
    once = rule.put_into(page, f"{rule.HEADING}\n\nfirst\n")
    assert (
        once
        == f"# Page\n\n## Flags\n\ntables\n\n{rule.HEADING}\n\nfirst\n\n### By domain\n\nmore\n"
    )
    assert rule.put_into(once, f"{rule.HEADING}\n\nsecond\n") == once.replace("first", "second")


def test_the_page_shows_what_the_command_prints_of_a_pack(pack: Signature) -> None:
    page = rule.PAGE.read_text("utf-8")
    assert rule.TEXT in page
    assert rule.section([pack.path]).startswith(rule.HEADING)
    assert f"| {pack.id} | references |" in rule.section([pack.path])
