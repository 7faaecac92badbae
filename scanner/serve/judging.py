"""The threads that turn queued jobs into verdicts, and verdicts into what registries show."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from scanner.reports.terminal import printable
from scanner.serve.events import Platform
from scanner.serve.jobs import Job, JobStore, State
from scanner.serve.metrics import Metrics
from scanner.serve.platforms import (
    ChangedSinceError,
    JudgedSubject,
    UnreachableError,
    WriteRefusedError,
)
from scanner.serve.supervisor import Interrupted, Judged, NotNow, Supervisor
from scanner.serve.writers import Writers
from scanner.system.backoff import Backoff

log = logging.getLogger("adapter_scanner.serve")

_IDLE_SECONDS = 5.0
_MOST_INTERRUPTIONS = 5
_BACKOFF = Backoff(first=1.0, longest=600.0, jitter=0.5)
_DISK_PAUSE = 5.0
_GRACE_SECONDS = 10.0
EXIT_INTERNAL = 3
"""Exit status after an internal error."""


class Judging:
    """Scans and writes back until stopped.

    Args:
        path: The jobs' file.
        reports: Directory of the reports, named by job.
        supervisor: Runs the scans.
        writers: Write verdicts back.
        metrics: Told of what happens.
        platforms: Those that are served; jobs of others wait until they are again.
        workers: Scans at a time.
        patience: Seconds after its delivery, or its verdict, for which a job is tried again.
    """

    def __init__(
        self,
        *,
        path: Path,
        reports: Path,
        supervisor: Supervisor,
        writers: Writers,
        metrics: Metrics,
        platforms: Sequence[Platform],
        workers: int,
        patience: float,
    ) -> None:
        self._path = path
        self._reports = reports
        self._supervisor = supervisor
        self._writers = writers
        self._metrics = metrics
        self._patience = patience
        self._stopping = threading.Event()
        self._queued = threading.Event()
        self._judged = threading.Event()
        self.trouble: str | None = None
        """Why nothing can be recorded at present; None if it can."""
        self._threads = [
            threading.Thread(target=self._scan_all, args=(platforms,), daemon=True)
            for _ in range(workers)
        ]
        # One writer for each: a platform that does not answer holds up no other, and two
        # verdicts on one repository are never written at the same time.
        self._threads += [
            threading.Thread(target=self._write_all, args=([platform],), daemon=True)
            for platform in platforms
        ]

    def start(self) -> None:
        """Starts the threads that judge and those that write verdicts back."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Wakes the threads: there may be a new job."""
        self._queued.set()
        self._judged.set()

    @property
    def alive(self) -> bool:
        """Whether every thread still runs."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Lets running scans end if they do soon; what does not is scanned after a restart."""
        self._stopping.set()
        self._supervisor.drain()
        self.wake()
        self._join(_GRACE_SECONDS)
        self._supervisor.stop()
        # A registry that does not answer holds nothing up: `recover` takes its verdict up.
        self._join(_GRACE_SECONDS)

    def _join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _scan_all(self, platforms: Sequence[Platform]) -> None:
        self._work(State.QUEUED, platforms, self._queued, JobStore.claim_scan, self._scan)

    def _write_all(self, platforms: Sequence[Platform]) -> None:
        self._work(State.JUDGED, platforms, self._judged, JobStore.claim_writing, self._write)

    def _work(
        self,
        state: State,
        platforms: Sequence[Platform],
        news: threading.Event,
        claim: Callable[[JobStore, float, Sequence[Platform]], Job | None],
        do: Callable[[JobStore, Job], None],
    ) -> None:
        """Does one job after another.

        An error that nobody has foreseen ends the whole process: everything is on disk, and
        a service manager starts it again, which a thread that is missing would not be.
        """
        try:
            store = JobStore(self._path)
            while not self._stopping.is_set():
                news.clear()  # what comes from here on is seen below, or wakes
                try:
                    job = claim(store, time.time(), platforms)
                    if job is not None:
                        do(store, job)
                        continue
                    due = store.next_due(state, platforms)
                except sqlite3.OperationalError as error:
                    self._wait_for_disk(error)
                    continue
                left = _IDLE_SECONDS if due is None else max(0.0, due - time.time())
                if not self._stopping.is_set():
                    news.wait(min(left, _IDLE_SECONDS))
            store.close()
        except BaseException as error:
            log.critical("internal error: %s: %s", type(error).__name__, printable(str(error)))
            os._exit(EXIT_INTERNAL)

    def _wait_for_disk(self, error: sqlite3.OperationalError) -> None:
        self.trouble = f"the state cannot be written: {error}"
        log.error(self.trouble)
        self._stopping.wait(_DISK_PAUSE)

    def _record(self, step: Callable[[], None]) -> None:
        """Takes one step in the jobs' file, however long its disk needs to have room again."""
        while True:
            try:
                step()
            except sqlite3.OperationalError as error:
                self._wait_for_disk(error)
                if self._stopping.is_set():
                    return  # `recover` takes it up
            else:
                self.trouble = None
                return

    def _scan(self, store: JobStore, job: Job) -> None:
        platform = job.subject.platform
        started = time.monotonic()
        try:
            outcome = self._outcome(job)
        except Exception as error:  # no room for its files, no process to be had: its time comes
            outcome = NotNow(f"{type(error).__name__}: {error}")
        now = time.time()
        if isinstance(outcome, Judged):
            self._metrics.scan_seconds.labels(platform).observe(time.monotonic() - started)
            self._metrics.verdicts.labels(platform, outcome.verdict).inc()
            self._record(lambda: store.judged(job, outcome.verdict, now))
            log.info("%s: %s", outcome.verdict, printable(job.subject.label))
            self._judged.set()
            return
        interrupted = isinstance(outcome, Interrupted)
        reason = "interrupted" if isinstance(outcome, Interrupted) else outcome.reason
        due = now if interrupted else now + _BACKOFF.wait(job.attempts)
        self._record(lambda: store.scan_again(job, due, reason, interrupted=interrupted))
        log.warning("not judged yet: %s: %s", printable(job.subject.label), printable(reason))

    def _outcome(self, job: Job) -> Judged | NotNow | Interrupted:
        """What comes of a scan; a job that has been tried for long enough ends with an error."""
        if job.interruptions >= _MOST_INTERRUPTIONS:
            reason = f"its scan was begun {job.interruptions} times and came to nothing"
            return self._supervisor.fail(job.id, job.subject, reason)
        outcome = self._supervisor.judge(job.id, job.subject)
        if isinstance(outcome, NotNow) and time.time() - job.received > self._patience:
            return self._supervisor.fail(job.id, job.subject, outcome.reason)
        return outcome

    def _write(self, store: JobStore, job: Job) -> None:
        result, note = self._try_to_write(job)
        self._metrics.write_backs.labels(job.subject.platform, result).inc()
        if result == "written":
            self._record(lambda: store.written(job))
            return
        log.warning("not written back: %s: %s", printable(job.subject.label), printable(note))
        since = max(job.received, job.judged or 0.0)
        if result == "changed":
            self._record(lambda: store.judge_afresh(job, time.time(), note))
            self.wake()
        elif result == "refused" or time.time() - since > self._patience:
            self._record(lambda: store.give_up(job, note))
        else:
            due = time.time() + _BACKOFF.wait(job.attempts)
            self._record(lambda: store.write_again(job, due, note))

    def _try_to_write(self, job: Job) -> tuple[str, str]:
        """How a try ended, and what to note of it."""
        path = self._reports / f"{job.id}.json"
        try:
            judged = msgspec.json.decode(path.read_bytes(), type=JudgedSubject)
        except (OSError, msgspec.MsgspecError) as error:
            return "refused", f"the report cannot be read: {error}"
        try:
            self._writers.of(job.subject.platform)(job.subject, judged)
        except UnreachableError as error:
            return "unreachable", error.line()
        except WriteRefusedError as error:
            return "refused", error.line()
        except ChangedSinceError as error:
            return "changed", error.line()
        except Exception as error:  # the thread must outlive whatever a client library raises
            return "failed", f"{type(error).__name__}: {error}"
        return "written", ""
