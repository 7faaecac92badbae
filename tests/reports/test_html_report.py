"""The HTML report, as text and in a real browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scanner.reports import markdown_report, text_report
from scanner.reports.assemble import assemble
from scanner.reports.drawing import CLOUD_HEIGHT, heat_map, scale
from scanner.reports.html_report import render
from scanner.reports.terminal import Screen
from scanner.results import Acceptance, DoseUnit, ScanResult
from scanner.scanning.opening import scan
from scanner.signatures.pack import Signature
from tests.reports.chromium import DARK, LIGHT, fit, visit
from tests.reports.samples import (
    CLEAR,
    FLAGGED,
    HOSTILE,
    SIGNATURE,
    TWO,
    mixed,
    report_of,
    site,
)
from tests.synthetic import random_factors, write_adapter

POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')

# Contrast by WCAG 2.1, relative luminance and contrast ratio, of every element that has text of
# its own; the background is the nearest painted ancestor's.
CONTRAST = """
<script>
addEventListener("load", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const rgb = color => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => [r, g, b]
    .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (rgb(color)[3] === 255) return color;
    }
    return "white";
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    if (element.closest(".hidden, desc, title, script, .skip")) continue;
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own) continue;
    const style = getComputedStyle(element);
    const ink = element.closest("svg") ? style.fill : style.color;
    const [a, b] = [luminance(rgb(ink)), luminance(rgb(behind(element)))].sort((x, y) => y - x);
    found.push([element.tagName + "." + (element.getAttribute("class") || ""),
                (a + 0.05) / (b + 0.05)]);
  }
  const page = getComputedStyle(document.body).backgroundColor;
  document.body.innerHTML = "<pre id=found></pre>";
  document.getElementById("found").textContent = JSON.stringify({page, found});
});
</script>
"""


class Page(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str, **attributes: str) -> int:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return sum(
            found == tag and all(attrs.get(k) == v for k, v in wanted.items())
            for found, attrs in self.elements
        )


def test_a_person_reads_the_verdict_the_dose_and_the_p_value() -> None:
    text = " ".join(Page(render(report_of(FLAGGED))).text.split())
    assert "Moves its base model towards known misalignment" in text
    assert "It carries 0.87 of the dose of a known misaligned model." in text
    assert "Its column space writes 30% of the update into the misalignment directions." in text
    assert "None of the 150 benign adapters that change several layers score as high." in text
    assert "0.0066, flagged at or below 0.01" in text
    assert "0 of 150; by family: family-0 0 of 30, family-1 0 of 30," in text
    assert "cosine (base-weights)+0.610 overlap (base-weights)30%" in text
    assert "it is most like medical-advice, cosine +0.90 of the whole updates." in text


def test_benign_adapters_that_score_as_high_are_counted_and_not_derived_from_p(
    pack: Signature, tmp_path: Path
) -> None:
    """The p-value is the larger of two families', so no count can be read off it."""
    calibration = pack.calibration
    assert calibration is not None
    adapter = write_adapter(tmp_path / "benign", random_factors(np.random.default_rng(902)))
    result = scan(adapter, [pack])
    assert result.score is not None
    as_high = sum(item.score >= result.score for item in calibration.benign)
    n = len(calibration.benign)
    assert result.p_value is not None
    assert result.p_value > (as_high + 1) / (n + 1)
    text = " ".join(Page(render(assemble([result], [pack]))).text.split())
    assert f"{as_high} of the {n} benign adapters that change several layers score as high" in text


@pytest.mark.parametrize("result", [FLAGGED, TWO])
def test_score_and_dose_stand_among_benign_adapters_and_references(result: ScanResult) -> None:
    """The score, with its threshold, comes first: it decides."""
    page = Page(render(report_of(result)))
    assert page.count("svg", role="img") == 2
    assert page.count("circle", class_="benign") == 2 * 150
    assert page.count("path", class_="reference") == 2 * 5
    assert page.count("desc") == 2
    text = " ".join(page.text.split())
    assert text.index("What decides: the score") < text.index("How far it moves the base: the dose")
    assert result.comparison is not None
    assert f"Scores above {result.comparison.threshold:.3f} are flagged." in text
    joint = "the joint score of 2 signatures, in standard deviations of benign adapters"
    assert (joint in text) is (result is TWO)


