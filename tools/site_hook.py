"""What the documentation site adds to mkdocs: pages that live outside `docs/`, and links out of it.

The Markdown files link to each other as files of the repository, so that they can be read there.
On the site a link to another page leads to that page, and a link to anything else of the
repository to where the repository is published (`project.urls` in pyproject.toml). A link to
nothing is a warning, which ends a strict build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File

from scanner.reports.json_report import SCHEMA_ID
from scanner.version import DOCUMENTATION
from tools.project import ROOT, repository_url

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "RELEASE.md": "release.md",
    "SECURITY.md": "security.md",
    "benchmarks/organisms/README.md": "lab.md",
    "benchmarks/organisms/RESULTS.md": "lab-results.md",
}
"""Files of the repository that are pages of the site."""
SCHEMA = "scanner/reports/report.schema.json"
FILES = {**PAGES, SCHEMA: urlsplit(SCHEMA_ID).path.removeprefix(urlsplit(DOCUMENTATION).path)}
"""Those and what else is on it."""
LINK = re.compile(r"(?P<text>\]\()(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
FENCE = re.compile(r"(^ *```.*?^ *```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)

log = get_plugin_logger("repository")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The repository's address has one home."""
    config.repo_url = repository_url()
    config.repo_name = "Source"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what lives outside `docs/`."""
    for source, place in FILES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files of the repository into links of the site."""
    del config, files
    uri = page.file.src_uri
    text, missing = site_links(markdown, uri)
    for target in missing:
        log.warning("%s links to %s, which is not in the repository", uri, target)
    return text


def site_links(markdown: str, page: str) -> tuple[str, list[str]]:
    """A page with its links as the site needs them, and the targets that do not exist.

    Args:
        markdown: The page's text.
        page: Its place on the site.
    """
    source = {uri: name for name, uri in PAGES.items()}.get(page, f"docs/{page}")
    missing: list[str] = []

    def link(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if re.match(r"[a-z]+:|/", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (ROOT / path).exists():
            missing.append(target)
            return match[0]
        place = _place(path, posixpath.dirname(page))
        return f"{match['text']}{place}{anchor})"

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts), missing


def _place(path: str, folder: str) -> str:
    """Where a file of the repository is, seen from a folder of the site."""
    if path in FILES:
        return posixpath.relpath(FILES[path], folder or ".")
    if path.startswith("docs/"):
        return posixpath.relpath(path.removeprefix("docs/"), folder or ".")
    kind = "tree" if Path(ROOT, path).is_dir() else "blob"
    return f"{repository_url()}/{kind}/main/{path}"
