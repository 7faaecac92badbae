"""A ledger as a report sees it: verdicts with q-values, read a row at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from scanner.errors import UsageError
from scanner.hub.address import HubAddress
from scanner.hub.query import SweepQuery
from scanner.results import ScanResult, SignatureSummary, Verdict
from scanner.statistics.false_discovery import q_values
from scanner.sweep.ledger_file import connect


@dataclass(frozen=True)
class FinishedAdapter:
    """One row that has a verdict."""

    repository: str
    revision: str
    subfolder: str
    content: str
    state: str
    copied: bool
    attempts: int
    version: str
    finished: str
    result: ScanResult
    """The result, with its q-value filled in."""


@dataclass(frozen=True)
class Highest:
    """One of the adapters that carry most."""

    target: str
    verdict: str
    dose: float
    """The adapter's dose."""
    p_value: float
    q_value: float | None


@dataclass(frozen=True)
class Swept:
    """What was swept with these packs."""

    queries: list[SweepQuery]
    repositories: int
    contents: int
    """Different adapters, by content."""
    adapters: int
    waiting: int
    """Repositories and adapters still without a verdict."""
    listing_finished: bool
    requests: int
    received: int
    """Bytes received from the hub."""


class LedgerRows:
    """A ledger's verdicts by one set of packs: that of the sweep that was run last.

    Args:
        path: The ledger.

    Raises:
        UsageError: If it is missing, no ledger, or nothing was swept yet.
    """

    def __init__(self, path: Path) -> None:
        self._db = connect(path)
        row = self._db.execute(
            "SELECT digest, signatures, alpha FROM packs JOIN sweep ON packs.digest = sweep.packs "
            "ORDER BY started DESC, sweep.id DESC LIMIT 1"
        ).fetchone()
        if row is None:
            self._db.close()
            raise UsageError("holds no sweep yet", where=str(path), todo='run "hub scan" first')
        self._packs = row[0]
        self.signatures = msgspec.json.decode(row[1], type=list[SignatureSummary])
        self.alpha: float | None = row[2]
        self._q_values = self._adjusted()

    def __enter__(self) -> LedgerRows:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._db.close()

    def _select(self, columns: str, more: str = "") -> sqlite3.Cursor:
        return self._db.execute(
            f"SELECT {columns} FROM adapter WHERE packs = ? AND verdict IS NOT NULL {more}",  # noqa: S608
            (self._packs,),
        )

    def _adjusted(self) -> Mapping[str, float]:
        """Content -> q-value. A thousand copies of one adapter are one test, not a thousand."""
        found = dict(self._select("content, p_value", "AND p_value IS NOT NULL GROUP BY content"))
        return dict(zip(found, q_values(list(found.values())), strict=True))

    def adapters(self) -> Iterator[FinishedAdapter]:
        """Every adapter with a verdict, by address."""
        columns = "repository, revision, subfolder, content, state, copied, attempts, version, "
        columns += "finished, result"
        for row in self._select(columns, "ORDER BY repository, revision, subfolder"):
            result = msgspec.json.decode(row[9], type=ScanResult)
            q_value = self._q_values.get(row[3])
            yield FinishedAdapter(
                repository=row[0],
                revision=row[1],
                subfolder=row[2],
                content=row[3],
                state=row[4],
                copied=bool(row[5]),
                attempts=row[6],
                version=row[7],
                finished=row[8],
                result=msgspec.structs.replace(result, q_value=q_value),
            )

    def results(self) -> Iterator[ScanResult]:
        """Every verdict, by address."""
        return (row.result for row in self.adapters())

    def verdicts(self) -> set[Verdict]:
        """Which verdicts were given at least once."""
        return {Verdict(row[0]) for row in self._select("DISTINCT verdict")}

    def highest(self, most: int) -> list[Highest]:
        """The different adapters with the highest doses."""
        rows = self._select(
            "min(repository), revision, subfolder, content, verdict, dose, p_value",
            "AND dose IS NOT NULL AND p_value IS NOT NULL "
            f"GROUP BY content ORDER BY dose DESC LIMIT {most:d}",
        )
        return [
            Highest(
                target=str(HubAddress(*row[:3])),
                verdict=row[4],
                dose=row[5],
                p_value=row[6],
                q_value=self._q_values.get(row[3]),
            )
            for row in rows
        ]

    def swept(self) -> Swept:
        """Totals of the sweep: contents, adapters, work left, requests."""
        queries, listed = [], True
        requests = received = 0
        for text, finished, asked, got in self._db.execute(
            "SELECT query, finished, requests, received FROM sweep WHERE packs = ? ORDER BY id",
            (self._packs,),
        ):
            queries.append(msgspec.json.decode(text, type=SweepQuery))
            listed = listed and bool(finished)
            requests, received = requests + asked, received + got
        adapters, repositories, contents = self._select(
            "count(*), count(DISTINCT repository), count(DISTINCT nullif(content, ''))"
        ).fetchone()
        waiting = sum(
            self._db.execute(
                f"SELECT count(*) FROM {table} WHERE packs = ? "  # noqa: S608 - two constants
                "AND state IN ('waiting', 'duplicate')",
                (self._packs,),
            ).fetchone()[0]
            for table in ("repository", "adapter")
        )
        return Swept(
            queries=queries,
            repositories=repositories,
            contents=contents,
            adapters=adapters,
            waiting=waiting,
            listing_finished=listed,
            requests=requests,
            received=received,
        )
