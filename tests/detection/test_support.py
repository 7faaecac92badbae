"""What sets an adapter apart from every benign one sends `clear` to `inconclusive`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scanner import Verdict, open_adapter, scan
from scanner.detection.evidence import gather
from scanner.detection.spread import SiteTable, Statistic, input_statistics
from scanner.detection.support import LEVEL, _surprise, support_of
from scanner.signatures.numbers import SiteNumbers
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.saving import save_calibration
from tests.synthetic import (
    RANK,
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
    assert any("typical one" in sentence for sentence in result.support.outside)


def test_an_update_larger_than_all_benign_ones_is_outside(pack: Signature, tmp_path: Path) -> None:
    factors = random_factors(np.random.default_rng(902))
    usual = scan(write_adapter(tmp_path / "usual", factors), [pack])
    assert usual.verdict is Verdict.CLEAR
    assert usual.support is not None
    assert usual.support.inside
    huge = scan(write_adapter(tmp_path / "huge", factors, lora_alpha=60), [pack])
    assert huge.verdict is Verdict.INCONCLUSIVE
    larger = scan(write_adapter(tmp_path / "larger", factors, lora_alpha=600), [pack])
    assert larger.score == pytest.approx(huge.score, rel=1e-6)
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
    # One comparison at 1/121, whatever the number of statistics: 5 or more of 60 outside would
    # happen once in 6,000 times.
    assert inside.count(False) < 5


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


def at_some_sites(module: str, factor: float) -> Mapping[str, Factors]:
    """Benign everywhere, and larger by a factor at one module of the first block."""
    found = dict(random_factors(np.random.default_rng(77)))
    path = next(p for p in module_paths() if p.endswith(module))
    b, a = found[path]
    found[path] = (b * factor, a)
    return found


@pytest.mark.parametrize(("factor", "outside"), [(1.0, False), (40.0, True), (0.01, True)])
def test_one_site_of_another_size_is_outside(
    pack: Signature, tmp_path: Path, factor: float, outside: bool
) -> None:
    result = scan(write_adapter(tmp_path / "one", at_some_sites("o_proj", factor)), [pack])
    assert result.support is not None
    assert result.support.inside is not outside
    if outside:
        assert any("site" in sentence for sentence in result.support.outside)


def test_writing_against_the_direction_from_other_inputs_hides_nothing(
    pack: Signature, tmp_path: Path
) -> None:
    """The writes cancel in the score; without their signs they add up."""
    rng = np.random.default_rng(6)
    found = {}
    for path, (b, a) in misaligned_factors(rng, dose=6.0).items():
        u, v = planted_direction(path)
        reads = 0.3 * v + rng.normal(size=v.shape) / np.sqrt(v.shape[1])
        size = float(np.linalg.norm(b @ a) / np.linalg.norm(u @ reads))
        found[path] = (np.hstack([b, -size * u]), np.vstack([a, reads]))
    rank = RANK + 1
    countered = write_adapter(tmp_path / "countered", found, r=rank, lora_alpha=2 * rank)
    result = scan(countered, [pack])
    assert result.verdict is not Verdict.CLEAR
    assert result.support is not None
    assert any("writes into the directions" in sentence for sentence in result.support.outside)


def test_what_is_not_known_of_an_adapter_is_outside() -> None:
    benign = np.linspace(0.0, 1.0, 150)
    for others in (benign, np.where(benign > 0.5, np.nan, benign), np.full(150, np.nan)):
        found = _surprise(Statistic("a number", np.array([np.nan, *others])))
        assert found[0] == np.inf
        assert np.isfinite(found[1:]).all()
    usual = _surprise(Statistic("a number", np.array([0.5, *benign])))
    assert usual[0] < -np.log(0.3)


def test_one_site_that_no_inputs_are_known_of_does_not_choose_another_measure() -> None:
    known = SiteNumbers(1.0, 0.1, 0.2, 0.1, 1.0, 0.1, 2.0, 0.1, 0.5)
    benign = {"0.mlp.up_proj": known, "1.mlp.up_proj": known}
    scanned = {**benign, "1.mlp.down_proj": SiteNumbers(1.0, 0.1, 0.2, 0.1)}
    table = SiteTable.of([scanned, *[benign] * 3])
    assert table.knows_inputs
    first = next(input_statistics(table))
    assert np.isnan(first.values[0])
    assert _surprise(first)[0] == np.inf
    assert not SiteTable.of([benign, benign, scanned]).knows_inputs


def test_packs_that_say_nothing_of_single_sites_still_judge_the_whole(
    pack: Signature, tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(pack.path, older)
    calibration = pack.calibration
    assert calibration is not None
    benign = [msgspec.structs.replace(score, sites={}) for score in calibration.benign]
    manifest = msgspec.structs.replace(pack.manifest, id="older")
    save_calibration(older, manifest, msgspec.structs.replace(calibration, benign=benign))
    old = load_signature(older)
    huge = write_adapter(
        tmp_path / "huge", random_factors(np.random.default_rng(902)), lora_alpha=60
    )
    assert scan(huge, [old]).verdict is Verdict.INCONCLUSIVE
    faint = scan(write_adapter(tmp_path / "faint", at_some_sites("o_proj", 0.01)), [old])
    assert faint.support is not None
    assert faint.support.inside
