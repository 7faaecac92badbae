"""Where a sweep's work is done: on this machine, or on a cluster.

An engine takes tasks and gives back one outcome for each, in any order. It keeps nothing
that matters: a task whose worker is lost comes back as a `Setback`, and the ledger has it
tried again.
"""

from __future__ import annotations

from typing import Protocol

from scanner.sweep.records import Outcome, Task


class Engine(Protocol):
    """Runs tasks, on this machine or elsewhere."""

    @property
    def capacity(self) -> int:
        """Tasks it wants to hold at once: enough that no worker waits for the next."""

    def submit(self, task: Task) -> None:
        """Accepts one task and returns at once."""

    def outcomes(self, timeout: float) -> list[Outcome]:
        """What has been done since the last call; waits for the first, up to `timeout` seconds."""

    def close(self) -> None:
        """Stops. What is still being done is dropped, and stays undone in the ledger."""
