"""The documentation site: links out of `docs/`, what its checker sees, addresses that agree."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import pytest

from scanner.version import DOCUMENTATION
from tools.check_site import problems
from tools.project import ROOT, project, repository_url

site_hook = pytest.importorskip("tools.site_hook", reason="needs mkdocs (extra docs)")

PAGE = "<a id='here'></a><a href='other.html#{anchor}'>x</a><img src='{image}'>"


@pytest.mark.parametrize(
    ("page", "target", "expected"),
    [
        ("training.md", "../examples/own_loop.py", "{url}/blob/main/examples/own_loop.py"),
        ("start/owner.md", "../../signatures", "{url}/tree/main/signatures"),
        ("start/owner.md", "../gates.md#keys", "../gates.md#keys"),
        ("evidence.md", "../benchmarks/organisms/RESULTS.md", "lab-results.md"),
        ("threat-model.md", "../SECURITY.md#x", "security.md#x"),
        ("lab.md", "RESULTS.md", "lab-results.md"),
        ("contributing.md", "docs/hub.md", "hub.md"),
        (
            "reference/json.md",
            "../../scanner/reports/report.schema.json",
            "report-2.schema.json",
        ),
        ("hub.md", "https://example.org/a.md", "https://example.org/a.md"),
    ],
)
def test_links_lead_where_the_files_are(page: str, target: str, expected: str) -> None:
    text, missing = site_hook.site_links(f"see [this]({target}).", page)
    assert text == f"see [this]({expected.format(url=repository_url())})."
    assert not missing


def test_links_to_nothing_are_named_and_code_is_left_alone() -> None:
    code = "```md\n[x](nowhere.py)\n```\nand `[x](nowhere.py)`"
    text, missing = site_hook.site_links(f"{code} and [y](nothing.md)", "hub.md")
    assert text == f"{code} and [y](nothing.md)"
    assert missing == ["nothing.md"]


@pytest.mark.parametrize(
    ("anchor", "image", "words"),
    [
        ("there", "p.png", []),
        ("elsewhere", "p.png", ["no such place on the page"]),
        ("there", "gone.png", ["no such file"]),
        ("there", "https://example.org/p.png", ["loads https://example.org/p.png from elsewhere"]),
        ("there", "//example.org/p.png", ["loads //example.org/p.png from elsewhere"]),
        ("there", "p.png' data-md-component='source' href='//stars.example", ["loads //stars"]),
    ],
)
def test_the_checker_sees(anchor: str, image: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(PAGE.format(anchor=anchor, image=image))
    (tmp_path / "other.html").write_text("<h2 id='there'>there</h2>")
    (tmp_path / "p.png").write_bytes(b"")
    found = problems(tmp_path.resolve())
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


def test_every_page_is_in_the_menu() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    menu = set(re.findall(r"[\w/-]+\.md$", text, re.MULTILINE))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert menu == there | set(site_hook.PAGES.values())


def test_addresses_agree() -> None:
    """Whatever names the repository or the site names those of pyproject.toml."""
    urls = project()["urls"]
    assert urls["Documentation"] == DOCUMENTATION
    ours = posixpath.dirname(repository_url())
    assert all(url.startswith((repository_url(), urls["Documentation"])) for url in urls.values())
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for url in re.findall(
            r"https://github\.com/[\w-]+/adapter-scanner", page.read_text("utf-8")
        ):
            assert url == f"{ours}/adapter-scanner", page
