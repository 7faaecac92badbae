# ruff: noqa: S608 - table and column names are this module's own, values are parameters
"""The ledger: what a sweep has done and what it has left to do, in one SQLite file.

Everything a sweep knows is here and nowhere else, so a sweep that ends in any way, `SIGKILL`
included, goes on where the last transaction stood. A page of the listing and the cursor
behind it are one transaction; so are a verdict and its copies under other addresses.
Write-ahead logging lets others read while the one writer writes. A commit does not wait for the
disk (``synchronous=NORMAL``), which a kill of the process does not notice; a power failure may
cost the last moments' work, never the ledger.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from scanner.errors import UsageError
from scanner.hub.query import ListedRepository, SweepQuery
from scanner.results import SignatureSummary
from scanner.sweep.ledger_file import connect, create, is_blank
from scanner.sweep.ledger_queue import Waiting
from scanner.sweep.records import FoundAdapter, Judgement, LookUp, Task, Traffic, target_of
from scanner.version import version

_NUMBERS = "verdict, base_model, score, dose, cosine, p_value, version, finished"
_ERROR = "verdict, reason, version, finished"


@dataclass(frozen=True)
class Checkpoint:
    """How far a listing of the hub has been read."""

    cursor: str | None
    """The listing's cursor; None before its first page."""
    listed: int
    finished: bool


