"""Two packs beside each other: directions, scores of the same adapters, verdicts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.stats import spearmanr

from scanner.errors import UsageError
from scanner.formats.model import Site
from scanner.geometry import Direction
from scanner.reports import compare_html, compare_text
from scanner.reports.terminal import Screen
from scanner.signatures.building.imported import ImportOptions, import_pack
from scanner.signatures.building.vectors import VectorOptions
from scanner.signatures.comparing import PackComparison, compare_packs
from scanner.signatures.manifest import BaseModel
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.saving import save_calibration, save_pack
from scanner.statistics.ranks import rank_correlation
from tests.cli.program import run
from tests.reports.chromium import DARK, LIGHT, fit, visit
from tests.reports.samples import HOSTILE
from tests.reports.test_html_report import CONTRAST, POLICY, Page
from tests.synthetic import BASE, synthetic_pack


@pytest.fixture(scope="module")
def other(pack: Signature, tmp_path_factory: pytest.TempPathFactory) -> Signature:
    """A pack of the same adapters, with fewer of its own directions nulled."""
    return synthetic_pack(tmp_path_factory.mktemp("other"), id="other", nulled=0, rank=1)


def whole(direction: Direction) -> np.ndarray:
    return np.asarray((direction.u * direction.s) @ direction.v.T, np.float64)


def test_cosines_are_those_of_whole_directions(pack: Signature, other: Signature) -> None:
    found = compare_packs(pack, other)
    inner = np.zeros(3)
    for site in found.sites:
        key = Site(site.layer, site.module)
        one, two = whole(pack.direction(key)), whole(other.direction(key))
        products = np.array([np.vdot(one, two), np.vdot(one, one), np.vdot(two, two)])
        cosine = products[0] / np.sqrt(products[1] * products[2])
        assert site.cosine == pytest.approx(cosine, abs=1e-5)
        inner += products
    assert found.cosine == pytest.approx(inner[0] / np.sqrt(inner[1] * inner[2]), abs=1e-5)
    assert len(found.sites) == len(pack.sites)
    assert (found.only_first, found.only_second) == (0, 0)


def test_a_pack_agrees_with_itself(pack: Signature) -> None:
    found = compare_packs(pack, pack)
    assert found.cosine == pytest.approx(1.0)
    assert all(site.shared_columns == pytest.approx(1.0) for site in found.sites)
    assert found.benign_correlation == pytest.approx(1.0)
    assert (found.count("benign"), found.count("misaligned")) == (120, 4)
    assert found.differing == []
    assert all(item.first.flagged for item in found.adapters if item.role == "misaligned")


def lowered(pack: Signature, root: Path, name: str) -> Signature:
    """A copy of a pack that scores one of its references, and one benign adapter, otherwise."""
    calibration = pack.calibration
    assert calibration is not None
    benign = sorted(calibration.benign, key=lambda item: item.score)
    changed = msgspec.structs.replace(
        calibration,
        benign=[
            msgspec.structs.replace(benign[0], score=benign[-1].score + 1, dose=1.0),
            *benign[1:],
        ],
        references=[
            msgspec.structs.replace(calibration.references[0], score=benign[5].score),
            *calibration.references[1:],
        ],
    )
    copy = shutil.copytree(pack.path, root / name)
    save_calibration(copy, msgspec.structs.replace(pack.manifest, id=name), changed)
    return load_signature(copy)


def test_verdicts_that_differ_are_named(pack: Signature, tmp_path: Path) -> None:
    """Each benign adapter is compared with the others alone, so that it can be flagged at all."""
    second = lowered(pack, tmp_path, "second")
    assert pack.calibration is not None
    ordered = sorted(pack.calibration.benign, key=lambda item: item.score)
    lowest, highest = ordered[0].id, ordered[-1].id
    found = compare_packs(pack, second)
    assert {item.id for item in found.differing} == {lowest, highest, "ref-0"}
    by_id = {item.id: item for item in found.differing}
    assert by_id[lowest].second.flagged
    assert by_id[lowest].second.p_value == pytest.approx(1 / 120)
    assert by_id[highest].first.flagged
    assert by_id["ref-0"].first.flagged
    text = " ".join(compare_text.render(found, Screen()).split())
    assert "at alpha 0.01 3 of 124 adapters are flagged by one pack and not by the other" in text
    assert f"{lowest} (benign): flagged by the second (p 0.0083), not by the first" in text
    page = Page(compare_html.render(found)).text
    assert lowest in page
    assert "ref-0" in page


def test_a_level_that_both_support_is_taken(pack: Signature, tmp_path: Path) -> None:
    assert pack.calibration is not None
    few = msgspec.structs.replace(pack.calibration, benign=pack.calibration.benign[:40])
    copy = shutil.copytree(pack.path, tmp_path / "few")
    save_calibration(copy, pack.manifest, few)
    small = load_signature(copy)
    assert compare_packs(pack, small).alpha == pytest.approx(1 / 41)
    assert compare_packs(pack, small, 0.05).alpha == 0.05
    for alpha in (0.01, 0.0, 1.0, float("nan")):
        with pytest.raises(UsageError, match=r"ask for alpha >= 0\.02439"):
            compare_packs(pack, small, alpha)


def test_packs_of_two_bases_are_not_compared(pack: Signature, tmp_path: Path) -> None:
    copy = shutil.copytree(pack.path, tmp_path / "foreign")
    base = BaseModel(id="else/where", layers=2, shapes=pack.manifest.base_model.shapes)
    assert pack.calibration is not None
    manifest = msgspec.structs.replace(pack.manifest, base_model=base)
    save_calibration(copy, manifest, pack.calibration)
    with pytest.raises(UsageError, match=r"is for synthetic-lab/tiny-base, .* for else/where"):
        compare_packs(pack, load_signature(copy))


def unsigned(root: Path, pack: Signature) -> Signature:
    """Vectors that are the first column of a pack's directions where both have some."""
    vectors = {
        f"layer_{layer}": pack.direction(Site(layer, "mlp.down_proj")).u[:, 0].copy()
        for layer in (0, 1)
    }
    save_file(vectors, root / "v.safetensors")
    options = ImportOptions(BASE, VectorOptions("block0"), modules=("mlp.down_proj",))
    return import_pack(root / "v.safetensors", root / "unsigned", options)


