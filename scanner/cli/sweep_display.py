"""How far a sweep is, on standard error, on a terminal only."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from scanner.reports.wording import ORDER

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from scanner.sweep.records import Progress


class SweepDisplay:
    """A bar with count, verdicts, rate and time left; nothing where nobody would see it.

    Args:
        wanted: Whether the user lets progress be shown.
    """

    def __init__(self, wanted: bool) -> None:
        self._bar: Bar | None = _bar() if wanted and sys.stderr.isatty() else None
        self._started = time.monotonic()
        self._at_start: int | None = None

    def __enter__(self) -> SweepDisplay:
        if self._bar is not None:
            self._bar.start()
            self._bar.add_task("listing", total=None, verdicts="", rate="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Shows how many adapters have been judged and how many wait."""
        if self._bar is None:
            return
        if self._at_start is None:
            self._at_start = progress.finished
        seconds = max(time.monotonic() - self._started, 1e-3)
        waiting = progress.repositories_waiting + progress.adapters_waiting
        total = progress.finished + waiting
        self._bar.update(
            self._bar.task_ids[0],
            description="sweeping" if progress.listing_finished else "sweeping, still listing",
            completed=progress.finished,
            total=total or None,
            verdicts="  ".join(
                f"{progress.verdicts[v.value]:,} {v.value}"
                for v in ORDER
                if v.value in progress.verdicts
            ),
            rate=f"{(progress.finished - self._at_start) / seconds:.1f}/s",
        )


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[verdicts]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
