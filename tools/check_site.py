"""Builds the documentation site and checks that it can be read without a network.

    python -m tools.check_site [--keep FOLDER]

The build is strict: a link or an anchor that leads nowhere, or a page that is in no menu, ends it.
Then every built page is read: what it loads, and what it links to within the site, must be there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools.project import ROOT

LOADING = {"img": "src", "script": "src", "iframe": "src", "source": "srcset", "link": "href"}
"""Elements that a browser fetches without being asked, with the attribute that says from where."""
ASKING = {"data-md-component": "source"}
"""Attributes by which the theme's own script asks somebody else for numbers."""
NOT_FETCHED = {"canonical", "prev", "next", "alternate"}


class Page(HTMLParser):
    """What one page loads, links to and can be linked at."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects what one element names."""
        values = {name: value for name, value in attrs if value}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if ASKING.items() <= values.items():
            self.loaded.append(values["href"])
        if tag == "a" and "href" in values:
            self.linked.append(values["href"])
        fetched = not NOT_FETCHED & set(values.get("rel", "").split())
        if (address := values.get(LOADING.get(tag, ""))) and fetched:
            self.loaded.append(address)


def build(target: Path) -> bool:
    """Builds the site strictly; whether that went well."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(  # noqa: S603 - no words of others
        [*command, "--site-dir", str(target)], cwd=ROOT, env=environment, check=False
    )
    return done.returncode == 0


def problems(site: Path) -> list[str]:
    """What a reader of the built site would stumble over."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = Page()
        pages[path].feed(path.read_text("utf-8"))
    found = []
    for path, page in pages.items():
        if path.name == "404.html":  # its addresses start at the root of wherever it is served
            continue
        name = path.relative_to(site)
        found += [
            f"{name}: loads {address} from elsewhere" for address in page.loaded if _away(address)
        ]
        for address in [*page.loaded, *page.linked]:
            if not _away(address) and (why := _unreachable(path, address, pages)):
                found.append(f"{name}: {address}: {why}")
    return found


def _away(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc or parts.scheme not in ("", "file")) and parts.scheme != "data"


def _unreachable(page: Path, address: str, pages: dict[Path, Page]) -> str | None:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return None
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.exists():
        return "no such file"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return "no such place on the page"
    return None


def main() -> int:
    """Builds and checks; 1 if anything is wrong."""
    keep = sys.argv[2] if sys.argv[1:2] == ["--keep"] else None
    with tempfile.TemporaryDirectory() as folder:
        site = Path(keep or folder).resolve()
        if not build(site):
            return 1
        found = problems(site)
    for line in found:
        sys.stderr.write(f"{line}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
