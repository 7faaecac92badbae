"""What `import scanner` gives: objects that show and export themselves, and errors in Python."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import msgspec
import pytest

import scanner
from scanner import Signature, UsageError, load_signature, scan
from scanner.errors import MissingExtraError
from scanner.reports.json_report import render as render_json
from scanner.reports.notebook import result_card
from scanner.version import version
from tests.cli.program import run
from tests.reports.chromium import visit
from tests.reports.samples import CLEAR, ERROR, FLAGGED, HOSTILE, INCONCLUSIVE, NASTY, report_of
from tests.reports.test_html_report import Page

RESULTS = [FLAGGED, CLEAR, INCONCLUSIVE, ERROR, NASTY]


def test_the_version_is_the_installed_one() -> None:
    assert scanner.__version__ == version()
    assert "__version__" in dir(scanner)


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_is_one_short_line(result: scanner.ScanResult) -> None:
    shown = repr(result)
    assert shown.startswith(f"<ScanResult {result.verdict.value}: ")
    assert len(shown) < 160
    assert "\n" not in shown


def test_the_line_has_the_numbers_that_are_known() -> None:
    assert repr(FLAGGED) == ("<ScanResult flagged: 'adapters/bad-advice', p 0.0066, dose +0.87>")
    assert repr(ERROR) == "<ScanResult error: 'adapters/pointer'>"


def test_a_signature_is_one_short_line_and_is_not_read_for_it(pack: Signature) -> None:
    fresh = load_signature(pack.path)
    fresh.close()
    assert repr(fresh) == (
        "<Signature 'synthetic-weights' for 'synthetic-lab/tiny-base': weights, rank 2, "
        "4 references>"
    )
    assert not fresh.is_open


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_as_dicts_is_its_entry_in_the_json_report(result: scanner.ScanResult) -> None:
    entry = json.loads(render_json(report_of(result)))["results"][0]
    assert json.loads(json.dumps(result.to_dict())) == entry


def test_a_signature_as_dicts_has_its_calibration(pack: Signature) -> None:
    found = json.loads(json.dumps(pack.to_dict()))
    assert found["digest"] == pack.digest
    assert found["manifest"]["id"] == pack.id
    assert len(found["calibration"]["benign"]) == 120


def test_evidence_by_site_as_a_data_frame() -> None:
    pytest.importorskip("pandas")
    frame = FLAGGED.to_frame()
    assert list(frame["dose"]) == [site.dose for site in FLAGGED.sites]
    assert set(frame.columns) == {"layer", "module", "rank", "norm", "dose", "cosine", "overlap"}
    assert list(ERROR.to_frame().columns) == list(frame.columns)


def test_scores_of_a_pack_as_a_data_frame(pack: Signature) -> None:
    pytest.importorskip("pandas")
    frame = pack.to_frame()
    assert dict(frame["role"].value_counts()) == {"benign": 120, "misaligned": 4}
    assert pack.calibration is not None
    highest = max(item.score for item in pack.calibration.benign)
    assert frame[frame["role"] == "benign"]["score"].max() == highest


def test_without_pandas_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        FLAGGED.to_frame()


class TestInANotebook:
    @pytest.mark.parametrize("result", RESULTS)
    def test_a_result_is_a_card(self, result: scanner.ScanResult) -> None:
        card = result._repr_html_()
        assert card is not None
        page = Page(card)
        assert page.count("article") == 1
        assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "html"}
        assert HOSTILE not in card

    def test_a_card_has_the_pictures_of_the_page(self) -> None:
        page = Page(FLAGGED._repr_html_() or "")
        assert page.count("svg", role="img") == 2
        assert page.count("table", class_="heat") == 1

    def test_two_cards_share_no_name(self) -> None:
        first, second = (
            {a["id"] for _, a in Page(result_card(FLAGGED)).elements if "id" in a} for _ in range(2)
        )
        assert first
        assert not first & second

    def test_a_signature_is_a_card(self, pack: Signature) -> None:
        text = " ".join(Page(pack._repr_html_() or "").text.split())
        assert "Calibrated on 120 benign adapters of 2 families." in text
        assert "references found" in text.lower()

    @pytest.mark.slow
    def test_a_card_leaves_the_notebook_as_it_is(self, tmp_path: Path, pack: Signature) -> None:
        around = """<!doctype html><body><h2 id=around>x</h2>{cards}<script>
            const style = getComputedStyle(document.getElementById("around"));
            const page = getComputedStyle(document.body);
            const card = getComputedStyle(document.querySelector("article"));
            document.title = [style.fontSize, page.margin, page.backgroundColor,
                              card.borderLeftWidth, card.borderRadius].join("|");
            </script>"""
        page = tmp_path / "notebook.html"
        cards = f"{FLAGGED._repr_html_()}{pack._repr_html_()}"
        page.write_text(around.format(cards=cards))
        seen = visit(page, tmp_path / "profile")
        assert (seen.console, seen.requests) == ([], [])
        found = re.search(r"<title>(.*?)</title>", seen.dom)
        assert found is not None
        assert found[1] == "24px|8px|rgba(0, 0, 0, 0)|6px|12px"


class TestErrors:
    def test_python_is_told_of_parameters(self, pack: Signature, misaligned: Path) -> None:
        with pytest.raises(UsageError, match=r"^alpha: alpha is 2, not between 0 and 1"):
            scan(misaligned, [pack], alpha=2)
        with pytest.raises(UsageError, match=r"^alpha: alpha 0\.0001 needs 9999 benign adapters"):
            scan(misaligned, [pack], alpha=0.0001)

    def test_reasons_too(self, pack: Signature, misaligned: Path) -> None:
        config = misaligned / "adapter_config.json"
        fields = json.loads(config.read_text())
        del fields["base_model_name_or_path"]
        config.write_text(json.dumps(fields))
        reason = " ".join(scan(misaligned, [pack]).reasons)
        assert "say base_model" in reason
        assert "--" not in reason
        told = run("scan", misaligned, "-s", pack.path, "--no-cache", "-f", "json").stdout
        assert "say --base-model" in json.loads(told)["results"][0]["reasons"][0]

    def test_a_command_is_told_of_flags(self, pack: Signature, misaligned: Path) -> None:
        done = run("scan", misaligned, "-s", pack.path, "--alpha", "0.0001", "--no-cache")
        assert done.returncode == 2
        assert "--alpha: alpha 0.0001 needs 9999" in done.stderr


def test_a_short_line_is_no_other_way_to_make_one() -> None:
    """Structs compare and copy as before."""
    assert msgspec.structs.replace(FLAGGED) == FLAGGED
