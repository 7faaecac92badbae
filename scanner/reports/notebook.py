"""The objects of the public interface as cards for a notebook.

A card is a part of the HTML page of the same thing, with the page's style for itself alone: the
rules are nested below the card's own class, so that the notebook around it stays as it is.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

from scanner.reports.article import view
from scanner.reports.assemble import in_utf8
from scanner.reports.drawing import largest_dose
from scanner.reports.html_report import environment
from scanner.reports.pack_article import pack_view
from scanner.results import ScanResult
from scanner.signatures.pack import Signature

_STYLE = Path(__file__).with_name("templates") / "report.css"
_CARDS = count(1)
"""A notebook holds several cards, and what has a name on one must not have it on another."""


def result_card(result: ScanResult) -> str:
    """What the HTML report says of one adapter."""
    result = in_utf8(result)
    shown = view(result, f"adapter-{next(_CARDS)}", None, largest_dose(result.sites))
    return _card("result_card.html.j2", view=shown)


def signature_card(signature: Signature) -> str:
    """What the HTML page of a pack says of it.

    Raises:
        SignatureError: If the pack is damaged.
    """
    return _card("pack_card.html.j2", view=pack_view(signature, f"pack-{next(_CARDS)}"))


def _card(template: str, **values: object) -> str:
    page = environment().get_template(template).render(style=_nested(_STYLE.read_text()), **values)
    return page.strip() + "\n"


def _nested(style: str) -> str:
    """The style of a page as rules within a card."""
    for selector in (":root", "body"):
        style = style.replace(f"{selector} {{", "& {")
    return style
