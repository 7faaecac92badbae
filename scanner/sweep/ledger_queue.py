# ruff: noqa: S608 - table names are this module's own, values are parameters
"""What a ledger says is left to do: it is the sweep's queue, so no queue grows in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from scanner.hub.snapshot import HubFile
from scanner.sweep.records import Judge, LookUp, Progress


@dataclass(frozen=True)
class Waiting:
    """The unfinished work of one sweep."""

    connection: sqlite3.Connection
    sweep: int
    clock: Callable[[], float]

    def lookups(self, most: int, busy: set[int]) -> list[LookUp]:
        """Repositories to look into now, in the order of the listing.

        Args:
            most: How many at most.
            busy: Rows that are being worked on.
        """
        rows = self._due("repository", "repository, revision", most + len(busy))
        tasks = [LookUp(key=r[0], repository=r[1], revision=r[2]) for r in rows if r[0] not in busy]
        return tasks[:most]

    def judgements(self, most: int, busy: set[int]) -> list[Judge]:
        """Adapters to judge now, in the order they were found. Arguments are those of `lookups`."""
        columns = "repository, revision, subfolder, content, files"
        rows = self._due("adapter", columns, most + len(busy))
        tasks = [
            Judge(
                key=r[0],
                repository=r[1],
                revision=r[2],
                subfolder=r[3],
                content=r[4],
                files=msgspec.json.decode(r[5], type=list[HubFile]),
            )
            for r in rows
            if r[0] not in busy
        ]
        return tasks[:most]

    def _due(self, table: str, columns: str, most: int) -> list[tuple[Any, ...]]:
        return self.connection.execute(
            f"SELECT id, {columns} FROM {table} "
            "WHERE sweep = ? AND state = 'waiting' AND retry_at <= ? ORDER BY id LIMIT ?",
            (self.sweep, self.clock(), most),
        ).fetchall()

    def next_retry(self) -> float | None:
        """When the next failed task is due, in seconds since the epoch; None if none waits."""
        times = [
            self._one(f"SELECT min(retry_at) FROM {table} WHERE sweep = ? AND state = 'waiting'")
            for table in ("repository", "adapter")
        ]
        return min((found for found in times if found is not None), default=None)

    def count(self) -> int:
        """The number of repositories and adapters without a verdict."""
        return self._repositories() + self._adapters()

    def progress(self) -> Progress:
        """How far the sweep is."""
        verdicts = self.connection.execute(
            "SELECT verdict, count(*) FROM adapter WHERE sweep = ? AND verdict IS NOT NULL "
            "GROUP BY verdict",
            (self.sweep,),
        )
        return Progress(
            listed=self._one("SELECT listed FROM sweep WHERE id = ?"),
            listing_finished=bool(self._one("SELECT finished FROM sweep WHERE id = ?")),
            repositories_waiting=self._repositories(),
            adapters_waiting=self._adapters(),
            verdicts=dict(verdicts.fetchall()),
        )

    def _repositories(self) -> int:
        return int(
            self._one("SELECT count(*) FROM repository WHERE sweep = ? AND state = 'waiting'")
        )

    def _adapters(self) -> int:
        return int(self._one("SELECT count(*) FROM adapter WHERE sweep = ? AND state = 'waiting'"))

    def _one(self, query: str) -> Any:
        return self.connection.execute(query, (self.sweep,)).fetchone()[0]