class Ledger:
    """A ledger open for one sweep, its only writer.

    Args:
        path: The file; made if it does not exist.
        clock: Seconds since the epoch.

    Raises:
        UsageError: If it cannot be used, or another sweep is writing to it.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        from filelock import FileLock, Timeout

        self.path = path
        self._clock = clock
        self._lock = FileLock(f"{path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError("another sweep is writing to this ledger", where=str(path)) from None
        except OSError as error:
            raise UsageError(
                f"cannot be written: {error.strerror or error}", where=str(path)
            ) from None
        try:
            if is_blank(path):
                create(path)
            self._db = connect(path)
        except BaseException:
            self._lock.release()
            raise
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._sweep = 0
        self._packs = 0

    def close(self) -> None:
        """Closes the file and lets another sweep have it."""
        self._db.close()
        self._lock.release()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Everything inside is written together or not at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def begin(
        self,
        query: SweepQuery,
        packs: str,
        signatures: Sequence[SignatureSummary],
        alpha: float | None,
        *,
        resume: bool,
    ) -> Checkpoint:
        """Starts a sweep, or goes on with it.

        Args:
            query: What is listed.
            packs: Digest over everything a verdict depends on beside the adapter.
            signatures: Summaries of the packs, for reports.
            alpha: The false-positive rate asked for.
            resume: Go on where the listing stood, and try again what was given up for now. If
                not, the listing starts anew and what was refused is asked for again too;
                verdicts stay in either case.
        """
        text = msgspec.json.encode(query).decode()
        with self.batch():
            self._db.execute(
                "INSERT OR IGNORE INTO packs (digest, signatures, alpha) VALUES (?, ?, ?)",
                (packs, msgspec.json.encode(list(signatures)).decode(), alpha),
            )
            (self._packs,) = self._db.execute(
                "SELECT id FROM packs WHERE digest = ?", (packs,)
            ).fetchone()
            which = (text, self._packs)
            self._db.execute("INSERT OR IGNORE INTO sweep (query, packs) VALUES (?, ?)", which)
            if not resume:
                self._db.execute(
                    "UPDATE sweep SET cursor = NULL, listed = 0, finished = 0 "
                    "WHERE query = ? AND packs = ?",
                    which,
                )
            self._db.execute(
                "UPDATE sweep SET started = ? WHERE query = ? AND packs = ?",
                (self._now(), *which),
            )
            self._sweep, cursor, listed, finished = self._db.execute(
                "SELECT id, cursor, listed, finished FROM sweep WHERE query = ? AND packs = ?",
                which,
            ).fetchone()
            self._reopen(() if resume else ("refused",))
        return Checkpoint(cursor, listed, bool(finished))

    def _reopen(self, more: tuple[str, ...]) -> None:
        """Gives what an earlier run gave up another chance, at once."""
        states = ("waiting", "exhausted", *more)
        among = f"sweep = ? AND state IN ({', '.join('?' * len(states))})"
        self._db.execute(
            f"UPDATE repository SET state = 'waiting', attempts = 0, retry_at = 0 WHERE {among}",
            (self._sweep, *states),
        )
        self._db.execute(
            f"DELETE FROM adapter WHERE content = '' AND {among}",
            (self._sweep, *states),
        )
        self._db.execute(
            "UPDATE adapter SET state = 'duplicate', attempts = 0, retry_at = 0, verdict = NULL, "
            f"reason = NULL WHERE {among}",
            (self._sweep, *states),
        )
        self._settle_all()

    def _settle_all(self) -> None:
        """Settles every content of which this sweep has a duplicate."""
        contents = self._db.execute(
            "SELECT DISTINCT content FROM adapter WHERE sweep = ? AND state = 'duplicate'",
            (self._sweep,),
        ).fetchall()
        for (content,) in contents:
            self._settle(content)

    def add_page(
        self, repositories: Sequence[ListedRepository], cursor: str | None, *, finished: bool
    ) -> None:
        """Notes a page of the listing, and where the next one is.

        What is already finished with these packs stays finished; what another sweep left
        undone becomes this one's.
        """
        adopted = 0
        for item in repositories:
            place = (item.name, item.revision, self._packs)
            self._db.execute(
                "INSERT INTO repository (repository, revision, packs, sweep) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET sweep = excluded.sweep",
                (*place, self._sweep),
            )
            adopted += self._db.execute(
                "UPDATE adapter SET sweep = ?, "
                "state = CASE state WHEN 'waiting' THEN 'duplicate' ELSE state END "
                "WHERE repository = ? AND revision = ? AND packs = ? AND sweep <> ?",
                (self._sweep, *place, self._sweep),
            ).rowcount
        if adopted:
            self._settle_all()
        self._db.execute(
            "UPDATE sweep SET cursor = ?, finished = ?, listed = listed + ? WHERE id = ?",
            (cursor, int(finished), len(repositories), self._sweep),
        )

    def add_traffic(self, traffic: Traffic) -> None:
        """Adds to what the sweep has asked of the hub."""
        self._db.execute(
            "UPDATE sweep SET requests = requests + ?, received = received + ? WHERE id = ?",
            (traffic.requests, traffic.received, self._sweep),
        )

    def waiting(self) -> Waiting:
        """The repositories and adapters without a verdict."""
        return Waiting(self._db, self._sweep, self._clock)

    def looked_up(self, key: int, adapters: Sequence[FoundAdapter]) -> None:
        """Notes what is in a repository.

        An adapter whose content was already judged with these packs gets that verdict at
        once; one whose content waits under another address gets that verdict when it is there.
        """
        repository, revision = self._db.execute(
            "SELECT repository, revision FROM repository WHERE id = ?", (key,)
        ).fetchone()
        self._db.execute("UPDATE repository SET state = 'looked-up' WHERE id = ?", (key,))
        for found in adapters:
            self._db.execute(
                "INSERT OR IGNORE INTO adapter (sweep, repository, revision, subfolder, content, "
                "files, packs, state) VALUES (?, ?, ?, ?, ?, ?, ?, 'duplicate')",
                (
                    self._sweep,
                    repository,
                    revision,
                    found.subfolder,
                    found.content,
                    msgspec.json.encode(found.files).decode(),
                    self._packs,
                ),
            )
            self._settle(found.content)

    def _settle(self, content: str) -> None:
        """Has a content judged once: its duplicates get its verdict, or one of them waits for it.

        Everything that is found starts as a duplicate. If its content has been judged with these
        packs, it gets that verdict; if not, the first of the duplicates becomes the one that waits
        to be judged, unless one waits already, and `judged` gives the others its verdict.
        """
        judged = self._db.execute(
            "SELECT coalesce(copy_of, id) FROM adapter "
            "WHERE content = ? AND packs = ? AND state = 'judged' LIMIT 1",
            (content, self._packs),
        ).fetchone()
        if judged is not None:
            self._copy(judged[0])
            return
        place = (content, self._packs, self._sweep)
        self._db.execute(
            "UPDATE adapter SET state = 'waiting' WHERE id = (SELECT min(id) FROM adapter "
            "WHERE content = ? AND packs = ? AND sweep = ? AND state = 'duplicate') "
            "AND NOT EXISTS (SELECT 1 FROM adapter WHERE content = ? AND packs = ? AND sweep = ? "
            "AND state = 'waiting')",
            (*place, *place),
        )

    def judged(self, item: Judgement) -> None:
        """Notes a verdict, and copies it to everything of the same content."""
        self._db.execute(
            f"UPDATE adapter SET state = 'judged', attempts = attempts + 1, ({_NUMBERS}) = "
            "(?, ?, ?, ?, ?, ?, ?, ?), reason = ?, files = NULL WHERE id = ?",
            (
                item.verdict.value,
                item.base_model,
                item.score,
                item.dose,
                item.cosine,
                item.p_value,
                version(),
                self._now(),
                item.reason,
                item.key,
            ),
        )
        self._db.execute("INSERT INTO result VALUES (?, ?)", (item.key, item.result))
        self._copy(item.key)

    def _copy(self, key: int) -> None:
        """Gives every other adapter of the same content its verdict, under its own address.

        Those that could not be had too: to know what they contain is to know their verdict.
        """
        content, *place, reason = self._db.execute(
            "SELECT content, repository, revision, subfolder, reason FROM adapter WHERE id = ?",
            (key,),
        ).fetchone()
        others = self._db.execute(
            "SELECT id, repository, revision, subfolder FROM adapter "
            "WHERE content = ? AND packs = ? AND state <> 'judged'",
            (content, self._packs),
        ).fetchall()
        mine = target_of(*place)
        for other, *its_place in others:
            self._db.execute(
                f"UPDATE adapter SET state = 'judged', copy_of = ?, ({_NUMBERS}) = "
                f"(SELECT {_NUMBERS} FROM adapter WHERE id = ?), reason = ?, files = NULL "
                "WHERE id = ?",
                (key, key, reason.replace(mine, target_of(*its_place)), other),
            )

    def give_up(self, task: Task, reason: str, *, for_good: bool) -> None:
        """Notes that something cannot be had, as a row with the verdict ``error``.

        Args:
            task: What was tried.
            reason: Why, as one line.
            for_good: Trying again would not help; otherwise the next run of the sweep tries.
        """
        state = "refused" if for_good else "exhausted"
        last_attempt = int(for_good)  # what was put off before has been counted already
        if isinstance(task, LookUp):
            self._give_up_repository(task, reason, state, last_attempt)
            return
        self._db.execute(
            f"UPDATE adapter SET state = ?, attempts = attempts + ?, ({_ERROR}) = "
            "('error', ?, ?, ?) WHERE id = ?",
            (state, last_attempt, reason, version(), self._now(), task.key),
        )
        self._settle(task.content)  # another address may give the same content

    def _give_up_repository(self, task: LookUp, reason: str, state: str, last_attempt: int) -> None:
        """As `give_up`. What is in the repository is unknown: it counts as one adapter."""
        self._db.execute(
            "UPDATE repository SET state = ?, attempts = attempts + ? WHERE id = ?",
            (state, last_attempt, task.key),
        )
        self._db.execute(
            "INSERT INTO adapter (sweep, repository, revision, subfolder, content, packs, state, "
            f"attempts, {_ERROR}) SELECT sweep, repository, revision, '', '', packs, state, "
            "attempts, 'error', ?, ?, ? FROM repository WHERE id = ? "
            f"ON CONFLICT DO UPDATE SET (state, attempts, {_ERROR}) = (excluded.state, "
            "excluded.attempts, excluded.verdict, excluded.reason, excluded.version, "
            "excluded.finished)",
            (reason, version(), self._now(), task.key),
        )

    def put_off(self, task: Task, until: float, *, counts: bool) -> int:
        """Notes that a task is to be tried again.

        Args:
            task: What was tried.
            until: When, in seconds since the epoch.
            counts: Whether it was an attempt; meeting a rate limit is none.

        Returns:
            The attempts so far.
        """
        table = "repository" if isinstance(task, LookUp) else "adapter"
        self._db.execute(
            f"UPDATE {table} SET attempts = attempts + ?, retry_at = ? WHERE id = ?",
            (int(counts), until, task.key),
        )
        (attempts,) = self._db.execute(
            f"SELECT attempts FROM {table} WHERE id = ?",
            (task.key,),
        ).fetchone()
        return int(attempts)

    def _now(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
