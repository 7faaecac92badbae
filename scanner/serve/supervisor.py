"""Runs worker processes, and ends those that take too much.

Workers are forked from a server process that has imported everything and read nothing
(`multiprocessing`'s fork server): a fresh process for every job, without the time a fresh
interpreter takes.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import msgspec

from scanner.errors import LimitExceededError, TargetError, UnreadableFileError
from scanner.gates.attestation import Subject as AttestedSubject
from scanner.gates.judgement import attest
from scanner.reports.assemble import assemble
from scanner.results import Verdict
from scanner.scanning.targets import error_result
from scanner.serve.events import Platform, Subject
from scanner.serve.platforms import JudgedSubject, preloaded
from scanner.serve.worker import (
    PAGE_NAME,
    REPORT_NAME,
    Limits,
    Message,
    Task,
    run,
    write_verdict,
)

_LONGEST_MESSAGE = 100_000
_LARGEST_REPORT = 100_000_000
_FORK_SERVER_DIED = 255
_POLL_SECONDS = 0.5
_START_SECONDS = 300.0
"""No subject has a say in it: only a machine with too much to do takes so long."""


@dataclass(frozen=True)
class Judged:
    """A verdict, with its report in the reports' directory."""

    verdict: str


@dataclass(frozen=True)
class NotNow:
    """No verdict: the platform did not answer."""

    reason: str


@dataclass(frozen=True)
class Interrupted:
    """No verdict: the worker was told to stop."""


Outcome = Judged | NotNow | Interrupted


