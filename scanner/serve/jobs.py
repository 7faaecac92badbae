"""What has been delivered, judged and written back, in one SQLite file.

A job goes ``queued -> scanning -> judged -> writing -> written``, or ends ``given_up`` when its
verdict could not be written back. Every step is one transaction with ``synchronous = FULL``: once a
function here returns, the step survives a crash and a power cut. The price, an fsync for each,
is shared by deliveries that arrive together (`scanner.serve.intake`).

After a crash, `recover` puts what was being scanned back in the queue; what was judged keeps
its verdict and is only written back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

import msgspec

from scanner.errors import UsageError
from scanner.serve.events import Platform, Subject

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    body_sha256 TEXT NOT NULL,
    received REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX deliveries_received ON deliveries (received);
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL UNIQUE,
    platform TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,
    received REAL NOT NULL,
    judged REAL,
    verdict TEXT,
    note TEXT NOT NULL DEFAULT ''
);
CREATE INDEX jobs_due ON jobs (state, platform, due);
"""
_BUSY_SECONDS = 30.0

Changes = Mapping[str, str | float]
"""Column -> new value."""


class State(str, Enum):
    """What has been done about a job so far."""

    QUEUED = "queued"
    SCANNING = "scanning"
    JUDGED = "judged"
    """The verdict is known and has to be written back."""
    WRITING = "writing"
    WRITTEN = "written"
    GIVEN_UP = "given_up"
    """The verdict is known and could not be written back."""


@dataclass(frozen=True)
class Job:
    """One model version or commit that has to be judged."""

    id: int
    subject: Subject
    state: State
    attempts: int
    """Tries to scan, or since the verdict is known to write it back, this one included."""
    interruptions: int
    """How often its scan was cut short from outside, or came to nothing."""
    received: float
    """When it was last delivered."""
    judged: float | None
    verdict: str | None
    note: str
    """What went wrong last, if anything."""


@dataclass(frozen=True)
class Delivery:
    """One webhook request whose sender has been verified."""

    id: str | None
    """The sender's own id; None if it gives none."""
    body_sha256: str
    subjects: tuple[Subject, ...]
    received: float


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs a page shows; an empty string is any."""

    verdict: str = ""
    """One of the verdicts, or ``none`` where there is none yet."""
    state: str = ""
    platform: str = ""
    model: str = ""
    """What is in the model's name."""
    before: int = 2**63 - 1
    """Only jobs with smaller ids: the page after another."""


ANY = Wanted()


class Acceptance(Enum):
    """What became of a delivery."""

    QUEUED = "queued"
    REPEATED = "repeated"
    """It was delivered before, and everything in it is known."""
    CONFLICT = "conflict"
    """Its id was used before for a request with other content."""