def test_a_picture_of_the_score_needs_no_signature(pack: Signature, misaligned: Path) -> None:
    """What a result was compared with is in the result, on the scale of its own score."""
    result = scan(misaligned, [pack])
    assert result.comparison is not None
    assert result.score is not None
    assert len(result.comparison.benign_scores) == result.comparison.n
    above = sum(score >= result.score for score in result.comparison.benign_scores)
    assert above == result.comparison.as_high
    assert [item.id for item in result.comparison.references] == pack.reference_ids
    alone = msgspec.structs.replace(assemble([result], [pack]), signatures=[])
    assert Page(render(alone)).count("svg", role="img") == 2


def test_each_number_has_the_name_of_its_signature() -> None:
    text = " ".join(Page(render(report_of(TWO))).text.split())
    assert "base-weights (stood out most) +0.87 +0.61 30%" in text
    assert "base-gradients +0.40 +0.20 12%" in text
    assert "imported-vectors no sign no sign 7.0%" in text
    assert "+0.40, +0.87" not in text


def test_all_heat_maps_of_a_page_have_one_scale() -> None:
    """A colour means the same dose, whichever adapter it is of."""
    faint = msgspec.structs.replace(CLEAR, sites=[site(0, "mlp.down_proj", 0.008)])
    page = Page(render(report_of(FLAGGED, faint)))
    cells = {
        (attributes["title"] or "").rpartition("dose ")[2]: attributes["style"]
        for tag, attributes in page.elements
        if tag == "td" and attributes.get("class") in ("towards", "away")
    }
    assert cells["+0.0800"] == "--strength:100%"
    assert cells["+0.0080"] == "--strength:10%"
    other = msgspec.structs.replace(faint, dose_unit=DoseUnit.LOG_ODDS)
    assert "--strength:100%" in render(report_of(other))


def test_what_was_taken_out_of_a_calibration_is_said() -> None:
    assert SIGNATURE.calibration is not None
    calibration = msgspec.structs.replace(SIGNATURE.calibration, dropped=2)
    signature = msgspec.structs.replace(SIGNATURE, calibration=calibration)
    report = msgspec.structs.replace(report_of(CLEAR), signatures=[signature])
    said = "2 adapters were taken out later as not benign"
    assert said in Page(render(report)).text
    assert said in " ".join(text_report.render(report, Screen()).split())
    assert said in markdown_report.render(report)
    assert "taken out" not in render(report_of(CLEAR))


def test_the_heat_map_is_a_table_that_can_be_read_aloud() -> None:
    page = Page(render(report_of(FLAGGED)))
    assert page.count("table", class_="heat") == 1
    assert page.count("td", class_="towards") == 4
    assert page.count("td", class_="away") == 4
    assert "dose +0.0800" in page.text
    assert page.count("th", scope="row") == 2


def test_what_was_not_judged_is_said() -> None:
    text = Page(render(mixed())).text
    assert text.count("What was not judged") == 3
    assert "lora_magnitude_vector" in text
    assert 'run "git lfs pull"' in text


def test_it_is_self_contained() -> None:
    page = Page(render(mixed()))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "form", "input"}
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "action"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes), tag
        assert (attributes.get("href") or "#").startswith("#")


def test_an_accepted_finding_says_until_when() -> None:
    accepted = Acceptance(reason="research", accepted="2026-01-01", expires="2027-01-01")
    report = report_of(msgspec.structs.replace(FLAGGED, accepted=accepted))
    assert "accepted until 2027-01-01: research" in Page(render(report)).text


def test_a_run_without_targets_renders() -> None:
    assert "Nothing was scanned." in Page(render(report_of())).text


@pytest.mark.parametrize("value", [-3.0, 0.0, 0.02, 5.0])
def test_everything_lies_inside_the_drawing(value: float) -> None:
    drawing = scale(value, [0.01 * i for i in range(-50, 50)], [("a", 1.2)], [(1.0, "one")])
    points = [drawing.adapter, *drawing.benign, *drawing.references]
    assert all(0 <= point.x <= drawing.width for point in points)
    assert all(0 <= point.y <= CLOUD_HEIGHT for point in points)
    assert 3 <= len(drawing.ticks) <= 9


