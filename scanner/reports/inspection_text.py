"""`inspect` for a person: one table of updates, and what was not understood."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from scanner.detection.inspection import InspectedUpdate, Inspection
from scanner.reports.terminal import Screen, printable, standard_output

_MAX_UNCOVERED = 20
_GAP = "  "


class _Column(NamedTuple):
    """One column of the table."""

    title: str
    cells: list[str]
    left: bool = False

    @property
    def width(self) -> int:
        return max(len(self.title), *map(len, self.cells))

    def row(self, index: int) -> str:
        """One cell, padded; the title at -1."""
        text = self.title if index < 0 else self.cells[index]
        return text.ljust(self.width) if self.left else text.rjust(self.width)


_DISPENSABLE = ("dtype", "shape", "scaling", "eff. rank")
"""Columns that a narrow screen goes without, the first one first; names are never cut."""


def render_inspection(inspection: Inspection, screen: Screen | None = None) -> str:
    """The inspection as text.

    Args:
        inspection: What was found.
        screen: What it is written to; standard output if not given.
    """
    screen = screen or standard_output()
    lines = [
        screen.style(printable(inspection.target), "bold"),
        f"  format  {inspection.format}",
        f"  base    {printable(inspection.base_model or 'not named')}",
        f"  sha256  {inspection.sha256}",
        *_table(inspection.updates, screen),
    ]
    for note in inspection.notes:
        lines += [
            screen.style(line, "yellow") for line in screen.wrap(printable(note), "    ", "  ")
        ]
    lines.append(f"  {len(inspection.updates)} updates, {len(inspection.uncovered)} uncovered")
    for item in inspection.uncovered[:_MAX_UNCOVERED]:
        text = f"{printable(item.tensor)}: {printable(item.reason)}"
        lines += [screen.style(line, "yellow") for line in screen.wrap(text, "    ", "  ")]
    if len(inspection.uncovered) > _MAX_UNCOVERED:
        lines.append(f"  and {len(inspection.uncovered) - _MAX_UNCOVERED} more")
    return "\n".join(lines) + "\n"


def _table(updates: Sequence[InspectedUpdate], screen: Screen) -> Iterator[str]:
    if not updates:
        return
    columns = _columns(updates)
    left_out = []
    for title in _DISPENSABLE:
        if _width(columns) <= screen.width:
            break
        columns = [column for column in columns if column.title != title]
        left_out.append(title)
    for index in range(-1, len(columns[0].cells)):
        line = _GAP + _GAP.join(column.row(index) for column in columns).rstrip()
        yield screen.style(line, "bold") if index < 0 else line
    if left_out:
        yield from screen.wrap(f"a wider terminal also shows {', '.join(left_out)}", "    ", "  ")


def _width(columns: Sequence[_Column]) -> int:
    return sum(len(_GAP) + column.width for column in columns)


def _columns(updates: Sequence[InspectedUpdate]) -> list[_Column]:
    rows = []
    for update in updates:
        rows.append(
            (
                "-" if update.layer is None else str(update.layer),
                printable(update.module),
                f"{update.d_out} x {update.d_in}",
                str(update.rank),
                "?" if update.effective_rank is None else f"{update.effective_rank:.1f}",
                f"{update.scaling:.4g}",
                "?" if update.norm is None else f"{update.norm:.4g}",
                update.dtype,
            )
        )
        for name, norm in update.parts.items():
            rows.append(("", f"  of which {printable(name)}", "", "", "", "", f"{norm:.4g}", ""))
    titles = ("layer", "module", "shape", "rank", "eff. rank", "scaling", "norm", "dtype")
    return [
        _Column(title, [row[index] for row in rows], left=title in ("module", "dtype"))
        for index, title in enumerate(titles)
    ]
