"""`inspect` for a person: one table of updates, and what was not understood."""

from __future__ import annotations

import io
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scanner.inspection import InspectedUpdate, Inspection
from scanner.reports.text import printable

_MAX_UNCOVERED = 20


def render_inspection(inspection: Inspection) -> str:
    """The inspection as text; colours if standard output is a terminal."""
    buffer = io.StringIO()
    on_terminal = sys.stdout.isatty()
    console = Console(
        file=buffer,
        force_terminal=on_terminal,
        no_color=not on_terminal,
        highlight=False,
        soft_wrap=True,
        legacy_windows=False,
    )
    base = printable(inspection.base_model or "not named")
    console.print(f"[bold]{escape(printable(inspection.target))}[/bold]")
    console.print(f"  format  {inspection.format}")
    console.print(f"  base    {escape(base)}")
    console.print(f"  sha256  {inspection.sha256}")
    if inspection.updates:
        console.print(_table(inspection.updates))
    for note in inspection.notes:
        console.print(f"  [yellow]{escape(printable(note))}[/yellow]")
    console.print(f"  {len(inspection.updates)} updates, {len(inspection.uncovered)} uncovered")
    for item in inspection.uncovered[:_MAX_UNCOVERED]:
        console.print(
            f"  [yellow]{escape(printable(item.tensor))}[/yellow]: {escape(printable(item.reason))}"
        )
    if len(inspection.uncovered) > _MAX_UNCOVERED:
        console.print(f"  and {len(inspection.uncovered) - _MAX_UNCOVERED} more")
    return buffer.getvalue()


def _table(updates: list[InspectedUpdate]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("  layer", justify="right")
    table.add_column("module")
    for name in ("shape", "rank", "eff. rank", "scaling", "norm"):
        table.add_column(name, justify="right")
    table.add_column("dtype")
    for update in updates:
        table.add_row(
            "-" if update.layer is None else str(update.layer),
            escape(printable(update.module)),
            f"{update.d_out} x {update.d_in}",
            str(update.rank),
            "?" if update.effective_rank is None else f"{update.effective_rank:.1f}",
            f"{update.scaling:.4g}",
            "?" if update.norm is None else f"{update.norm:.4g}",
            update.dtype,
        )
        for name, norm in update.parts.items():
            table.add_row("", f"  of which {escape(name)}", *[""] * 4, f"{norm:.4g}", "")
    return table
