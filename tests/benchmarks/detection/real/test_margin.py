"""Other margins of the dose, on references that are scaled down."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.detection.real.choice import Scored
from benchmarks.detection.real.margin import (
    IN_USE,
    SHOWN,
    WRITE_ALONE,
    Margins,
    main,
    scaled,
    score,
    standing,
    together,
)
from benchmarks.redteam.target import PACKS
from scanner.results import Shape
from scanner.signatures.numbers import SiteNumbers
from scanner.signatures.pack import Signature, load_signature
from scanner.statistics.conformal import DEFAULT_ALPHA, conformal_p_value


@pytest.fixture(scope="module")
def packs() -> list[Signature]:
    return [load_signature(path) for path in sorted(PACKS.glob("persona-llama-*"))]


def test_with_the_margin_in_use_and_unscaled_it_is_the_score_that_the_pack_holds(
    packs: list[Signature],
) -> None:
    for pack in packs:
        assert pack.calibration is not None
        held: list[Scored] = [*pack.calibration.references, *pack.calibration.benign]
        for item in held:
            if Shape.of(item.layers) is Shape.SEVERAL_LAYERS:
                assert score(item, pack, IN_USE) == pytest.approx(item.score)
                assert score(item, pack, WRITE_ALONE) == item.signed_write


def test_what_stands_above_is_flagged_by_the_conformal_p_value(packs: list[Signature]) -> None:
    pack = packs[0]
    assert pack.calibration is not None
    calibration = pack.calibration
    several = Shape.SEVERAL_LAYERS
    benign = np.array([i.score for i in calibration.benign if Shape.of(i.layers) is several])
    own = np.sort([i.score for i in calibration.references if Shape.of(i.layers) is several])
    p_values = np.array([conformal_p_value(float(value), benign) for value in own])
    above = standing([pack], IN_USE, 1.0)
    assert np.array_equal(above > 0, p_values <= DEFAULT_ALPHA)
    assert above == pytest.approx(
        (own - (own - above * benign.std(ddof=1))[0]) / benign.std(ddof=1)
    )


def test_without_amounts_scaling_changes_nothing(packs: list[Signature]) -> None:
    assert np.array_equal(standing(packs, WRITE_ALONE, 1.0), standing(packs, WRITE_ALONE, 0.3))
    for margins in (Margins(0.0, math.inf), Margins(math.inf, 0.0)):
        assert standing(packs, margins, 0.3).sum() < standing(packs, margins, 1.0).sum()


def test_of_a_scaled_site_shares_stay_and_amounts_do_not() -> None:
    numbers = SiteNumbers(2.0, 1.0, 0.5, 0.4, felt_write=0.3, share=0.2)
    half = scaled(numbers, 0.5)
    assert (half.norm, half.dose, half.write, half.felt_write) == (1.0, 0.5, 0.5, 0.3)
    assert half.felt_written == pytest.approx(0.5 * 0.3 * 0.2)
    assert scaled(SiteNumbers(1.0, None, None, None), 0.5).dose is None


def test_packs_of_one_base_and_kind_count_together(packs: list[Signature]) -> None:
    other = [load_signature(path) for path in sorted(PACKS.glob("persona-gpt2-*"))]
    assert together([packs[0], other[0], *packs[1:], *other[1:]]) == [packs, other]


def test_the_command_prints_every_margin(packs: list[Signature]) -> None:
    paths: list[Path] = [pack.path for pack in packs]
    done = CliRunner().invoke(main, [str(path) for path in paths])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == " + ".join(pack.id for pack in packs)
    assert len([line for line in lines if line.startswith("| ")]) == len(SHOWN) + 2
    (in_use,) = (line for line in lines if "in use" in line)
    assert in_use.startswith(f"| {IN_USE.dose:g} | {IN_USE.strongest:g} | in use |")
