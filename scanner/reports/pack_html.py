"""A pack as one self-contained HTML page, without script or network: `signatures show -f html`."""

from __future__ import annotations

from collections.abc import Sequence

from scanner.reports.html_report import environment
from scanner.reports.pack_article import pack_view
from scanner.reports.wording import NOT_ALIGNED
from scanner.results import Tool
from scanner.signatures.pack import Signature
from scanner.signatures.power_words import joint_rows
from scanner.signatures.summary import check_one_base
from scanner.version import version


def render(signatures: Sequence[Signature]) -> str:
    """The page.

    Args:
        signatures: One pack, or several of one base, of which it is also said what they find
            together.

    Raises:
        UsageError: If they are of different bases.
        SignatureError: If a pack is damaged.
    """
    check_one_base(signatures)
    alone = len(signatures) == 1
    page = (
        environment()
        .get_template("pack.html.j2")
        .render(
            tool=Tool(name="adapter-scanner", version=version()),
            title=" and ".join(item.id for item in signatures),
            views=[
                pack_view(item, "signature" if alone else f"signature-{number}")
                for number, item in enumerate(signatures, 1)
            ],
            together=[] if alone else joint_rows(signatures),
            not_aligned=NOT_ALIGNED,
        )
    )
    return page.lstrip() + "\n"
