"""Calibrations whose scores are put together from their own adapters."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scanner.errors import SignatureError
from scanner.results import Shape
from scanner.signatures.combination import combined_score
from scanner.signatures.manifest import (
    BenignScore,
    Calibration,
    ReferenceScore,
    decode_calibration,
    encode_calibration,
)
from scanner.signatures.scaling import scaled, scales_of
from scanner.signatures.score import STATISTIC


def benign(number: int, signed_write: float, dose: float, layers: int) -> BenignScore:
    return BenignScore(
        id=f"b{number}", sha256="", family="f", score=9.0, signed_write=signed_write, cosine=0.0,
        dose=dose, norm=1.0, rank=1, layers=layers, modules=[],
    )  # fmt: skip


def calibration(adapters: list[BenignScore]) -> Calibration:
    reference = ReferenceScore(
        id="r",
        score=9.0,
        signed_write=0.2,
        cosine=0.0,
        dose=30.0,
        norm=2.0,
        layers=4,
        held_out=True,
    )
    return Calibration(
        format_version=5, statistic=STATISTIC, cross_fitted_by=None, benign=adapters,
        references=[reference, msgspec.structs.replace(reference, id="one", layers=1)],
    )  # fmt: skip


def test_every_score_is_by_the_scale_of_its_own_shape() -> None:
    values = np.random.default_rng(0).normal(size=(60, 2))
    several = [
        benign(i, float(pair[0]), float(pair[1]), 2 + i % 3) for i, pair in enumerate(values)
    ]
    one = [benign(100 + i, 0.01 * i, 0.1 * i * i, layers=1) for i in range(19)]
    found = scaled(calibration([*several, *one]))
    scale = found.scales[Shape.SEVERAL_LAYERS.value]
    assert set(found.scales) == {Shape.SEVERAL_LAYERS.value}, "19 of one layer are too few"
    for item in found.benign:
        of_shape = scale if item.layers > 1 else None
        assert item.score == combined_score(item, of_shape)
    reference, alone = found.references
    assert reference.score == combined_score(reference, scale) > 0.2
    assert alone.score == alone.signed_write
    assert scaled(found) == found


def test_scales_follow_the_adapters_that_are_left() -> None:
    values = np.random.default_rng(1).normal(size=(40, 2))
    adapters = [benign(i, float(pair[0]), float(pair[1]), 4) for i, pair in enumerate(values)]
    whole = scaled(calibration(adapters))
    less = scaled(msgspec.structs.replace(whole, benign=whole.benign[1:]))
    assert less == scaled(calibration(adapters[1:]))
    assert less.scales != whole.scales
    assert scales_of(less.benign) == less.scales


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("both", 0.0, "both"),
        ("norm", -1.0, "norm"),
        ("dose", [0.0, 0.0], "dose"),
        ("sites", {"0.mlp.down_proj": [0.0, None]}, "sites"),
        ("strongest", {"dose": [0.0, 0.0]}, "strongest"),
        ("strongest", {"height": [0.0, 1.0]}, "strongest"),
    ],
)
def test_a_scale_that_nothing_can_be_put_on_is_a_damaged_pack(
    part: str, value: object, says: str
) -> None:
    values = np.random.default_rng(2).normal(size=(40, 2))
    adapters = [benign(i, float(pair[0]), float(pair[1]), 4) for i, pair in enumerate(values)]
    raw = json.loads(encode_calibration(scaled(calibration(adapters))))
    where = Path("calibration.json")
    decode_calibration(json.dumps(raw).encode(), where)
    raw["scales"][Shape.SEVERAL_LAYERS.value][part] = value
    with pytest.raises(SignatureError, match=says):
        decode_calibration(json.dumps(raw).encode(), where)