class Supervisor:
    """Judges subjects in worker processes. Several threads may use it at once.

    Args:
        scratch: Directory for the jobs' own directories; emptied.
        reports: Directory the reports go to.
        signatures: The packs' directories.
        alpha_of: The false-positive rate at which a model is judged, as `scanner.scan`.
        base_model: As `scanner.scan`.
        limits: Of every job.
        platforms: Those that subjects will come from.
        permit: What lets a worker read from a platform what nobody may read before it is judged.
    """

    def __init__(
        self,
        *,
        scratch: Path,
        reports: Path,
        signatures: Sequence[Path],
        alpha_of: Callable[[str], float | None],
        base_model: str | None,
        limits: Limits,
        platforms: Sequence[Platform],
        permit: Callable[[Platform], str | None],
    ) -> None:
        self._scratch = scratch
        self._reports = reports
        self._signatures = [str(path) for path in signatures]
        self._alpha_of = alpha_of
        self._base_model = base_model
        self._limits = limits
        self._permit = permit
        self._draining = threading.Event()
        self._stopping = threading.Event()
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        reports.mkdir(mode=0o700, exist_ok=True)
        self._context = multiprocessing.get_context("forkserver")
        modules = [name for platform in platforms for name in preloaded(platform)]
        self._context.set_forkserver_preload([run.__module__, *modules])

    def drain(self) -> None:
        """Ends the workers that are still fetching; their jobs start again after a restart."""
        self._draining.set()

    def stop(self) -> None:
        """Ends every worker."""
        self._draining.set()
        self._stopping.set()

    def judge(self, job: int, subject: Subject) -> Outcome:
        """Fetches and scans one subject.

        Args:
            job: Names the report.
            subject: What to judge.

        Returns:
            A verdict whatever the subject does to its worker; none only if the platform
            does not answer or the server stops.
        """
        directory = Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            task = Task(
                subject,
                str(directory),
                self._signatures,
                self._alpha_of(subject.name),
                self._base_model,
                self._limits,
                self._permit(subject.platform),
            )
            return self._run(job, task, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def fail(self, job: int, subject: Subject, reason: str) -> Judged:
        """The verdict ``error``, with a report that gives the reason."""
        return self._fail(job, subject, UnreadableFileError(reason), None)

    def _run(self, job: int, task: Task, directory: Path) -> Outcome:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=run, args=(sender, msgspec.json.encode(task)))
        with receiver, sender:
            process.start()
            sender.close()  # the worker has its own: when that ends, so does the pipe
            return self._follow(job, task, directory, process, receiver)

    def _follow(
        self,
        job: int,
        task: Task,
        directory: Path,
        process: ForkServerProcess,
        receiver: connection.Connection,
    ) -> Outcome:
        """Waits for a worker's end, as long as it may take."""
        fetched: Message | None = None
        try:
            message = self._wait(receiver, _START_SECONDS, self._draining)
            if message is None and not self._draining.is_set():
                return NotNow(f"no worker within {_START_SECONDS:g} s")
            if message is not None and message.kind == "started":
                message = self._wait(receiver, self._limits.fetch_seconds, self._draining)
                if message is None and not self._draining.is_set():
                    return NotNow(f"not fetched within {self._limits.fetch_seconds:g} s")
            if message is not None and message.kind == "fetched":
                fetched = message
                message = self._wait(receiver, self._limits.scan_seconds, self._stopping)
                if message is None and not self._stopping.is_set():
                    what = f"the scan takes longer than {self._limits.scan_seconds:g} s"
                    return self._fail(job, task.subject, LimitExceededError(what), fetched)
        except EOFError:
            return self._died(job, task, process, fetched)
        finally:
            _end(process)
        if message is None:
            return Interrupted()
        if message.kind == "unreachable":
            return NotNow(message.text)
        if message.kind == "judged" and _is_whole(message.text, directory):
            self._store(job, directory)
            return Judged(message.text)
        what = message.text if message.kind == "failed" else "the scan gave no verdict"
        return self._fail(job, task.subject, UnreadableFileError(what), fetched)

    def _wait(
        self, receiver: connection.Connection, seconds: float, end: threading.Event
    ) -> Message | None:
        """The worker's next message; None if it takes too long, or it is to end.

        Raises:
            EOFError: If the worker ends without one.
        """
        deadline = time.monotonic() + seconds
        while not end.is_set() and (left := deadline - time.monotonic()) > 0:
            if receiver.poll(min(left, _POLL_SECONDS)):
                try:
                    encoded = receiver.recv_bytes(_LONGEST_MESSAGE)
                    return msgspec.json.decode(encoded, type=Message)
                except (OSError, msgspec.MsgspecError):
                    raise EOFError from None
        return None

    def _died(
        self, job: int, task: Task, process: ForkServerProcess, fetched: Message | None
    ) -> Outcome:
        process.join(_POLL_SECONDS)
        if self._stopping.is_set() or process.exitcode in (-signal.SIGTERM, _FORK_SERVER_DIED):
            return Interrupted()
        how = f"signal {-process.exitcode}" if process.exitcode else "an early end"
        error = LimitExceededError(f"the scan ended by {how}")
        return self._fail(job, task.subject, error, fetched)

    def _fail(
        self, job: int, subject: Subject, error: TargetError, fetched: Message | None
    ) -> Judged:
        """The verdict ``error``, bound to what was fetched if anything was."""
        results = [error_result(subject.label, error)]
        report = assemble(results, [])
        attestation = None
        if fetched is not None and fetched.artifact_sha256 is not None:
            attested = AttestedSubject(
                model=subject.name,
                version=subject.revision,
                created=fetched.created,
                artifact_sha256=fetched.artifact_sha256,
            )
            attestation = attest(results, report, attested)
        with tempfile.TemporaryDirectory(dir=self._scratch) as name:
            write_verdict(JudgedSubject(report, attestation), Path(name))
            self._store(job, Path(name))
        return Judged(Verdict.ERROR.value)

    def _store(self, job: int, directory: Path) -> None:
        """Moves a report to its place, on disk before its job is recorded as judged."""
        for name in (REPORT_NAME, PAGE_NAME):
            path = directory / name
            _make_durable(path)
            os.replace(path, self._reports / f"{job}{path.suffix}")
        _make_durable(self._reports)


def _is_whole(verdict: str, directory: Path) -> bool:
    """Whether a worker has left what it says it has, and no more than a server can read."""
    if verdict not in {item.value for item in Verdict}:
        return False
    paths = [directory / REPORT_NAME, directory / PAGE_NAME]
    if any(path.is_symlink() or not path.is_file() for path in paths):
        return False
    return all(path.stat().st_size <= _LARGEST_REPORT for path in paths)


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _end(process: ForkServerProcess) -> None:
    """Ends a worker with whatever it has started, and waits for it."""
    if process.pid is not None and process.exitcode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
    process.join()
    process.close()
