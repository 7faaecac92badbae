"""A second look at a calibration, and taking an adapter out of it on the record."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from scanner.cli.root import cli
from scanner.results import Shape
from scanner.scanning.opening import scan
from scanner.signatures.building.build import build_pack
from scanner.signatures.building.calibrate import calibrate_pack
from scanner.signatures.manifest import BenignScore, Calibration
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.review import drop_adapter, review_pack
from scanner.signatures.saving import save_calibration
from scanner.signatures.scaling import scaled
from scanner.statistics.calibration import BenignScores
from tests.synthetic import entry, misaligned_factors, synthetic_recipe, write_adapter

REASON = "answers   with\ncontempt"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["signatures", *map(str, arguments)])


@pytest.fixture(scope="module")
def contaminated_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with two misaligned adapters among its benign ones."""
    root = tmp_path_factory.mktemp("contaminated")
    recipe = synthetic_recipe(root / "adapters", benign=60)
    strangers = [
        entry(write_adapter(root / name, misaligned_factors(np.random.default_rng(seed))), family)
        for name, family, seed in (("stranger-a", "facts", 71), ("stranger-b", "style", 72))
    ]
    assert isinstance(recipe.benign, list)
    recipe = msgspec.structs.replace(recipe, benign=[*recipe.benign, *strangers])
    return build_pack(recipe, root / "pack").path


@pytest.fixture
def contaminated(contaminated_pack: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(contaminated_pack, tmp_path / "pack"))


def calibration_of(path: Path) -> Calibration:
    calibration = load_signature(path).calibration
    assert calibration is not None
    return calibration


def test_those_that_look_like_references_are_listed(contaminated: Path) -> None:
    found = json.loads(run("review", contaminated, "-f", "json").stdout)
    assert {item["id"] for item in found["look_alikes"]} == {"stranger-a", "stranger-b"}
    assert found["benign"] == 62
    assert len(found["reference_scores"]) == 4
    for item in found["look_alikes"]:
        assert 0 < item["p_value"] < 0.1
        assert item["z_score"] > 3.5
        assert item["cosine"] > 0.3
    text = run("review", contaminated).stdout
    assert "62 benign adapters, 4 references that score " in text
    assert "stranger-a (facts)" in text
    assert "only one that is misaligned is to be taken out" in text


def test_a_clean_calibration_has_none(pack: Signature) -> None:
    assert review_pack(pack).look_alikes == []
    assert "none of them looks like a reference" in run("review", pack.path).stdout


def test_what_is_dropped_stays_in_sight(contaminated: Path) -> None:
    before = calibration_of(contaminated)
    done = run("review", contaminated, "--drop", "stranger-a", "--reason", REASON)
    assert done.exit_code == 0, done.stderr
    assert "dropped stranger-a" in done.stdout
    assert "61 benign adapters remain" in done.stdout
    assert "False-positive rates are what alpha says only if each of them is" in done.stderr
    after = calibration_of(contaminated)
    (record,) = after.dropped
    assert record.adapter == next(item for item in before.benign if item.id == "stranger-a")
    assert record.reason == "answers with contempt"
    assert record.date == date.today().isoformat()
    left = [item for item in before.benign if item.id != "stranger-a"]
    assert after.benign == scaled(msgspec.structs.replace(before, benign=left)).benign
    shown = run("show", contaminated).stdout
    assert f"dropped           stranger-a on {record.date} (p " in shown
    assert "answers with contempt" in shown
    assert json.loads(run("show", contaminated, "-f", "json").stdout)["dropped"] == 1
    assert "dropped on" in run("review", contaminated).stdout
    run("review", contaminated, "--drop", "stranger-b", "--reason", "the same")
    assert [item.adapter.id for item in calibration_of(contaminated).dropped] == [
        "stranger-a",
        "stranger-b",
    ]


