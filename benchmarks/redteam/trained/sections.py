"""A section of a page that a command writes, between two marks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MarkedSection:
    """Where a section is in any page."""

    name: str
    """What its marks say."""

    @property
    def start(self) -> str:
        """The mark before it."""
        return f"<!-- {self.name} -->"

    @property
    def end(self) -> str:
        """The mark after it."""
        return f"<!-- {self.name}: end -->"

    def marked(self, *parts: str) -> str:
        """The section with its marks."""
        return "\n".join([self.start, *parts, self.end]) + "\n"

    def put(self, text: str, new: str) -> str:
        """A page with the section replaced, or added at its end; left alone without a new one.

        Args:
            text: The page.
            new: What `marked` gives; empty if there is nothing to show.
        """
        if not new:
            return text
        if self.start in text and self.end in text:
            before, _, rest = text.partition(self.start)
            return before + new + rest.partition(self.end)[2].lstrip("\n")
        return f"{text.rstrip()}\n\n{new}" if text else new

    def write(self, page: Path, new: str) -> None:
        """Puts the section into a file, which need not be there yet."""
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        page.write_text(self.put(text, new), encoding="utf-8")

    def of(self, page: Path) -> str:
        """The section that a file has now; empty if it has none."""
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        if self.start not in text or self.end not in text:
            return ""
        return self.start + text.partition(self.start)[2].partition(self.end)[0] + self.end + "\n"
