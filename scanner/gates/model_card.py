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

    The metadata and the text around it stay as they were; markers that enclose nothing are
    removed, so that a second run changes nothing.
    """
    card = card.replace("\r\n", "\n")
    match = _FRONT_MATTER.match(card)
    front, body = (match[0], card[match.end() :]) if match else ("", card)
    first = _SECTION.search(body)
    place = first.start() if first else len(body)
    before = _SECTION.sub("", body[:place]).rstrip()
    after = _SECTION.sub("", body[place:]).strip()
    if front and not before:
        front += "\n"
    return front + "\n\n".join(part for part in (before, section, after) if part) + "\n"
