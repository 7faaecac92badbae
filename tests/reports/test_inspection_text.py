"""The table of `inspect`, on screens of any width."""

from __future__ import annotations

import pytest

from scanner.detection.inspection import InspectedUpdate, Inspection
from scanner.reports.inspection_text import render_inspection
from scanner.reports.terminal import Screen
from tests.reports.samples import HOSTILE

MODULE = "self_attn.o_proj"


def inspection(*modules: str) -> Inspection:
    updates = [
        InspectedUpdate(
            layer=layer,
            module=module,
            rank=8,
            d_out=4096,
            d_in=4096,
            scaling=2.0,
            norm=0.5,
            dtype="BF16",
            effective_rank=6.6,
        )
        for layer, module in enumerate(modules)
    ]
    return Inspection(
        target="adapter",
        format="peft-lora",
        base_model="base",
        sha256="0" * 64,
        updates=updates,
        uncovered=[],
        notes=["one site dominates, and this sentence is long enough to need a second line"],
    )


def test_a_terminal_of_80_columns_shows_everything() -> None:
    text = render_inspection(inspection(MODULE, "mlp.gate_proj"), Screen(width=80))
    for title in ("layer", "module", "shape", "rank", "eff. rank", "scaling", "norm", "dtype"):
        assert title in text
    assert "4096 x 4096" in text
    assert "wider terminal" not in text


@pytest.mark.parametrize("width", [40, 50, 60, 80])
def test_narrow_screens_lose_columns_and_never_letters(width: int) -> None:
    text = render_inspection(inspection(MODULE, "mlp.gate_proj"), Screen(width=width))
    table = [line for line in text.splitlines() if "sha256" not in line]
    assert all(len(line) <= width for line in table)
    assert MODULE in text
    assert "…" not in text
    shown = "dtype" in text.split("wider terminal", maxsplit=1)[0]
    assert shown is (width == 80)


def test_hostile_names_are_inert() -> None:
    text = render_inspection(inspection(HOSTILE), Screen(width=80, color=True))
    assert HOSTILE not in text
    assert "\x1b[31m" not in text
