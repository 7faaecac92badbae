"""What several packs of one base find together, and where that is told."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from scanner.cli.root import cli
from scanner.gates.judgement import judge_directory
from scanner.results import Shape, Verdict
from scanner.scanning.opening import scan
from scanner.scanning.targets import ScanOptions
from scanner.signatures.building.build import build_pack
from scanner.signatures.joint import JointPower, joint_calibration, joint_power, judged_references
from scanner.signatures.manifest import Calibration, Manifest
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.power import UNSCORED
from scanner.signatures.saving import save_calibration
from scanner.statistics.share import Share
from tests.synthetic import synthetic_recipe

SEVERAL = Shape.SEVERAL_LAYERS


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signature, Signature]:
    """Two packs of the same adapters: one nulls two directions, the other none."""
    root = tmp_path_factory.mktemp("two")
    recipe = synthetic_recipe(root / "adapters")
    families = ("medicine", "medicine", "sport", "sport")
    misaligned = [
        msgspec.structs.replace(item, family=family)
        for item, family in zip(recipe.misaligned, families, strict=True)
    ]
    first = msgspec.structs.replace(recipe, misaligned=misaligned, id="nulled")
    second = msgspec.structs.replace(first, id="plain", nulled=0)
    return build_pack(first, root / "nulled"), build_pack(second, root / "plain")


def changed(
    pack: Signature,
    place: Path,
    calibration: Callable[[Calibration], Calibration] = lambda found: found,
    manifest: Callable[[Manifest], Manifest] = lambda found: found,
) -> Signature:
    """A copy of a pack with another calibration or manifest."""
    shutil.copytree(pack.path, place)
    assert pack.calibration is not None
    save_calibration(place, manifest(pack.manifest), calibration(pack.calibration))
    return load_signature(place)


def of_kind(kind: str) -> Callable[[Manifest], Manifest]:
    return lambda found: msgspec.structs.replace(found, kind=kind)


def only_references(*names: str) -> Callable[[Calibration], Calibration]:
    def change(found: Calibration) -> Calibration:
        kept = [item for item in found.references if item.id in names]
        return msgspec.structs.replace(found, references=kept)

    return change


def lowered(count: int) -> Callable[[Calibration], Calibration]:
    """The first references score as the least benign adapter does."""

    def change(found: Calibration) -> Calibration:
        least = min(item.score for item in found.benign)
        hidden = [
            msgspec.structs.replace(item, score=least) if place < count else item
            for place, item in enumerate(found.references)
        ]
        return msgspec.structs.replace(found, references=hidden)

    return change


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(item) for item in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.output


def test_references_are_judged_as_a_verdict_judges(two: tuple[Signature, Signature]) -> None:
    found = joint_power(two)
    assert not found.at_least
    assert found.power is not None
    assert found.power.held_out
    known = joint_calibration(two)
    assert known is not None
    for item in found.power.references:
        scored = [
            next(score for score in pack.calibration.references if score.id == item.id)
            for pack in two
            if pack.calibration is not None
        ]
        compared = known.compare(np.array([score.score for score in scored]), SEVERAL, 0.01)
        assert item.score == pytest.approx(compared.score)
        assert item.flagged_from == compared.p_value
        assert item.dose == scored[compared.deciding].dose
    assert {item.family for item in found.power.references} == {"medicine", "sport"}
    assert found.power.found(0.01) == Share(4, 4)
    # Each family left out is compared with the other alone.
    assert {item.family: item.others for item in found.power.benign} == {"facts": 60, "style": 60}


def test_of_one_pack_it_is_its_own_power(two: tuple[Signature, Signature]) -> None:
    for pack in two:
        assert joint_power([pack]) == JointPower(pack.power)


def test_the_order_of_packs_says_nothing(two: tuple[Signature, Signature]) -> None:
    there, back = joint_power(two).power, joint_power(two[::-1]).power
    assert there is not None
    assert back is not None
    assert [i.flagged_from for i in there.references] == [i.flagged_from for i in back.references]


def test_kinds_with_references_of_their_own_find_at_least_those(
    two: tuple[Signature, Signature], tmp_path: Path
) -> None:
    hostile = changed(two[0], tmp_path / "h", only_references("ref-0", "ref-1"), of_kind("hostile"))
    rash = changed(two[1], tmp_path / "r", only_references("ref-2"), of_kind("reckless"))
    found = joint_power([hostile, rash])
    assert found.at_least
    assert found.power is not None
    assert [item.id for item in found.power.references] == ["ref-0", "ref-1", "ref-2"]
    judged = judged_references([hostile, rash])
    assert [item.scores[1] for item in judged[:2]] == [UNSCORED, UNSCORED]
    whole = [
        changed(two[0], tmp_path / "wh", manifest=of_kind("hostile")),
        changed(two[1], tmp_path / "wr", manifest=of_kind("reckless")),
    ]
    exact = joint_power(whole).power
    assert exact is not None
    by_id = {item.id: item for item in exact.references}
    for item in found.power.references:
        assert math.isfinite(item.score)
        assert item.score <= by_id[item.id].score
        least, real = item.flagged_from, by_id[item.id].flagged_from
        assert least is not None
        assert real is not None
        assert least >= real


def nothing_in_common(pack: Signature, place: Path) -> Signature:
    return changed(
        pack,
        place,
        lambda found: msgspec.structs.replace(
            found,
            benign=[
                msgspec.structs.replace(item, sha256=f"{number:064x}")
                for number, item in enumerate(found.benign)
            ],
        ),
    )


def uncalibrated(pack: Signature, place: Path) -> Signature:
    from scanner.signatures.manifest import CALIBRATION_NAME, POWER_NAME
    from scanner.signatures.saving import seal

    shutil.copytree(pack.path, place)
    for name in (CALIBRATION_NAME, POWER_NAME):
        (place / name).unlink()
    seal(place, pack.manifest)
    return load_signature(place)


UNKNOWN: dict[str, Callable[[Sequence[Signature], Path], list[Signature]]] = {
    "first and second share no misaligned reference": lambda two, root: [
        changed(two[0], root / "a", only_references("ref-0"), named("first")),
        changed(two[1], root / "b", only_references("ref-1"), named("second")),
    ],
    "plain has no misaligned references": lambda two, root: [
        changed(two[0], root / "a", manifest=of_kind("hostile")),
        changed(two[1], root / "b", only_references(), of_kind("reckless")),
    ],
    "plain is not calibrated": lambda two, root: [two[0], uncalibrated(two[1], root / "b")],
    "they have no calibration in common": lambda two, root: [
        two[0],
        nothing_in_common(two[1], root / "b"),
    ],
}


def named(name: str) -> Callable[[Manifest], Manifest]:
    return lambda found: msgspec.structs.replace(found, id=name)


@pytest.mark.parametrize("why", UNKNOWN)
def test_where_it_is_not_known_the_reason_is_said(
    two: tuple[Signature, Signature], tmp_path: Path, why: str
) -> None:
    packs = UNKNOWN[why](two, tmp_path)
    found = joint_power(packs)
    assert found.power is None
    assert found.why_unknown.startswith(why)
    paths = [pack.path for pack in packs]
    assert f"what they find is not known: {why}" in run("signatures", "show", *paths)
    shown = json.loads(run("signatures", "show", *paths, "-f", "json"))
    assert shown["why_unknown"].startswith(why)
    assert shown["power"] == []
    assert shown["held_out"] is None


def test_show_tells_several_packs_and_what_they_find_together(
    two: tuple[Signature, Signature],
) -> None:
    paths = [pack.path for pack in two]
    text = run("signatures", "show", *paths)
    assert text.count("base model ") == 2
    together = text[text.index("together ") :]
    assert "nulled and plain, with the 120 benign adapters that they have in common" in together
    assert "find 4 of 4 held-out misaligned references at alpha 0.01" in together
    assert "medicine 2/2, sport 2/2" in together
    shown = json.loads(run("signatures", "show", *paths, "-f", "json"))
    assert [pack["id"] for pack in shown["packs"]] == ["nulled", "plain"]
    assert shown["held_out"] is True
    assert [level["found"] for level in shown["power"]] == [4, 4, 4]
    one = json.loads(run("signatures", "show", paths[0], "-f", "json"))
    assert one == shown["packs"][0]
    page = run("signatures", "show", *paths, "-f", "html")
    assert "find 4 of 4 held-out misaligned references at alpha 0.01" in page
    assert page.index('id="together"') < page.index('id="signature-1"')
    anchors = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(anchors)) == len(anchors), "each pack has anchors of its own"
    alone = run("signatures", "show", paths[0], "-f", "html")
    assert 'id="together"' not in alone


def test_packs_of_two_bases_are_not_one_verdict(
    two: tuple[Signature, Signature], tmp_path: Path
) -> None:
    def elsewhere(found: Manifest) -> Manifest:
        base = msgspec.structs.replace(found.base_model, id="other/base")
        return msgspec.structs.replace(found, base_model=base)

    other = changed(two[1], tmp_path / "other", manifest=elsewhere)
    for form in ("text", "json", "html"):
        said = run("signatures", "show", two[0].path, other.path, "-f", form)
        assert "plain for other/base: no verdict rests on both; name packs of one base" in said


def test_reports_and_gates_tell_what_decided(
    two: tuple[Signature, Signature], benign: Path
) -> None:
    packs = [argument for pack in two for argument in ("-s", pack.path)]
    words = "nulled and plain together find 4 of 4 held-out misaligned references at alpha 0.01"
    for form in ("text", "markdown", "html"):
        assert words in " ".join(run("scan", benign, *packs, "-f", form).split())
    report = json.loads(run("scan", benign, *packs, "-f", "json"))
    (joint,) = report["joint"]
    assert joint["signatures"] == ["nulled", "plain"]
    assert joint["power"]["held_out"] is True
    alone = json.loads(run("scan", benign, *packs[:2], "-f", "json"))
    assert alone["joint"] == []
    judged = judge_directory(benign, ScanOptions(list(two)), model="m").attestation
    (by,) = judged.judged_by
    assert by.packs == ["nulled", "plain"]
    assert by.power == 1.0
    (by,) = judge_directory(benign, ScanOptions([two[0]]), model="m").attestation.judged_by
    assert by.packs == ["nulled"]
    assert by.power == 1.0


def test_a_gate_knows_why_the_power_of_several_is_not_known(
    two: tuple[Signature, Signature], benign: Path, tmp_path: Path
) -> None:
    packs = UNKNOWN["first and second share no misaligned reference"](two, tmp_path)
    (by,) = judge_directory(benign, ScanOptions(packs), model="m").attestation.judged_by
    assert by.power is None
    assert by.why_unknown == "first and second share no misaligned reference"


@pytest.mark.parametrize(("missed", "verdict"), [(2, Verdict.CLEAR), (3, Verdict.INCONCLUSIVE)])
def test_packs_that_together_find_less_than_half_clear_nothing(
    two: tuple[Signature, Signature], benign: Path, tmp_path: Path, missed: int, verdict: Verdict
) -> None:
    packs = [changed(pack, tmp_path / pack.id, lowered(missed)) for pack in two]
    result = scan(benign, packs)
    assert result.verdict is verdict
    if verdict is Verdict.INCONCLUSIVE:
        assert "signatures together find 1 of 4 of their misaligned references" in result.reasons[0]


def test_a_pack_that_contradicts_another_takes_its_power(
    two: tuple[Signature, Signature], benign: Path, tmp_path: Path
) -> None:
    """What counts is what they find together, not what the better one finds alone."""

    def far_below(found: Calibration) -> Calibration:
        low = [msgspec.structs.replace(item, score=-1e3) for item in found.references]
        return msgspec.structs.replace(found, references=low)

    against = changed(two[1], tmp_path / "against", far_below)
    assert against.power is not None
    found = joint_power([two[0], against]).power
    assert found is not None
    assert found.found(0.01).count < 2
    assert scan(benign, [two[0]]).verdict is Verdict.CLEAR
    assert scan(benign, [two[0], against]).verdict is Verdict.INCONCLUSIVE
