"""A ledger as a report sees it: verdicts with q-values, read a row at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from scanner.errors import UsageError
from scanner.hub.query import SweepQuery
from scanner.results import ScanResult, SignatureSummary, Verdict
from scanner.statistics.false_discovery import q_values
from scanner.sweep.compact import expand
from scanner.sweep.ledger_file import connect
from scanner.sweep.records import target_of


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


def _renamed(result: ScanResult, name: str, other: str) -> ScanResult:
    """A result under another address of the same content."""
    reasons = [line.replace(name, other) for line in result.reasons]
    return msgspec.structs.replace(result, target=other, reasons=reasons)


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
            "SELECT packs.id, signatures, alpha FROM packs JOIN sweep ON packs.id = sweep.packs "
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

    def adapters(self, *, with_sites: bool = False) -> Iterator[FinishedAdapter]:
        """Every adapter with a verdict, by address.

        Args:
            with_sites: Whether the evidence at every site is wanted too.
        """
        columns = "mine.repository, mine.revision, mine.subfolder, mine.content, mine.state, "
        columns += "mine.attempts, mine.version, mine.finished, mine.reason, packed, "
        columns += "read.repository, read.revision, read.subfolder"
        rows = self._db.execute(
            f"SELECT {columns} FROM adapter mine "  # noqa: S608 - columns are this function's own
            "LEFT JOIN result ON result.adapter = coalesce(mine.copy_of, mine.id) "
            "LEFT JOIN adapter read ON read.id = mine.copy_of "
            "WHERE mine.packs = ? AND mine.verdict IS NOT NULL "
            "ORDER BY mine.repository, mine.revision, mine.subfolder",
            (self._packs,),
        )
        for *own, reason, packed, repository, revision, subfolder in rows:
            target = target_of(*own[:3])
            if packed is None:  # it could not be had, so there is nothing but the reason
                result = ScanResult(target=target, verdict=Verdict.ERROR, reasons=[reason])
            else:
                result = expand(packed, with_sites=with_sites)
            if repository is not None:
                result = _renamed(result, target_of(repository, revision, subfolder), target)
            yield FinishedAdapter(
                repository=own[0],
                revision=own[1],
                subfolder=own[2],
                content=own[3],
                state=own[4],
                copied=repository is not None,
                attempts=own[5],
                version=own[6],
                finished=own[7],
                result=msgspec.structs.replace(result, q_value=self._q_values.get(own[3])),
            )

    def results(self) -> Iterator[ScanResult]:
        """Every verdict, by address."""
        return (row.result for row in self.adapters(with_sites=True))

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
                target=target_of(*row[:3]),
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
