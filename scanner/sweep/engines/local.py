"""The engine of one machine: threads, because most of a task's time is spent waiting.

Reading ranges waits for the hub, and numpy's products let go of the interpreter lock, so threads
keep several downloads and more than one core busy.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from threading import Thread

from scanner.sweep.records import Outcome, Task

_AHEAD = 2
"""Tasks held per worker: one being done, one at hand when it is finished."""


class LocalEngine:
    """Does tasks in threads.

    The threads are daemons: a sweep that is interrupted does not wait for answers of the hub
    that nobody needs any more.

    Args:
        work: What does one task; it returns an outcome whatever happens.
        jobs: Threads.
    """

    def __init__(self, work: Callable[[Task], Outcome], jobs: int) -> None:
        self._work = work
        self._jobs = jobs
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        for number in range(jobs):
            Thread(target=self._serve, name=f"sweep-{number}", daemon=True).start()

    @property
    def capacity(self) -> int:
        """Tasks it wants to hold at once."""
        return self._jobs * _AHEAD

    def submit(self, task: Task) -> None:
        """Accepts one task and returns at once."""
        self._tasks.put(task)

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._done.put(self._work(task))

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
        try:
            while True:
                self._tasks.get_nowait()
        except queue.Empty:
            for _ in range(self._jobs):
                self._tasks.put(None)
