"""The pages without a mouse: every interactive thing is reached, in order, and seen to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from scanner.reports import compare_html, html_report, pack_html
from scanner.signatures.comparing import compare_packs
from scanner.signatures.pack import Signature
from tests.reports.chromium import DARK, LIGHT
from tests.reports.keyboard import browser
from tests.reports.samples import TWO, mixed, report_of, site

Page = Callable[[Signature], str]


def report(_: Signature) -> str:
    """Every verdict, several signatures, and a heat map that is wider than the screen."""
    tall = [site(layer, "mlp.down_proj", 0.1) for layer in range(60)]
    return html_report.render(report_of(*mixed().results, msgspec.structs.replace(TWO, sites=tall)))


def comparison(pack: Signature) -> str:
    return compare_html.render(compare_packs(pack, pack))


def packs(pack: Signature) -> str:
    return pack_html.render([pack, pack])


PAGES: dict[str, Page] = {"report": report, "packs": packs, "compare": comparison}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [LIGHT, DARK])
@pytest.mark.parametrize("kind", PAGES)
def test_the_keyboard_reaches_everything_and_shows_where_it_is(
    pack: Signature, tmp_path: Path, kind: str, scheme: str
) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGES[kind](pack))
    with browser(tmp_path / "profile", scheme) as tab:
        tab.open(page)
        stops = tab.stops(opening=True)
        assert [stop.name for stop in stops] == tab.expected()
        assert stops[0].name.startswith("a.skip")
        assert all(stop.open is not False for stop in stops)  # Enter opens every one
        for stop in stops:
            assert stop.seen, stop
            assert stop.outline >= 2, stop
            assert stop.contrast >= 3, stop


@pytest.mark.slow
@pytest.mark.parametrize("kind", PAGES)
def test_the_first_stop_skips_to_the_content(pack: Signature, tmp_path: Path, kind: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGES[kind](pack))
    with browser(tmp_path / "profile") as tab:
        tab.open(page)
        tab.press("Tab")
        tab.press("Enter")
        tab.press("Tab")
        assert tab.run("document.activeElement.closest('main') !== null")


@pytest.mark.slow
def test_a_wide_heat_map_is_moved_by_arrow_keys(pack: Signature, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(report(pack))
    with browser(tmp_path / "profile", "--window-size=500,900") as tab:
        tab.open(page)
        tab.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
        wide = "[...document.querySelectorAll('.scroll')].find(e => e.scrollWidth > e.clientWidth)"
        tab.run(f"{wide}.focus()")
        for _ in range(3):
            tab.press("ArrowRight")
        assert tab.run(f"new Promise(r => setTimeout(() => r({wide}.scrollLeft), 500))") != 0


@pytest.mark.slow
def test_the_walk_would_notice(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><style>a { outline: none !important }</style>"
        '<a href="#b">first</a> <a href="#c" tabindex="-1">never</a>'
        "<details><summary>more</summary><a href='#d'>inside</a></details>"
    )
    with browser(tmp_path / "profile") as tab:
        tab.open(page)
        stops = tab.stops()
        assert [stop.name for stop in stops] == ["a #b", "summary more"]
        assert tab.expected() == ["a #b", "a #c", "summary more"]
        assert stops[0].outline == 0
