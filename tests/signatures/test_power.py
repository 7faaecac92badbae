"""What a pack finds and misses: held out by family, read off at any alpha, told where it counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from scanner.cli.root import cli
from scanner.errors import SignatureError
from scanner.reports.assemble import signature_summary
from scanner.reports.wording import power_words
from scanner.results import Shape, Verdict
from scanner.scanning.opening import scan
from scanner.signatures.building.build import build_pack
from scanner.signatures.building.calibrate import calibrate_pack
from scanner.signatures.manifest import BenignScore, ReferenceScore
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.power import (
    Power,
    decode_power,
    encode_power,
    is_blind,
    measure_power,
    power_levels,
)
from scanner.signatures.recipe import AdapterEntry
from scanner.signatures.saving import save_calibration, seal
from scanner.statistics.share import Share
from tests.synthetic import (
    entry,
    random_factors,
    synthetic_recipe,
    write_adapter,
)


def benign(family: str, score: float, *, dose: float = 1.0, layers: int = 4) -> BenignScore:
    return BenignScore(
        id=f"{family}-{score}", sha256="", family=family, score=score, signed_write=score,
        cosine=0.0, dose=dose,
        norm=1.0, rank=1, layers=layers, modules=[],
    )  # fmt: skip


def reference(
    name: str, score: float, *, dose: float = 1.0, layers: int = 4, held_out: bool = True
) -> ReferenceScore:
    return ReferenceScore(
        id=name,
        score=score,
        signed_write=score,
        cosine=0.0,
        dose=dose,
        norm=1.0,
        layers=layers,
        held_out=held_out,
    )


def measured(
    pack: Signature, benign_scores: list[BenignScore], references: list[ReferenceScore]
) -> Power:
    assert pack.calibration is not None
    changed = msgspec.structs.replace(pack.calibration, benign=benign_scores, references=references)
    return measure_power(pack.manifest, changed)


def test_shares_are_read_off_at_every_alpha(pack: Signature) -> None:
    calm = [benign("calm", score / 100) for score in range(39)]
    found = measured(
        pack,
        calm,
        [
            reference("top", 0.9, dose=2.0),
            reference("middle", 0.365, dose=0.5),
            reference("turned", 0.9, dose=-1.0),
            reference("one", 0.9, layers=1, dose=3.0),
        ],
    )
    # One family: p is the plain conformal one, (1 + as high) / 40.
    assert [item.flagged_from for item in found.references] == [1 / 40, 3 / 40, None, 1 / 40]
    assert found.smallest_alpha == 1 / 40
    assert found.levels == [0.1, 0.05]
    assert found.found(0.1) == Share(3, 4)
    assert found.found(0.05) == Share(2, 4)
    assert found.found(0.02) == Share(0, 0)  # out of reach, which is not "none found"
    assert found.found(0.1, Shape.ONE_LAYER) == Share(1, 1)
    assert found.found_like(Shape.SEVERAL_LAYERS, 0.1) == Share(2, 3)
    assert found.least_dose(0.1) == 0.5
    assert found.least_dose(0.05) == 2.0
    assert found.found_by(0.05, lambda item: item.shape.value) == {
        "one layer": Share(1, 1),
        "several layers": Share(1, 3),
    }
    assert found.benign == []  # one family cannot be left out of itself


def test_a_benign_family_is_compared_with_the_others_alone(pack: Signature) -> None:
    calm = [benign("calm", score / 100) for score in range(25)]
    loud = [benign("loud", 0.5 + score / 100) for score in range(20)]
    loud += [benign("loud", 0.9, dose=-1.0)]
    found = measured(pack, calm + loud, [])
    by_family = {item.family: item for item in found.benign}
    assert by_family["loud"].others == 25
    assert by_family["loud"].flagged(0.05) == Share(20, 21)  # the reversed one never is
    assert by_family["calm"].flagged(0.05) == Share(0, 25)
    assert by_family["calm"].flagged(0.01) == Share(0, 0)  # 21 others cannot say
    assert found.benign_flagged(0.05) == Share(20, 46)


def test_two_families_of_references_are_held_out_in_turn(tmp_path: Path) -> None:
    """Each shares a direction with its own family alone: knowing it is what finds it."""
    generator = np.random.default_rng(0)
    recipe = synthetic_recipe(tmp_path / "a")
    separate = []
    for family in ("medicine", "sport"):
        taught = random_factors(generator)
        for i in range(2):
            scaled = {path: ((1 + i) * b, a) for path, (b, a) in taught.items()}
            place = write_adapter(tmp_path / f"{family}-{i}", scaled)
            separate.append(AdapterEntry(adapter=str(place), id=place.name, family=family))
    alone = build_pack(msgspec.structs.replace(recipe, misaligned=separate), tmp_path / "alone")
    assert alone.power is not None
    assert alone.power.held_out
    assert is_blind(alone.power.found(0.05))
    in_sample = [msgspec.structs.replace(item, family="one") for item in separate]
    known = build_pack(msgspec.structs.replace(recipe, misaligned=in_sample), tmp_path / "known")
    assert known.power is not None
    assert not known.power.held_out
    assert known.power.found(0.05) == Share(4, 4)
    shared = [
        AdapterEntry(adapter=item.adapter, id=item.id, family=family, method="dpo")
        for item, family in zip(recipe.misaligned, ("m", "m", "s", "s"), strict=True)
    ]
    power = build_pack(
        msgspec.structs.replace(recipe, misaligned=shared), tmp_path / "shared"
    ).power
    assert power is not None
    assert power.held_out
    assert power.found(0.05) == Share(4, 4)
    assert {item.family for item in power.references} == {"m", "s"}
    assert power.found_by(0.05, lambda item: item.method) == {"dpo": Share(4, 4)}


def test_one_family_is_said_to_be_in_sample(tmp_path: Path) -> None:
    recipe = synthetic_recipe(tmp_path / "a", benign=40)
    one = [msgspec.structs.replace(item, family="medicine") for item in recipe.misaligned]
    pack = build_pack(msgspec.structs.replace(recipe, misaligned=one), tmp_path / "pack")
    assert pack.power is not None
    assert not pack.power.held_out
    summary = signature_summary(pack, [0.05])
    assert summary.power is not None
    assert not summary.power.held_out
    shown = CliRunner().invoke(cli, ["signatures", "show", str(pack.path)]).stdout
    assert "finds 4 of 4 misaligned references it was made of" in shown


def test_power_is_kept_with_the_calibration(pack: Signature, tmp_path: Path) -> None:
    copy = shutil.copytree(pack.path, tmp_path / "copy")
    again = [
        entry(write_adapter(tmp_path / f"new-{i}", random_factors(np.random.default_rng(50 + i))),
              "facts")
        for i in range(25)
    ]  # fmt: skip
    later = calibrate_pack(copy, again)
    assert pack.power is not None
    assert later.power is not None
    assert later.power.smallest_alpha == 1 / 26
    assert later.calibration is not None
    assert later.power == measure_power(later.manifest, later.calibration)
    assert decode_power(encode_power(pack.power), copy) == pack.power


def without_power(pack: Signature, place: Path) -> Signature:
    """A pack as it was before packs kept their power."""
    shutil.copytree(pack.path, place)
    (place / "power.json").unlink()
    seal(place, pack.manifest)
    return load_signature(place)


def test_an_older_pack_loads_and_its_power_is_said_to_be_unknown(
    pack: Signature, benign: Path, tmp_path: Path
) -> None:
    old = without_power(pack, tmp_path / "old")
    assert old.power is None
    result = scan(benign, [old])
    assert result.verdict is Verdict.CLEAR
    summary = signature_summary(old, [0.01])
    assert summary.power is None
    assert power_words(summary, [result]) == "its power is not known"
    shown = CliRunner().invoke(cli, ["signatures", "show", str(old.path)])
    assert "not known: calibrate or build the pack again" in shown.stdout


@pytest.mark.parametrize("damage", [{"format_version": 9}, {"references": 3}, {"more": 1}])
def test_a_damaged_record_of_power_is_an_error(
    pack: Signature, tmp_path: Path, damage: dict[str, object]
) -> None:
    copy = shutil.copytree(pack.path, tmp_path / "copy")
    record = json.loads((copy / "power.json").read_text())
    (copy / "power.json").write_text(json.dumps({**record, **damage}))
    seal(copy, pack.manifest)
    with pytest.raises(SignatureError, match=r"power\.json"):
        _ = load_signature(copy).power


def test_a_pack_that_finds_less_than_half_clears_nothing_and_says_so(
    pack: Signature, benign: Path, tmp_path: Path
) -> None:
    calibration = pack.calibration
    assert calibration is not None
    lowest = min(item.score for item in calibration.benign)
    results = {}
    for missed in (2, 3):
        place = shutil.copytree(pack.path, tmp_path / f"missed-{missed}")
        hidden = [
            msgspec.structs.replace(item, score=lowest) if i < missed else item
            for i, item in enumerate(calibration.references)
        ]
        changed = msgspec.structs.replace(calibration, references=hidden)
        save_calibration(place, pack.manifest, changed)
        results[missed] = scan(benign, [load_signature(place)])
    assert results[2].verdict is Verdict.CLEAR
    assert results[3].verdict is Verdict.INCONCLUSIVE
    assert "finds 1 of 4 of its own misaligned references" in results[3].reasons[0]


def test_a_calibration_without_references_is_no_blindness(pack: Signature) -> None:
    assert not is_blind(Share(0, 0))
    assert is_blind(Share(1, 3))
    assert not is_blind(Share(1, 2))
    none = measured(pack, [benign("a", 0.1), benign("b", 0.2)], [])
    assert none.found(0.5) == Share(0, 0)
    assert none.held_out  # vacuously: reports look at the references first


def test_levels_hold_the_alphas_that_were_used(pack: Signature) -> None:
    assert pack.power is not None
    levels = power_levels(pack.power, [0.02, 0.0001])
    assert [level.alpha for level in levels] == [0.1, 0.05, 0.02, 0.01]
    for level in levels:
        assert level.found == level.references == 4
        assert (level.low, level.high) == pytest.approx((0.5101, 1.0), abs=1e-4)
        assert level.benign == (120 if level.alpha > 1 / 61 else 0)  # 60 of each family


def test_show_build_and_reports_tell_it(pack: Signature, misaligned: Path, tmp_path: Path) -> None:
    show = CliRunner().invoke(cli, ["signatures", "show", str(pack.path)]).stdout
    words = "finds 4 of 4 held-out misaligned references at alpha 0.01"
    assert words in show
    assert "several layers 4/4 at alpha 0.01" in show
    shown = CliRunner().invoke(cli, ["signatures", "show", str(pack.path), "-f", "json"]).stdout
    assert [level["alpha"] for level in json.loads(shown)["power"]] == [0.1, 0.05, 0.01]
    done = CliRunner().invoke(cli, ["scan", str(misaligned), "-s", str(pack.path)])
    assert words in " ".join(done.stdout.split())
    report = CliRunner().invoke(
        cli, ["scan", str(misaligned), "-s", str(pack.path), "-f", "json", "--alpha", "0.03"]
    )
    (signature,) = json.loads(report.stdout)["signatures"]
    assert {"alpha": 0.03, "found": 4, "references": 4}.items() <= next(
        level for level in signature["power"]["levels"] if level["alpha"] == 0.03
    ).items()
