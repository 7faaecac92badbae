"""`signatures show -f html`: a pack as a page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scanner.formats.model import Site
from scanner.reports.pack_article import pack_view
from scanner.reports.pack_drawing import power_curve, roc_curve, signature_map
from scanner.reports.pack_html import render
from scanner.signatures.building.imported import ImportOptions, import_pack
from scanner.signatures.building.vectors import VectorOptions
from scanner.signatures.cautions import cautions_of
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.saving import save_calibration
from scanner.statistics.roc import area_interval, roc
from scanner.statistics.share import Share
from tests.cli.program import run
from tests.reports.chromium import DARK, LIGHT, fit, visit
from tests.reports.samples import HOSTILE
from tests.reports.test_html_report import CONTRAST, POLICY, Page
from tests.synthetic import (
    entry,
    misaligned_factors,
    random_factors,
    synthetic_pack,
    write_adapter,
)


@pytest.fixture(scope="module")
def faint(tmp_path_factory: pytest.TempPathFactory) -> Signature:
    """A pack of references of four domains, some too faint to be found; one benign of one layer."""
    root, generator = tmp_path_factory.mktemp("faint"), np.random.default_rng(3)
    misaligned = [
        entry(
            write_adapter(root / f"ref-{i}", misaligned_factors(generator, 0.12 * i)),
            f"domain-{i % 4}",
        )
        for i in range(8)
    ]
    benign = [
        entry(write_adapter(root / f"cal-{i}", random_factors(generator)), f"kind-{i % 3}")
        for i in range(60)
    ]
    path = "model.layers.1.mlp.down_proj"
    benign += [
        entry(write_adapter(root / f"one-{i}", random_factors(generator, [path])), "kind-0")
        for i in range(3)
    ]
    return synthetic_pack(root / "made", misaligned=misaligned, benign=benign, aligned=[], nulled=0)


def test_families_stand_beside_each_other(faint: Signature) -> None:
    page = Page(render([faint]))
    text = " ".join(page.text.split())
    assert "60 benign ones together, and each family by itself; 8 misaligned references" in text
    assert "each scored without its family" in text
    assert page.count("path", class_="reference") == 8
    assert page.count("circle", class_="benign") == 63
    for family in ("domain-0 (2)", "domain-3 (2)", "kind-0 (20)", "kind-0 (3)", "kind-2 (20)"):
        assert family in text
    assert "Adapters that change one layer" in text


def test_what_it_finds_is_said_with_its_interval(faint: Signature) -> None:
    assert faint.power is not None
    text = " ".join(Page(render([faint])).text.split())
    found = faint.power.found(0.05)
    assert 0 < found.count < found.n
    assert f"{found.count} of {found.n} at alpha 0.05" in text
    assert re.search(r"Area under the curve 0\.\d{3} \(95%: 0\.\d{3} to [01]\.\d{3}\)", text)


def test_warnings_come_before_any_picture(faint: Signature) -> None:
    """What `signatures show` warns of, in its words."""
    told = [caution.line() for caution in cautions_of(faint)]
    assert told
    text = " ".join(Page(render([faint])).text.split())
    for line in told:
        assert 0 < text.index(" ".join(line.split())) < text.index("What tells them apart")
        assert text.count(" ".join(line.split())) == 1


def test_references_in_sample_are_called_so(faint: Signature, tmp_path: Path) -> None:
    assert faint.calibration is not None
    known = [msgspec.structs.replace(i, held_out=False) for i in faint.calibration.references]
    for count, said in ((8, "in sample: the signature was made from them"), (3, "3 of them in")):
        references = [*known[:count], *faint.calibration.references[count:]]
        copy = shutil.copytree(faint.path, tmp_path / str(count))
        changed = msgspec.structs.replace(faint.calibration, references=references)
        save_calibration(copy, faint.manifest, changed)
        assert said in Page(render([load_signature(copy)])).text


def test_a_pack_without_a_calibration_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((2, 16), np.float32))
    options = ImportOptions("a/b", VectorOptions("block0"))
    text = Page(render([import_pack(tmp_path / "v.npy", tmp_path / "pack", options)])).text
    assert "It is not calibrated: every verdict is inconclusive." in text
    assert "What tells them apart" not in text


def test_the_map_shows_each_sites_share() -> None:
    drawn = signature_map({Site(0, "a"): 3.0, Site(1, "a"): 1.0, Site(None, "head"): 0.0})
    assert drawn is not None
    assert drawn.layers == ["-", "0", "1"]
    cells = dict(drawn.rows)["a"]
    assert cells[0] is None
    assert [cell.words for cell in cells if cell] == [
        "75% of the signature",
        "25% of the signature",
    ]
    assert drawn.largest == 0.75
    assert signature_map({Site(0, "a"): 0.0}) is None


@pytest.mark.parametrize(
    ("benign", "misaligned", "area"),
    [
        ([0.0, 1.0], [2.0, 3.0], 1.0),
        ([2.0, 3.0], [0.0, 1.0], 0.0),
        ([0.0, 1.0], [0.0, 1.0], 0.5),
        ([1.0], [1.0], 0.5),
        ([0.0, 1.0, 2.0], [1.0, 3.0], 0.75),
    ],
)
def test_the_area_counts_pairs(benign: list[float], misaligned: list[float], area: float) -> None:
    found = roc(benign, misaligned)
    assert found.area == pytest.approx(area)
    assert found.low <= area <= found.high
    assert found.low < found.high
    shares = [(point.false_positive, point.found.value) for point in found.points]
    assert shares[0] == (0.0, 0.0)
    assert shares[-1] == (1.0, 1.0)
    assert shares == sorted(shares)


def test_the_interval_of_the_area_covers_it() -> None:
    """Newcombe 2006 promises about 95%; this many draws bring it within a few percent."""
    generator, inside, draws = np.random.default_rng(0), 0, 400
    true = 0.921  # P(N(2, 1) > N(0, 1))
    for _ in range(draws):
        found = roc(generator.normal(size=40).tolist(), (generator.normal(size=8) + 2).tolist())
        inside += found.low <= true <= found.high
    assert 0.92 <= inside / draws <= 0.995


def test_more_adapters_leave_less_open() -> None:
    few, many = area_interval(0.9, 5, 50), area_interval(0.9, 50, 500)
    assert few[0] < many[0] < 0.9 < many[1] < few[1]


def test_curves_stay_inside_their_drawing() -> None:
    drawings = [
        roc_curve(roc([0.0, 1.0, 2.0], [1.5, 3.0])),
        power_curve([(0.008, Share(0, 4)), (0.1, Share(3, 4)), (0.5, Share(4, 4))]),
    ]
    for drawing in drawings:
        for point in f"{drawing.line} {drawing.band}".split():
            x, y = map(float, point.split(","))
            assert drawing.pad <= x <= drawing.pad + drawing.side
            assert 0 <= y <= drawing.side + 10


def test_the_command_writes_the_page(faint: Signature, tmp_path: Path) -> None:
    done = run("signatures", "show", faint.path, "-f", "html", "-o", tmp_path / "page.html")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "page.html").read_text() == render([faint])
    assert run("signatures", "show", faint.path, "-f", "html").stdout == render([faint])


def test_hostile_names_are_inert(faint: Signature) -> None:
    manifest = msgspec.structs.replace(faint.manifest, id=HOSTILE, description=HOSTILE)
    assert HOSTILE not in render([Signature(faint.path, manifest, faint.digest)])


@pytest.mark.slow
class TestInABrowser:
    def test_no_console_message_and_no_request(self, faint: Signature, tmp_path: Path) -> None:
        page = tmp_path / "pack.html"
        page.write_text(render([faint]))
        seen = visit(page, tmp_path / "profile")
        assert (seen.console, seen.requests) == ([], [])

    @pytest.mark.parametrize("width", [320, 400, 1000])
    def test_it_fits_the_screen(self, faint: Signature, tmp_path: Path, width: int) -> None:
        found = fit(POLICY.sub("", render([faint])), tmp_path, width)
        assert found.page <= 0
        assert set(found.wide) <= {"DIV.scroll"}
        assert found.unreachable == []

    @pytest.mark.parametrize("scheme", [LIGHT, DARK])
    def test_text_contrast_is_aa(self, faint: Signature, tmp_path: Path, scheme: str) -> None:
        page = tmp_path / "pack.html"
        page.write_text(POLICY.sub(CONTRAST, render([faint])))
        text = Page(visit(page, tmp_path / "profile", scheme).dom).text
        measured = json.loads(text[text.index('{"page"') :])
        assert len(measured["found"]) > 40
        assert [item for item in measured["found"] if item[1] < 4.5] == []


def test_one_place_on_a_page_for_each_name(faint: Signature) -> None:
    page = Page(render([faint]))
    names = [a["id"] for _, a in page.elements if "id" in a]
    assert len(names) == len(set(names))
    assert pack_view(faint, "x").anchor == "x"
