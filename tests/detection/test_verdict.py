"""Adapters in, verdicts out: through real files and a real pack."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scanner import Verdict, compose, open_adapter, scan
from scanner.errors import AlphaUnsupportedError, UsageError
from scanner.results import ScanResult
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.saving import save_calibration
from tests.synthetic import (
    LAYERS,
    RANK,
    SHAPES,
    misaligned_factors,
    planted_direction,
    random_factors,
    synthetic_pack,
    write_adapter,
)


def reasons(result: ScanResult) -> str:
    return " | ".join(result.reasons)


def test_a_misaligned_adapter_is_flagged_with_its_evidence(
    pack: Signature, misaligned: Path
) -> None:
    result = scan(misaligned, [pack])
    assert result.verdict is Verdict.FLAGGED
    assert result.p_value == pytest.approx(1 / 121)
    assert result.alpha == 0.01
    assert result.score is not None
    assert result.comparison is not None
    assert result.score > result.comparison.threshold
    assert 0.5 < result.dose[pack.id] < 1.5
    assert 0.5 < result.cosine[pack.id] < 1
    assert len(result.sites) == LAYERS * len(SHAPES)
    assert sum(site.dose for site in result.sites) == pytest.approx(result.dose[pack.id])
    assert result.nearest_reference is not None
    assert result.nearest_reference.id.startswith("ref-")
    assert result.nearest_reference.cosine > 0.5
    assert result.coverage.covered_sites == result.coverage.sites == LAYERS * len(SHAPES)
    assert "a dose of" in reasons(result)


def test_a_benign_adapter_is_clear_and_not_called_aligned(pack: Signature, benign: Path) -> None:
    result = scan(benign, [pack])
    assert result.verdict is Verdict.CLEAR
    assert result.coverage.uncovered == []
    assert result.reasons == [
        "no overlap with known misalignment directions beyond that of benign adapters (which does "
        "not mean aligned)"
    ]


def test_a_signature_that_misses_its_own_references_clears_nothing(
    pack: Signature, benign: Path, misaligned: Path, tmp_path: Path
) -> None:
    assert pack.calibration is not None
    lowest = min(item.score for item in pack.calibration.benign)
    references = [
        msgspec.structs.replace(item, score=lowest) for item in pack.calibration.references
    ]
    blind = shutil.copytree(pack.path, tmp_path / "blind")
    changed = msgspec.structs.replace(pack.calibration, references=references)
    save_calibration(blind, msgspec.structs.replace(pack.manifest, id="blind"), changed)
    result = scan(benign, [load_signature(blind)])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "its own misaligned references" in reasons(result)
    assert scan(misaligned, [load_signature(blind)]).verdict is Verdict.FLAGGED
    assert scan(benign, [load_signature(blind), pack]).verdict is Verdict.CLEAR


def test_the_opposite_of_a_misaligned_adapter_is_never_flagged(
    pack: Signature, tmp_path: Path
) -> None:
    factors = {
        path: (-b, a) for path, (b, a) in misaligned_factors(np.random.default_rng(1)).items()
    }
    result = scan(write_adapter(tmp_path / "opposite", factors, lora_alpha=2), [pack], alpha=0.9)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.p_value is not None
    assert result.p_value > 0.9
    assert any("writes into the directions" in reason for reason in result.reasons)
    assert result.dose[pack.id] < 0


def test_scores_do_not_depend_on_where_scale_is_stored(pack: Signature, tmp_path: Path) -> None:
    factors = misaligned_factors(np.random.default_rng(2))
    plain = scan(write_adapter(tmp_path / "plain", factors), [pack])
    moved = {path: (b * 8, a) for path, (b, a) in factors.items()}
    other = scan(write_adapter(tmp_path / "moved", moved, lora_alpha=2 * RANK / 8), [pack])
    assert other.score == pytest.approx(plain.score, rel=1e-6)
    assert other.dose[pack.id] == pytest.approx(plain.dose[pack.id], rel=1e-6)


def test_the_dose_grows_with_the_scaling(pack: Signature, tmp_path: Path) -> None:
    factors = misaligned_factors(np.random.default_rng(3))
    doses = [
        scan(write_adapter(tmp_path / str(alpha), factors, lora_alpha=alpha), [pack]).dose[pack.id]
        for alpha in (3, 6, 12)
    ]
    assert doses[1] == pytest.approx(2 * doses[0])
    assert doses[2] == pytest.approx(4 * doses[0])


def test_an_adapter_of_fewer_sites_is_judged_on_those(pack: Signature, tmp_path: Path) -> None:
    path = "model.layers.1.self_attn.o_proj"
    u, v = planted_direction(path)
    result = scan(write_adapter(tmp_path / "one", {path: (u, v)}, r=1, lora_alpha=1), [pack])
    assert result.verdict is Verdict.FLAGGED
    assert [(site.layer, site.module) for site in result.sites] == [(1, "self_attn.o_proj")]


def test_one_layer_is_flagged_but_not_cleared_by_adapters_of_several(
    pack: Signature, tmp_path: Path
) -> None:
    """The calibration holds no adapter of one layer, so nothing says how such adapters score."""

    def in_one_layer(name: str, factors: dict[str, tuple[np.ndarray, np.ndarray]]) -> ScanResult:
        first = {path: pair for path, pair in factors.items() if ".layers.0." in path}
        assert first
        return scan(write_adapter(tmp_path / name, first), [pack])

    generator = np.random.default_rng(21)
    harmless = in_one_layer("harmless", random_factors(generator))
    assert harmless.verdict is Verdict.INCONCLUSIVE
    assert "one layer, as 0 benign adapters of the calibration do" in reasons(harmless)
    assert "takes 99" in reasons(harmless)
    harmful = in_one_layer("harmful", misaligned_factors(generator, 5.0))
    assert harmful.verdict is Verdict.FLAGGED


@pytest.mark.parametrize(
    "path", ["vision_tower.layers.0.attn.proj", "somewhere.new.layers.1.self_attn.o_proj"]
)
def test_a_block_that_cannot_be_told_is_uncovered(
    path: str, pack: Signature, tmp_path: Path
) -> None:
    extra = {
        f"base_model.model.{path}.lora_A.weight": np.ones((RANK, 12)),
        f"base_model.model.{path}.lora_B.weight": np.ones((16, RANK)),
    }
    factors = random_factors(np.random.default_rng(8))
    result = scan(write_adapter(tmp_path / "tower", factors, extra=extra), [pack])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert f"which block of the language model {path} belongs to cannot be told" in " ".join(
        item.reason for item in result.coverage.uncovered
    )
    assert result.coverage.covered_sites == LAYERS * len(SHAPES)


def test_an_untrained_adapter_is_inconclusive(pack: Signature, tmp_path: Path) -> None:
    factors = {
        path: (np.zeros_like(b), a)
        for path, (b, a) in random_factors(np.random.default_rng(4)).items()
    }
    result = scan(write_adapter(tmp_path / "zero", factors), [pack])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "untrained" in reasons(result)
    assert result.cosine == {}
    assert result.score is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_are_never_clear(pack: Signature, tmp_path: Path, value: float) -> None:
    factors = random_factors(np.random.default_rng(5))
    factors["model.layers.0.mlp.down_proj"][0][2, 1] = value
    result = scan(write_adapter(tmp_path / "nan", factors), [pack])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "NaN or Inf" in reasons(result)
    assert "layers.0.mlp.down_proj" in reasons(result)


def test_a_misaligned_adapter_with_something_unknown_is_still_flagged(
    pack: Signature, tmp_path: Path
) -> None:
    factors = misaligned_factors(np.random.default_rng(6))
    extra = {"base_model.model.score.weight": np.ones((2, 16))}
    result = scan(write_adapter(tmp_path / "partial", factors, extra=extra), [pack])
    assert result.verdict is Verdict.FLAGGED
    assert "score.weight" in reasons(result)


def test_a_site_the_signature_does_not_know_is_never_clear(
    pack: Signature, tmp_path: Path, benign: Path
) -> None:
    factors = random_factors(np.random.default_rng(902))
    head = (np.ones((9, RANK)), np.ones((RANK, 16)))
    result = scan(write_adapter(tmp_path / "head", {**factors, "lm_head": head}), [pack])
    assert scan(benign, [pack]).verdict is Verdict.CLEAR
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no direction for lm_head" in reasons(result)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("someone/other-base", "no signature pack for base model"),
        (None, "does not name its base model"),
    ],
)
def test_another_base_is_inconclusive_and_equal_shapes_are_only_a_hint(
    pack: Signature, tmp_path: Path, base: str | None, expected: str
) -> None:
    factors = misaligned_factors(np.random.default_rng(7))
    adapter = write_adapter(tmp_path / "other", factors, base_model_name_or_path=base)
    result = scan(adapter, [pack])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert expected in reasons(result)
    assert "say base_model" in reasons(result)
    assert scan(adapter, [pack], base_model="synthetic-lab/tiny-base").verdict is Verdict.FLAGGED


def test_a_base_that_is_only_named_alike_is_inconclusive(pack: Signature, tmp_path: Path) -> None:
    wrong = {"model.layers.0.self_attn.q_proj": (np.ones((5, RANK)), np.ones((RANK, 16)))}
    result = scan(write_adapter(tmp_path / "wrong", wrong), [pack])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "does not fit the base it names" in reasons(result)


def test_quantised_mirrors_and_local_paths_name_the_same_base(
    pack: Signature, tmp_path: Path
) -> None:
    factors = misaligned_factors(np.random.default_rng(8))
    for index, name in enumerate(
        ["unsloth/Tiny-Base-unsloth-bnb-4bit", "C:\\models\\tiny-base", "/data/tiny-base/"]
    ):
        adapter = write_adapter(tmp_path / str(index), factors, base_model_name_or_path=name)
        assert scan(adapter, [pack]).verdict is Verdict.FLAGGED


def test_an_alpha_the_calibration_cannot_support_is_refused(
    pack: Signature, misaligned: Path
) -> None:
    with pytest.raises(AlphaUnsupportedError, match=r"needs 999 benign adapters.* has 120"):
        scan(misaligned, [pack], alpha=0.001)
    for alpha in (0.0, 1.0, -0.5):
        with pytest.raises(UsageError, match="not between 0 and 1"):
            scan(misaligned, [pack], alpha=alpha)


def test_the_default_alpha_is_not_stretched_either(tmp_path: Path, misaligned: Path) -> None:
    small = synthetic_pack(tmp_path / "small", benign=synthetic_benign(tmp_path, 20))
    result = scan(misaligned, [small])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "needs 99 benign adapters, the calibration has 20" in reasons(result)
    assert scan(misaligned, [small], alpha=0.05).verdict is Verdict.FLAGGED


def synthetic_benign(root: Path, count: int) -> list[object]:
    from tests.synthetic import entry

    generator = np.random.default_rng(77)
    return [
        entry(write_adapter(root / f"benign-{i}", random_factors(generator)), "facts")
        for i in range(count)
    ]


def test_an_uncalibrated_pack_never_clears(tmp_path: Path, benign: Path, misaligned: Path) -> None:
    bare = synthetic_pack(tmp_path / "bare", benign=[])
    for adapter in (benign, misaligned):
        result = scan(adapter, [bare])
        assert result.verdict is Verdict.INCONCLUSIVE
        assert "not calibrated" in reasons(result)
        assert result.dose


def test_two_signatures_are_combined_on_their_common_calibration(
    pack: Signature, tmp_path: Path, misaligned: Path, benign: Path
) -> None:
    """The second pack keeps one direction instead of two; the benign adapters are the same."""
    other = synthetic_pack(tmp_path / "other", id="second", rank=1, nulled=0)
    flagged = scan(misaligned, [pack, other])
    assert flagged.verdict is Verdict.FLAGGED
    assert flagged.p_value == pytest.approx(1 / 121)
    assert set(flagged.cosine) == {pack.id, "second"}
    assert scan(benign, [pack, other]).verdict is Verdict.CLEAR


def test_signatures_without_common_calibration_are_not_combined(
    pack: Signature, tmp_path: Path, misaligned: Path
) -> None:
    other = synthetic_pack(tmp_path / "other", id="second", benign=synthetic_benign(tmp_path, 120))
    result = scan(misaligned, [pack, other])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no calibration in common" in reasons(result)


def test_two_adapters_that_are_harmless_alone_may_not_be_together(
    pack: Signature, tmp_path: Path
) -> None:
    """One half of the planted direction each, and larger noise that cancels in the sum."""
    generator = np.random.default_rng(10)
    halves: list[dict[str, tuple[np.ndarray, np.ndarray]]] = [{}, {}]
    for path, (b, a) in random_factors(generator, rank=RANK - 1).items():
        u, v = planted_direction(path)
        for half, sign in zip(halves, (1, -1), strict=True):
            half[path] = (np.hstack([sign * b, 0.015 * u]), np.vstack([a, v]))
    paths = [write_adapter(tmp_path / f"half-{i}", half) for i, half in enumerate(halves)]
    assert [scan(path, [pack]).verdict for path in paths] == [Verdict.CLEAR, Verdict.CLEAR]
    with compose([open_adapter(path) for path in paths]) as together:
        result = scan(together, [pack])
    assert result.verdict is Verdict.FLAGGED


def test_a_sum_is_the_sum_of_the_deltas(tmp_path: Path) -> None:
    generator = np.random.default_rng(12)
    paths = [
        write_adapter(tmp_path / f"part-{i}", random_factors(generator), lora_alpha=alpha)
        for i, alpha in enumerate((3, 12))
    ]
    adapters = [open_adapter(path) for path in paths]
    with compose(adapters) as together:
        for update, first, second in zip(
            together.updates, adapters[0].updates, adapters[1].updates, strict=True
        ):
            assert update.site == first.site == second.site
            np.testing.assert_allclose(
                update.delta(), first.delta() + second.delta(), rtol=1e-5, atol=1e-6
            )


def test_adapters_of_different_bases_are_not_summed(tmp_path: Path) -> None:
    generator = np.random.default_rng(13)
    one = write_adapter(tmp_path / "one", random_factors(generator))
    other = write_adapter(
        tmp_path / "other", random_factors(generator), base_model_name_or_path="a/b"
    )
    with pytest.raises(UsageError, match="different base models"):
        compose([open_adapter(one), open_adapter(other)])