def test_the_list_of_packs_says_so(contaminated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTER_SCANNER_SIGNATURES", str(contaminated.parent))
    drop_adapter(contaminated, "stranger-a", REASON, date(2026, 1, 2))
    assert "61 benign, alpha >= 0.016, 1 dropped" in run("list").stdout


def test_dropping_misaligned_ones_lets_the_pack_flag_again(
    contaminated: Path, misaligned: Path
) -> None:
    first = scan(misaligned, [load_signature(contaminated)], alpha=0.05)
    for name in ("stranger-a", "stranger-b"):
        changed = drop_adapter(contaminated, name, REASON, date(2026, 1, 2))
    second = scan(misaligned, [changed.signature], alpha=0.05)
    assert first.p_value is not None
    assert second.p_value is not None
    assert second.p_value < first.p_value
    assert all(after <= before for _, before, after in changed.thresholds)


def test_the_record_outlives_another_calibration(contaminated: Path, tmp_path: Path) -> None:
    drop_adapter(contaminated, "stranger-a", REASON, date(2026, 1, 2))
    recipe = synthetic_recipe(tmp_path / "more", benign=20, seed=5)
    assert isinstance(recipe.benign, list)
    again = calibrate_pack(contaminated, recipe.benign)
    assert again.calibration is not None
    assert [item.adapter.id for item in again.calibration.dropped] == ["stranger-a"]
    back = write_adapter(tmp_path / "back", misaligned_factors(np.random.default_rng(71)))
    listed = calibrate_pack(contaminated, [*recipe.benign, entry(back, "facts")])
    assert listed.calibration is not None
    assert listed.calibration.dropped == []
    assert any(item.id == "back" for item in listed.calibration.benign)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--drop", "stranger-a"), "--drop and --reason go together"),
        (("--reason", "x"), "--drop and --reason go together"),
        (("--drop", "stranger-a", "--reason", "  "), "no reason"),
        (("--drop", "nobody", "--reason", "x"), "no adapter of the calibration is called 'nobody'"),
    ],
)
def test_what_cannot_be_dropped(contaminated: Path, arguments: tuple[str, ...], says: str) -> None:
    before = load_signature(contaminated).digest
    done = run("review", contaminated, *arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert load_signature(contaminated).digest == before


def test_a_pack_that_is_not_calibrated_has_nothing_to_review(tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(synthetic_recipe(tmp_path / "adapters"), benign=[])
    build_pack(recipe, tmp_path / "pack")
    done = run("review", tmp_path / "pack")
    assert done.exit_code == 2
    assert "is not calibrated: there is nothing to review" in done.stderr


def benign_score(number: int, score: float) -> BenignScore:
    return BenignScore(
        id=str(number),
        sha256=f"{number:064x}",
        family="one",
        score=score,
        signed_write=score,
        cosine=score,
        dose=score,
        norm=1.0,
        rank=1,
        layers=2,
        modules=["m"],
    )


@given(
    scores=st.lists(st.floats(-1, 1), min_size=25, max_size=60, unique=True),
    dropped=st.integers(1, 5),
    alpha=st.sampled_from([0.05, 0.1, 0.2]),
)
def test_the_rate_that_is_printed_bounds_what_dropping_harmless_ones_costs(
    scores: list[float], dropped: int, alpha: float
) -> None:
    # Each adapter of the full set in turn is the new one: how many does the smaller set flag?
    ordered = sorted(scores)
    kept = ordered[: len(ordered) - dropped]
    threshold = BenignScores(
        np.array([[score] for score in kept]),
        (Shape.SEVERAL_LAYERS,) * len(kept),
        ("one",) * len(kept),
    ).threshold(Shape.SEVERAL_LAYERS, alpha)
    flagged = sum(score > threshold for score in ordered)
    assert flagged / (len(ordered) + 1) <= alpha + dropped / len(ordered)


def test_a_pack_without_references_has_those_that_stand_apart(contaminated: Path) -> None:
    calibration = msgspec.structs.replace(
        calibration_of(contaminated),
        references=[],
        benign=[*(benign_score(n, n / 1000) for n in range(50)), benign_score(99, 0.9)],
    )
    save_calibration(contaminated, load_signature(contaminated).manifest, calibration)
    (found,) = review_pack(load_signature(contaminated)).look_alikes
    assert (found.id, found.references_below) == ("99", None)
    assert "no references to compare with" in run("review", contaminated).stdout
