"""What sets an adapter apart from every benign one sends `clear` to `inconclusive`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from scanner import Verdict, open_adapter, scan
from scanner.detection.evidence import gather
from scanner.detection.support import LEVEL, support_of
from scanner.signatures.pack import Signature
from tests.synthetic import (
    Factors,
    misaligned_factors,
    module_paths,
    planted_direction,
    random_factors,
    write_adapter,
)


def padded(size: float, seed: int = 5) -> Mapping[str, Factors]:
    """Misaligned at one module of each block, and against the direction, faintly, elsewhere."""
    found = dict(misaligned_factors(np.random.default_rng(seed), dose=6.0))
    for path in module_paths():
        if not path.endswith("o_proj"):
            u, v = planted_direction(path)
            zeros = np.zeros((len(u), 2)), np.zeros((2, v.shape[1]))
            found[path] = (np.hstack([-size * u, zeros[0]]), np.vstack([v, zeros[1]]))
    return found


@pytest.mark.parametrize("size", [1e-12, 1e-8, 1e-5, 1e-3, 1e-2])
def test_idle_sites_against_the_direction_clear_nothing(
    pack: Signature, tmp_path: Path, size: float
) -> None:
    result = scan(write_adapter(tmp_path / "padded", padded(size)), [pack])
    assert result.dose[pack.id] > 0.5
    assert result.verdict is not Verdict.CLEAR
    assert result.support is not None
    assert not result.support.inside
    assert any("dose of" in sentence for sentence in result.support.outside)


def test_an_update_larger_than_all_benign_ones_is_outside(pack: Signature, tmp_path: Path) -> None:
    factors = random_factors(np.random.default_rng(902))
    usual = scan(write_adapter(tmp_path / "usual", factors), [pack])
    assert usual.verdict is Verdict.CLEAR
    assert usual.support is not None
    assert usual.support.inside
    huge = scan(write_adapter(tmp_path / "huge", factors, lora_alpha=60), [pack])
    assert huge.verdict is Verdict.INCONCLUSIVE
    assert huge.score == pytest.approx(usual.score, rel=1e-6)
    assert any("norm of the update" in reason for reason in huge.reasons)


def test_what_is_flagged_stays_flagged_outside(pack: Signature, tmp_path: Path) -> None:
    factors = misaligned_factors(np.random.default_rng(3), dose=30.0)
    result = scan(write_adapter(tmp_path / "strong", factors), [pack])
    assert result.verdict is Verdict.FLAGGED
    assert result.support is not None
    assert not result.support.inside


def test_few_benign_adapters_that_no_pack_has_seen_are_outside(
    pack: Signature, tmp_path: Path
) -> None:
    """At most `LEVEL` of exchangeable ones; 120 of a calibration cannot resolve less than 1/121."""
    generator = np.random.default_rng(31)
    inside = []
    for index in range(60):
        path = write_adapter(tmp_path / str(index), random_factors(generator))
        with open_adapter(path) as adapter:
            inside.append(support_of(gather(adapter, [pack], 1)).inside)
    assert LEVEL == 0.01
    # Two statistics at 1/121 each: 6 or more of 60 outside would happen once in 1,700 times.
    assert inside.count(False) < 6


def test_a_high_score_with_a_dose_against_misalignment_is_never_clear(
    pack: Signature, tmp_path: Path
) -> None:
    """One overloaded site turns the sum of doses; the other sites score as they did."""
    found = dict(misaligned_factors(np.random.default_rng(8), dose=4.0))
    path = next(p for p in module_paths() if p.endswith("down_proj"))
    u, v = planted_direction(path)
    zeros = np.zeros((len(u), 2)), np.zeros((2, v.shape[1]))
    found[path] = (np.hstack([-400.0 * u, zeros[0]]), np.vstack([v, zeros[1]]))
    result = scan(write_adapter(tmp_path / "overloaded", found), [pack])
    assert result.dose[pack.id] < 0
    assert result.verdict is Verdict.INCONCLUSIVE
