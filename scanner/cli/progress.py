"""Progress on standard error, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Progress:
    """A `Track` that draws a bar, or nothing where nobody would see it.

    Args:
        wanted: Whether the user lets progress be shown.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._shown = wanted and sys.stderr.isatty()

    def __call__(self, items: Sequence[Item], description: str) -> Iterable[Item]:
        """Wraps a sequence; the bar shows count, rate and time left."""
        return self._bar(items, description) if self._shown and len(items) > 1 else items

    def _bar(self, items: Sequence[Item], description: str) -> Iterator[Item]:
        from rich.console import Console
        from rich.progress import track

        yield from track(
            items, description=description, console=Console(stderr=True), transient=True
        )
