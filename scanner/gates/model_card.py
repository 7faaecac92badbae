"""The verdict in a model card: one section between markers, replaced and never repeated."""

from __future__ import annotations

import re

from scanner.reports import renderer
from scanner.results import Report

BEGIN = "<!-- adapter-scanner: begin -->"
END = "<!-- adapter-scanner: end -->"
_SECTION = re.compile(
    rf"{re.escape(BEGIN)}.*?{re.escape(END)}|{re.escape(BEGIN)}|{re.escape(END)}", re.DOTALL
)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?\n---[ \t]*(\n|\Z)", re.DOTALL)


def verdict_section(report: Report, notes: list[str]) -> str:
    """The section, with its markers.

    Args:
        report: The scan.
        notes: Lines of Markdown below it: where the whole report is, who overrode, ...
    """
    body = renderer("markdown")(report).strip()
    return "\n".join([BEGIN, body, "", *notes, END])


def with_section(card: str, section: str) -> str:
    """A card with the section in the place of the old one, or at its end.

    Everything else stays as it was; markers that enclose nothing are removed, so that a second
    run changes nothing.
    """
    card = card.replace("\r\n", "\n")
    first = _SECTION.search(card)
    place = first.start() if first else len(card)
    front = _FRONT_MATTER.match(card)
    if front and place < front.end():  # markers in the metadata are not where text goes
        place = len(card)
    before = _SECTION.sub("", card[:place]).rstrip()
    after = _SECTION.sub("", card[place:]).strip()
    parts = [part for part in (before, section, after) if part]
    return "\n\n".join(parts) + "\n"
