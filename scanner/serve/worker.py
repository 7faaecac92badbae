"""A worker process: fetches and scans one subject under limits, then ends.

What it reads is hostile until judged, so the process holds no secret of the server's, and what
it says is read as data. It writes its report into the job's own directory and sends one
message through a pipe.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Literal

import msgspec

from scanner.errors import AdapterScannerError, TargetError, unforeseen
from scanner.gates.artifact import artifact_sha256
from scanner.gates.judgement import Judgement, judge_directory
from scanner.reports import renderer
from scanner.reports.assemble import assemble
from scanner.results import Verdict
from scanner.scanning.targets import ScanOptions, error_result
from scanner.serve.events import Subject
from scanner.serve.platforms import JudgedSubject, UnreachableError, fetcher
from scanner.signatures.pack import read_signature

REPORT_NAME = "verdict.json"
PAGE_NAME = "verdict.html"
MEGABYTE = 1_000_000


class Limits(msgspec.Struct, frozen=True):
    """How much memory and time one job may use."""

    memory_megabytes: int
    """Address space beyond what the program itself takes."""
    scan_seconds: float
    fetch_seconds: float
    download_megabytes: int


class Task(msgspec.Struct, frozen=True):
    """One job, as a worker is told of it."""

    subject: Subject
    directory: str
    """An empty directory that only this job uses."""
    signatures: list[str]
    alpha: float | None
    base_model: str | None
    limits: Limits
    permit: str | None = None
    """Lets it fetch what nobody may read before it is judged."""


class Message(msgspec.Struct, frozen=True):
    """What a worker process sends to the server."""

    kind: Literal["started", "fetched", "judged", "unreachable", "failed"]
    text: str = ""
    """The verdict, or what went wrong."""
    created: int | None = None
    """The platform's time stamp of what was fetched."""
    artifact_sha256: str | None = None
    """Digest of what was fetched."""


def run(sender: connection.Connection, encoded: bytes) -> None:
    """Fetches and scans one job; the main function of a worker process.

    Args:
        sender: Takes `Message` as JSON.
        encoded: The `Task` as JSON.
    """
    task = msgspec.json.decode(encoded, type=Task)
    _apart_from_the_server()
    _limit(task.limits)
    _send(sender, Message("started"))
    try:
        message = _judge(sender, task)
    except UnreachableError as error:
        message = Message("unreachable", error.line())
    except AdapterScannerError as error:
        message = Message("failed", error.line())
    except Exception as error:  # whatever a hostile file provokes is one job's own end
        message = Message("failed", unforeseen(error))
    _send(sender, message)


def _send(sender: connection.Connection, message: Message) -> None:
    sender.send_bytes(msgspec.json.encode(message))


def _apart_from_the_server() -> None:
    """A process group of its own, which ends with the server."""
    os.setsid()
    # Ctrl-C is for the server, which decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = parent_process()
    assert server is not None, "a worker is started by the server"

    def end_with_server() -> None:
        connection.wait([server.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_server, daemon=True).start()


def _limit(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    file_size = limits.download_megabytes * MEGABYTE
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    # Beyond its limit a write is to fail like any other, not to end the process.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    memory = _address_space() + limits.memory_megabytes * MEGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _address_space() -> int:
    """Bytes of address space this process has now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _judge(sender: connection.Connection, task: Task) -> Message:
    directory = Path(task.directory)
    files = directory / "files"
    files.mkdir()
    signatures = [read_signature(pack) for pack in task.signatures]
    options = ScanOptions(signatures, task.alpha, task.base_model, jobs=1)
    subject = task.subject
    try:
        fetch = fetcher(subject.platform)
        most_bytes = task.limits.download_megabytes * MEGABYTE
        created = fetch(subject, files, most_bytes, task.permit)
        digest = artifact_sha256(files)
        _send(sender, Message("fetched", created=created, artifact_sha256=digest))
        judgement = judge_directory(
            files, options, model=subject.name, model_version=subject.revision, created=created
        )
    except TargetError as error:
        report = assemble([error_result(subject.label, error)], signatures)
        write_verdict(JudgedSubject(report, None), directory)
        return Message("judged", Verdict.ERROR.value)
    write_verdict(_labelled(judgement, files.name, subject.label), directory)
    return Message("judged", judgement.attestation.verdict.value)


def _labelled(judgement: Judgement, root: str, label: str) -> JudgedSubject:
    """A verdict whose report names files by where they come from."""
    results = [
        msgspec.structs.replace(
            result, target=label if result.target == root else f"{label}/{result.target}"
        )
        for result in judgement.report.results
    ]
    report = msgspec.structs.replace(judgement.report, results=results)
    return JudgedSubject(report, judgement.attestation)


def write_verdict(judged: JudgedSubject, directory: Path) -> None:
    """Writes a verdict for this program and its report for people."""
    (directory / REPORT_NAME).write_bytes(msgspec.json.encode(judged))
    (directory / PAGE_NAME).write_text(renderer("html")(judged.report), encoding="utf-8")