def test_without_a_sign_column_spaces_are_compared(pack: Signature, tmp_path: Path) -> None:
    found = compare_packs(pack, unsigned(tmp_path, pack))
    assert found.cosine is None
    assert [site.cosine for site in found.sites] == [None, None]
    assert [site.shared_columns for site in found.sites] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert found.only_first == 4
    assert (found.alpha, found.adapters, found.thresholds) == (None, [], {})
    for text in (compare_text.render(found, Screen()), Page(compare_html.render(found)).text):
        assert "one of the packs has no sign" in " ".join(text.split())
        assert "not calibrated" in text


def test_packs_without_a_site_in_common(pack: Signature, tmp_path: Path) -> None:
    base = pack.manifest.base_model
    manifest = msgspec.structs.replace(pack.manifest, id="elsewhere", files={}, references=[])
    direction = Direction(np.eye(8, 1), np.ones(1), np.eye(6, 1))
    save_pack(tmp_path / "e", manifest, {Site(0, "mlp.up_proj"): direction})
    found = compare_packs(pack, load_signature(tmp_path / "e"))
    assert (found.cosine, found.sites, found.only_second) == (None, [], 1)
    assert "no site has one in both" in compare_text.render(found, Screen())
    assert base.id in compare_html.render(found)


@pytest.mark.parametrize("tied", [False, True])
def test_the_rank_correlation_is_spearmans(tied: bool) -> None:
    generator = np.random.default_rng(8)
    first, second = generator.normal(size=(2, 50))
    if tied:
        first, second = np.round(first), np.round(second)
    found = rank_correlation(first.tolist(), second.tolist())
    assert found == pytest.approx(spearmanr(first, second).statistic)
    assert rank_correlation([1.0], [2.0]) is None
    assert rank_correlation([1.0, 1.0], [2.0, 3.0]) is None


def test_the_command(pack: Signature, other: Signature, tmp_path: Path) -> None:
    done = run("signatures", "compare", pack.path, other.path, "--alpha", "0.05", "-f", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["first"], found["second"]) == (pack.id, "other")
    assert len(found["adapters"]) == 124
    page = tmp_path / "page.html"
    run("signatures", "compare", pack.path, other.path, "-f", "html", "-o", page)
    assert page.read_text() == compare_html.render(compare_packs(pack, other))
    refused = run("signatures", "compare", pack.path, other.path, "--alpha", "0.0001")
    assert refused.returncode == 2
    assert "--alpha: alpha 0.0001 is not supported" in refused.stderr


@pytest.mark.parametrize("width", [60, 80])
def test_lines_fit_the_screen(pack: Signature, tmp_path: Path, width: int) -> None:
    found = compare_packs(pack, lowered(pack, tmp_path, "second"))
    for line in compare_text.render(found, Screen(width=width)).splitlines():
        assert len(line) <= width, line


def hostile(pack: Signature, root: Path) -> PackComparison:
    found = compare_packs(pack, lowered(pack, root, "second"))
    return msgspec.structs.replace(
        found,
        first=HOSTILE,
        adapters=[msgspec.structs.replace(i, id=HOSTILE, family=HOSTILE) for i in found.adapters],
    )


def test_hostile_names_are_inert(pack: Signature, tmp_path: Path) -> None:
    found = hostile(pack, tmp_path)
    assert "<script>" not in compare_html.render(found)
    assert "\x1b" not in compare_text.render(found, Screen())


@pytest.mark.slow
def test_the_page_in_a_browser(pack: Signature, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(compare_html.render(compare_packs(pack, lowered(pack, tmp_path, "second"))))
    seen = visit(page, tmp_path / "profile")
    assert (seen.console, seen.requests) == ([], [])
    found = fit(POLICY.sub("", page.read_text()), tmp_path / "fit", 400)
    assert found.page <= 0
    assert set(found.wide) <= {"DIV.scroll"}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_text_contrast_is_aa(pack: Signature, tmp_path: Path, scheme: str) -> None:
    page = tmp_path / "page.html"
    text = compare_html.render(compare_packs(pack, lowered(pack, tmp_path, "second")))
    page.write_text(POLICY.sub(CONTRAST, text))
    shown = Page(visit(page, tmp_path / "profile", scheme).dom).text
    measured = json.loads(shown[shown.index('{"page"') :])
    assert len(measured["found"]) > 20
    assert [item for item in measured["found"] if item[1] < 4.5] == []
