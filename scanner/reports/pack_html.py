"""A pack as one self-contained HTML page, without script or network: `signatures show -f html`."""

from __future__ import annotations

from scanner.reports.html_report import environment
from scanner.reports.pack_article import pack_view
from scanner.reports.wording import NOT_ALIGNED
from scanner.results import Tool
from scanner.signatures.pack import Signature
from scanner.version import version


def render(signature: Signature) -> str:
    """The page.

    Raises:
        SignatureError: If the pack is damaged.
    """
    page = (
        environment()
        .get_template("pack.html.j2")
        .render(
            tool=Tool(name="adapter-scanner", version=version()),
            view=pack_view(signature, "signature"),
            not_aligned=NOT_ALIGNED,
        )
    )
    return page.lstrip() + "\n"