class JobStore:
    """The database of jobs. Every thread has a connection of its own.

    Args:
        path: Created if missing.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Closes this thread's connection."""
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def prepare(self, path: Path) -> None:
        """Creates the tables, if the file is new.

        Raises:
            UsageError: If it was written by another version of this program.
        """
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            # executescript commits by itself; one script is one transaction all the same.
            self._connection.executescript(
                f"BEGIN;{_SCHEMA}PRAGMA user_version = {_SCHEMA_VERSION};COMMIT;"
            )
        elif version != _SCHEMA_VERSION:
            raise UsageError(
                f"state of version {version}, this program writes {_SCHEMA_VERSION}",
                where=str(path),
                todo="name another --state directory",
            )

    def recover(self) -> int:
        """Takes up what a crash has cut short, at the start; returns how many scans that were."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET state = ? WHERE state = ?", (State.JUDGED, State.WRITING))
            return db.execute(
                "UPDATE jobs SET state = ?, interruptions = interruptions + 1 WHERE state = ?",
                (State.QUEUED, State.SCANNING),
            ).rowcount

    def accept(self, deliveries: Sequence[Delivery]) -> list[Acceptance]:
        """Records deliveries, all in one transaction, and queues what is new in them."""
        with self._transaction() as db:
            return [self._accept_one(db, delivery) for delivery in deliveries]

    def _accept_one(self, db: sqlite3.Connection, delivery: Delivery) -> Acceptance:
        if delivery.id is not None:
            known = db.execute(
                "SELECT body_sha256 FROM deliveries WHERE id = ?", (delivery.id,)
            ).fetchone()
            if known is not None:
                same = known["body_sha256"] == delivery.body_sha256
                return Acceptance.REPEATED if same else Acceptance.CONFLICT
            db.execute(
                "INSERT INTO deliveries (id, body_sha256, received) VALUES (?, ?, ?)",
                (delivery.id, delivery.body_sha256, delivery.received),
            )
        new = 0
        for subject in delivery.subjects:
            self._look_again(db, subject, delivery.received)
            new += db.execute(
                "INSERT INTO jobs (subject, platform, state, due, received) "
                "VALUES (?, ?, ?, ?, ?) ON CONFLICT (subject) DO NOTHING",
                (subject.key, subject.platform, State.QUEUED, *[delivery.received] * 2),
            ).rowcount
        return Acceptance.QUEUED if new else Acceptance.REPEATED

    def _look_again(self, db: sqlite3.Connection, subject: Subject, now: float) -> None:
        """Has a finished verdict compared with what stands where the model lives.

        It may have been removed, or the model been made again under the same name: a writer
        writes what is missing, and nothing where nothing is.
        """
        db.execute(
            "UPDATE jobs SET state = ?, due = ?, received = ?, attempts = 0 "
            "WHERE subject = ? AND state IN (?, ?)",
            (State.JUDGED, now, now, subject.key, State.WRITTEN, State.GIVEN_UP),
        )

    def claim_scan(self, now: float, platforms: Sequence[Platform]) -> Job | None:
        """Takes the job of some platforms that is longest due to be scanned."""
        return self._claim(State.QUEUED, State.SCANNING, now, platforms)

    def claim_writing(self, now: float, platforms: Sequence[Platform]) -> Job | None:
        """Takes the verdict of some platforms that is longest due to be written back."""
        return self._claim(State.JUDGED, State.WRITING, now, platforms)

    def _claim(
        self, state: State, then: State, now: float, platforms: Sequence[Platform]
    ) -> Job | None:
        due = f"SELECT id FROM jobs WHERE {_among(platforms)} AND due <= ? ORDER BY due, id LIMIT 1"  # noqa: S608
        wanted = (state, *platforms, now)
        # Looked for before the file is locked: a thread with nothing to do is in nobody's way.
        if self._connection.execute(due, wanted).fetchone() is None:
            return None
        with self._transaction() as db:
            row = db.execute(due, wanted).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE jobs SET state = ?, attempts = attempts + 1 WHERE id = ?",
                (then, row["id"]),
            )
            job = db.execute("SELECT * FROM jobs WHERE id = ?", (row["id"],)).fetchone()
        return _as_job(job)

    def judged(self, job: Job, verdict: str, now: float) -> None:
        """Records a verdict, which from now on has to be written back."""
        changes: Changes = {
            "due": now,
            "judged": now,
            "verdict": verdict,
            "attempts": 0,
            "note": "",
        }
        self._move(job, State.SCANNING, State.JUDGED, changes)

    def scan_again(self, job: Job, due: float, note: str, *, interrupted: bool) -> None:
        """Puts a job back in the queue.

        Args:
            job: The job, as claimed.
            due: When to try again.
            note: Why.
            interrupted: Whether its scan had begun and was cut short.
        """
        interruptions = job.interruptions + interrupted
        changes: Changes = {"due": due, "note": note, "interruptions": interruptions}
        self._move(job, State.SCANNING, State.QUEUED, changes)

    def judge_afresh(self, job: Job, now: float, note: str) -> None:
        """Puts a job back in the queue whose verdict is about something that is no more."""
        interruptions = job.interruptions + 1
        changes: Changes = {"due": now, "note": note, "interruptions": interruptions, "attempts": 0}
        self._move(job, State.WRITING, State.QUEUED, changes)

    def written(self, job: Job) -> None:
        """Records that the verdict stands where the model lives."""
        self._move(job, State.WRITING, State.WRITTEN, {"note": ""})

    def write_again(self, job: Job, due: float, note: str) -> None:
        """Says when, and why, to try again to write a verdict back."""
        self._move(job, State.WRITING, State.JUDGED, {"due": due, "note": note})

    def give_up(self, job: Job, note: str) -> None:
        """Records that a verdict cannot be written back, and why."""
        self._move(job, State.WRITING, State.GIVEN_UP, {"note": note})

    def _move(self, job: Job, before: State, after: State, changes: Changes) -> None:
        columns = "".join(f", {name} = ?" for name in changes)
        with self._transaction() as db:
            moved = db.execute(
                f"UPDATE jobs SET state = ?{columns} WHERE id = ? AND state = ?",  # noqa: S608
                (after, *changes.values(), job.id, before),
            ).rowcount
            assert moved == 1, f"job {job.id} is not {before.value}"

    def next_due(self, state: State, platforms: Sequence[Platform]) -> float | None:
        """When the next job of a state is due."""
        row = self._connection.execute(
            f"SELECT min(due) FROM jobs WHERE {_among(platforms)}",  # noqa: S608
            (state, *platforms),
        ).fetchone()
        due: float | None = row[0]
        return due

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        rows = self._connection.execute("SELECT state, count(*) FROM jobs GROUP BY state")
        found = {State(state): count for state, count in rows}
        return {state: found.get(state, 0) for state in State}

    def waiting(self) -> int:
        """How many jobs are queued."""
        row = self._connection.execute(
            "SELECT count(*) FROM jobs WHERE state = ?", (State.QUEUED,)
        ).fetchone()
        return int(row[0])

    def recent(self, most: int, wanted: Wanted = ANY) -> list[Job]:
        """The newest jobs, newest first.

        Args:
            most: How many at most.
            wanted: Which of them.
        """
        rows = self._connection.execute(
            "SELECT * FROM jobs WHERE id < :before "
            "AND (:verdict = '' OR coalesce(verdict, 'none') = :verdict) "
            "AND (:state = '' OR state = :state) AND (:platform = '' OR platform = :platform) "
            "AND instr(lower(json_extract(subject, '$.name')), lower(:model)) "
            "ORDER BY id DESC LIMIT :most",
            {**msgspec.structs.asdict(wanted), "most": most},
        )
        return [_as_job(row) for row in rows]

    def counts_of(self, column: Literal["verdict", "state"]) -> dict[str, int]:
        """Value of a column -> jobs that have it; without a verdict it is ``none``."""
        rows = self._connection.execute(
            f"SELECT coalesce({column}, 'none'), count(*) FROM jobs GROUP BY 1"  # noqa: S608
        )
        return {str(row[0]): int(row[1]) for row in rows}

    def forget(self, deliveries_before: float, jobs_before: float) -> list[int]:
        """Removes old delivery ids and finished jobs; returns the jobs' ids."""
        finished = (State.WRITTEN, State.GIVEN_UP, jobs_before)
        with self._transaction() as db:
            db.execute("DELETE FROM deliveries WHERE received < ?", (deliveries_before,))
            old = db.execute("SELECT id FROM jobs WHERE state IN (?, ?) AND judged < ?", finished)
            numbers = [int(row["id"]) for row in old]
            db.execute("DELETE FROM jobs WHERE state IN (?, ?) AND judged < ?", finished)
        return numbers


def _among(platforms: Sequence[Platform]) -> str:
    """A condition with one place for a state and one for each platform."""
    return f"state = ? AND platform IN ({', '.join('?' * len(platforms))})"


def _as_job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"],
        subject=msgspec.json.decode(row["subject"], type=Subject),
        state=State(row["state"]),
        attempts=row["attempts"],
        interruptions=row["interruptions"],
        received=row["received"],
        judged=row["judged"],
        verdict=row["verdict"],
        note=row["note"],
    )