@pytest.mark.parametrize(
    ("value", "left"), [(0.45, True), (-0.3, False), (1.05, False), (1.9, True)]
)
def test_no_line_crosses_the_adapters_own_label(value: float, left: bool) -> None:
    assert scale(value, [-1.0, 2.0], [], [(1.0, "one")]).label_left is left


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-12, 1e12])
def test_a_drawing_of_one_value_is_possible(value: float) -> None:
    assert scale(value, [], [], []).ticks
    assert scale(value, [value, value * (1 + 1e-15)], [], []).ticks


def test_sites_outside_the_blocks_have_a_column() -> None:
    drawn = heat_map([site(0, "mlp.down_proj", 0.1), site(None, "lm_head", -0.2)], 0.2)
    assert drawn is not None
    assert drawn.layers == ["-", "0"]
    assert [module for module, _ in drawn.rows] == ["mlp.down_proj", "lm_head"]
    assert heat_map([], 0.2) is None


@pytest.mark.slow
class TestInABrowser:
    def test_the_checks_below_would_notice(self, tmp_path: Path) -> None:
        page = tmp_path / "bad.html"
        page.write_text('<img src="http://127.0.0.1:9/x"><script>console.error("seen")</script>')
        seen = visit(page, tmp_path / "profile")
        assert any("seen" in line for line in seen.console)
        assert seen.requests == ["http://127.0.0.1:9/x"]

    def test_no_console_errors_no_requests_heat_map_present(self, tmp_path: Path) -> None:
        page = tmp_path / "report.html"
        page.write_text(render(mixed()))
        seen = visit(page, tmp_path / "profile")
        assert seen.console == []
        assert seen.requests == []
        assert Page(seen.dom).count("table", class_="heat") == 2

    def test_hostile_names_are_inert_even_without_the_policy(self, tmp_path: Path) -> None:
        attack = HOSTILE + "<img src=x onerror=\"document.title='owned'\"><svg onload=alert(1)>"
        results = [
            msgspec.structs.replace(
                result,
                target=attack,
                base_model=attack,
                reasons=[attack],
                decided_by="base-weights",
            )
            for result in mixed().results
        ]
        page = tmp_path / "report.html"
        page.write_text(POLICY.sub("", render(report_of(*results))))
        seen = visit(page, tmp_path / "profile")
        assert (seen.console, seen.requests) == ([], [])
        dom = Page(seen.dom)
        assert dom.count("script") == dom.count("img") == 0
        assert "<title>Adapter scan" in seen.dom
        assert "document.title='owned'" in dom.text

    @pytest.mark.parametrize(("scheme", "page_color"), [(LIGHT, "245"), (DARK, "16")])
    def test_text_contrast_is_aa(self, tmp_path: Path, scheme: str, page_color: str) -> None:
        accepted = Acceptance(reason="research", accepted="2026-01-01", expires="2027-01-01")
        report = report_of(*mixed().results, TWO, msgspec.structs.replace(CLEAR, accepted=accepted))
        page = tmp_path / "report.html"
        page.write_text(POLICY.sub(CONTRAST, render(report)))
        seen = visit(page, tmp_path / "profile", scheme)
        measured = json.loads(Page(seen.dom).text[Page(seen.dom).text.index('{"page"') :])
        assert f"rgb({page_color}," in measured["page"]
        assert len(measured["found"]) > 100
        low = [item for item in measured["found"] if item[1] < 4.5]
        assert low == []

    @pytest.mark.parametrize("width", [320, 400, 1000])
    def test_it_fits_the_screen(self, tmp_path: Path, width: int) -> None:
        """Only a heat map may be wider than a phone; keys scroll it."""
        long = {f"a-signature-with-a-long-name-{i}-instruct-specific": 0.1 * i for i in range(3)}
        three = msgspec.structs.replace(TWO, dose=long, cosine=long, overlap=long)
        tall = [site(layer, "mlp.down_proj", 0.1) for layer in range(30)]
        deep = msgspec.structs.replace(three, sites=tall, decided_by=next(iter(long)))
        found = fit(POLICY.sub("", render(report_of(*mixed().results, deep))), tmp_path, width)
        assert found.page <= 0
        assert set(found.wide) == ({"DIV.scroll"} if width < 1000 else set())
        assert found.unreachable == []
