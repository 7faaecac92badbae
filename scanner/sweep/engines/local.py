"""The engine of one machine: threads, in as many processes as keep its cores busy.

Most of a task's time is spent waiting for the hub, which threads do well. The rest is short
products and the interpreter between them, which threads of one process do one after the other. So
where there is more work than the threads of this process can take at once, other processes
take from the same queue.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Thread

from scanner.errors import SignatureError, say_options_by_flag, says_options_by_flag
from scanner.hub.client import HubClient, RetryPolicy
from scanner.signatures.pack import Signature, load_signature
from scanner.sweep.records import Outcome, Setback, Task
from scanner.sweep.work import Worker
from scanner.system.processor import cores, settle

_AHEAD = 2
"""Tasks held per thread: one being done, one at hand when it is finished."""
_THREADS_EACH = 4
"""Fewest threads of a process: with fewer it would mostly wait for the hub."""
_JOIN_SECONDS = 5.0

Packs = Sequence[tuple[Path, str]]
"""Folder and digest of each pack."""


class LocalEngine:
    """Does tasks on this machine.

    Nothing waits for its threads or processes: a sweep that is interrupted does not wait for
    answers of the hub that nobody needs any more.

    Args:
        worker: What does one task; it returns an outcome whatever happens.
        jobs: Tasks done at once.
        processes: Processes that share them, this one included; by default one for each core, as
            long as each has some threads. Others are started when they are needed.
    """

    def __init__(self, worker: Worker, jobs: int, processes: int | None = None) -> None:
        if processes is None:
            processes = max(1, min(cores(), jobs // _THREADS_EACH))
        self._worker = worker
        self._jobs = jobs
        self.shares = [jobs // processes + (n < jobs % processes) for n in range(processes)]
        """Threads of each process, this one first."""
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._closing = Event()
        self._helpers: list[Thread] = []
        self._processes: list[_Process] = []
        for number in range(self.shares[0]):
            Thread(target=self._serve, name=f"sweep-{number}", daemon=True).start()

    @property
    def capacity(self) -> int:
        """Tasks it wants to hold at once."""
        return self._jobs * _AHEAD

    def submit(self, task: Task) -> None:
        """Accepts one task and returns at once."""
        self._tasks.put(task)
        here, *elsewhere = self.shares
        if not self._helpers and elsewhere and self._tasks.qsize() > here:
            self._helpers = [
                Thread(target=self._help, args=(threads,), daemon=True) for threads in elsewhere
            ]
            for helper in self._helpers:
                helper.start()

    def _next(self) -> Task | None:
        """The next task, as soon as there is one; None for every thread once the sweep ends."""
        task = self._tasks.get()
        if task is None:
            self._tasks.put(None)
        return task

    def _serve(self) -> None:
        while (task := self._next()) is not None:
            self._done.put(self._worker(task))

    def _help(self, threads: int) -> None:
        """Keeps one other process at work; one that is lost is replaced.

        One that never begins, where a machine allows no processes, is not: this one does its work.
        """
        begun = True
        while begun and not self._closing.is_set():
            with _Process(self._worker, threads) as process:
                self._processes.append(process)
                begun = process.is_ready = process.begins()
                for end in process.ends if begun else []:
                    Thread(target=self._ask, args=(end,), daemon=True).start()
                if begun:
                    process.wait()
                self._processes.remove(process)

    def _ask(self, end: Connection) -> None:
        """Has one thread of another process do tasks, until it or the sweep ends."""
        with end:
            while (task := self._next()) is not None:
                if _has_ended(end):  # while there was nothing to do
                    self._tasks.put(task)
                    return
                try:
                    end.send(task)
                    self._done.put(end.recv())
                except (EOFError, OSError):
                    self._done.put(Setback(task=task, reason="the process that did it was lost"))
                    return

    def outcomes(self, timeout: float) -> list[Outcome]:
        """What has been done since the last call."""
        found = []
        try:
            found.append(self._done.get(timeout=timeout))
            while True:
                found.append(self._done.get_nowait())
        except queue.Empty:
            return found

    def close(self) -> None:
        """Stops; tasks that have not begun are dropped."""
        self._closing.set()
        try:
            while True:
                self._tasks.get_nowait()
        except queue.Empty:
            self._tasks.put(None)
        for process in list(self._processes):
            process.end()
        for helper in self._helpers:
            helper.join(_JOIN_SECONDS)


class _Process:
    """Another process that does tasks, and the ends of its threads' connections.

    Args:
        worker: What it does them with: its own of the same kind.
        threads: How many at once.
    """

    def __init__(self, worker: Worker, threads: int) -> None:
        # A fork would share connections to the hub and locks that other threads hold.
        context = multiprocessing.get_context("spawn")
        pairs = [context.Pipe() for _ in range(threads)]
        packs = [(item.path, item.digest) for item in worker.signatures]
        self.is_ready = False
        self.ends = [mine for mine, _ in pairs]
        self._theirs = [theirs for _, theirs in pairs]
        self._process = context.Process(
            target=_work,
            args=(
                self._theirs,
                packs,
                worker.alpha,
                worker.client.endpoint,
                worker.client.policy,
                says_options_by_flag(),
            ),
            daemon=True,
        )

    @property
    def pid(self) -> int | None:
        """Its process id; None until it was started."""
        return self._process.pid

    def begins(self) -> bool:
        """Starts it, and waits until it is ready; whether it is.

        If it is, `ends` are to be closed by those who use them.
        """
        try:
            self._process.start()
            for end in self._theirs:
                end.close()
            return all(end.recv() for end in self.ends)
        except (EOFError, OSError, RuntimeError):
            for end in self.ends:
                end.close()
            return False

    def wait(self) -> None:
        """Until it ends, or is ended."""
        multiprocessing.connection.wait([self._process.sentinel])

    def end(self) -> None:
        """Ends it, whatever it is doing."""
        if self.pid is not None:
            self._process.terminate()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        if self.pid is not None:
            self._process.join()


def _has_ended(end: Connection) -> bool:
    """Whether there is nobody at the other end of a connection that answers only when asked."""
    try:
        return end.poll()
    except OSError:
        return True


def _work(
    ends: Sequence[Connection],
    packs: Packs,
    alpha: float | None,
    endpoint: str,
    policy: RetryPolicy,
    by_flag: bool,
) -> None:
    """What the other process does: a thread for each connection, until its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C reaches all; the parent ends this one
    settle()
    say_options_by_flag(by_flag)
    try:
        signatures = [_loaded(*pack) for pack in packs]
    except SignatureError:
        return  # the parent, which has the packs open, does all the work
    worker = Worker(HubClient(endpoint, policy), signatures, alpha)
    for end in ends:
        Thread(target=_answer, args=(end, worker), daemon=True).start()
    parent = multiprocessing.parent_process()
    assert parent is not None, "it was started by another"
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _answer(end: Connection, worker: Worker) -> None:
    try:
        end.send(True)
        while True:
            end.send(worker(end.recv()))
    except (EOFError, OSError):
        return  # the parent has ended


def _loaded(path: Path, digest: str) -> Signature:
    signature = load_signature(path)
    if signature.digest != digest:
        raise SignatureError("changed while it was in use", where=str(path))
    return signature
