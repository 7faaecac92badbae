from __future__ import annotations

from html.parser import HTMLParser

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from scanner.reports.markdown_report import escape, render
from scanner.reports.terminal import printable
from scanner.results import StaleAcceptance
from tests.reports.samples import CLEAR, FLAGGED, HOSTILE, mixed, report_of


class Elements(HTMLParser):
    """Tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\u2060", "")  # has no width: it keeps an @ from telling anybody


def parsed(text: str) -> Elements:
    page = Elements()
    page.feed(MarkdownIt("gfm-like", {"linkify": False}).render(text))
    return page


def test_it_renders_as_tables_and_headings() -> None:
    page = parsed(render(mixed()))
    assert page.tags.count("table") == 2
    assert page.tags.count("tbody") == 2
    assert page.tags.count("h3") == 4
    assert "adapters/bad-advice" in page.text
    assert all(number in page.text for number in ("+0.87", "+0.61", "30%"))
    assert "writes into the misalignment directions" in page.text
    assert "None of the 150 benign adapters that change several layers score as high." in page.text


def test_names_from_adapters_form_no_markup() -> None:
    page = parsed(render(mixed()))
    assert "script" not in page.tags
    assert "a" not in page.tags
    assert "</title><script>alert(1)</script>" in page.text


def test_escaping_keeps_the_text() -> None:
    assert parsed(escape("*a* [b](c) <d> | `e` @f")).text.strip() == "*a* [b](c) <d> | `e` @f"
    assert "\n" not in escape(HOSTILE)


@given(st.text())
@example("_a_ __b__ a_b #1 ##[x] 1. x")
@example("- x")
@example("+ x")
@example("# x")
@example("1) x")
@example("=== x")
@example("www.example.org http://example.org a@b.org :smile:")
@example("![x](y) &amp; &#64; <b>")
def test_whatever_is_escaped_is_shown_as_it_is(text: str) -> None:
    for shown in (f"- {escape(text)}", f"| a |\n|---|\n| x{escape(text)} |"):
        page = parsed(shown)
        assert set(page.tags) <= {"ul", "li", "table", "thead", "tr", "th", "tbody", "td"}
        assert " ".join(printable(text).split()) in " ".join(page.text.split())


def test_nobody_is_told_by_a_name() -> None:
    for name in ("@everyone", "(@everyone)", "x &@everyone", "[@a/b](c)"):
        assert "@everyone" not in escape(name)
        assert "@a" not in escape(name)
    assert escape("hf\u2215lab/bad@0123abc") == "hf\u2215lab/bad@0123abc"


def test_escaped_names_can_be_read_as_they_are() -> None:
    assert escape("adapters/my-first_lora.v2 (rank 8)") == "adapters/my-first_lora.v2 (rank 8)"
    assert escape("model.layers.0: no such tensor") == "model.layers.0: no such tensor"


def test_the_gravest_come_first() -> None:
    text = render(mixed())
    assert text.index("bad") < text.index("pointer") < text.index("dora") < text.index("new")


def test_stale_baseline_entries_are_listed() -> None:
    report = msgspec.structs.replace(
        report_of(FLAGGED), stale=[StaleAcceptance(target="old", reason="no longer there")]
    )
    assert "no longer there" in parsed(render(report)).text


def test_a_signature_without_a_sign_shows_its_overlap_whatever_the_verdict() -> None:
    for result in (CLEAR, FLAGGED):
        shown = msgspec.structs.replace(result, overlap={**result.overlap, HOSTILE: 0.21})
        page = Elements()
        page.feed(MarkdownIt("commonmark").enable("table").render(render(report_of(shown))))
        assert f"overlap 21% with {printable(HOSTILE)} (no sign)" in page.text
        assert "script" not in page.tags
