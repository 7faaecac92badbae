"""Writes deliveries to disk before they are answered.

One thread writes. Deliveries that arrive while it waits for the disk go into its next
transaction together, so that the rate is not bound by the time of one fsync.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from scanner.serve.jobs import Acceptance, Delivery, JobStore
from scanner.serve.verification import RefusedError

_LARGEST_BATCH = 256
_MOST_WAITING = 2_048

_Entry = tuple[Delivery, "asyncio.Future[Acceptance]", asyncio.AbstractEventLoop]


class Intake:
    """Accepts deliveries from the event loop.

    Args:
        path: The jobs' file.
        longest_queue: Jobs that may wait; beyond it senders are told to come back.
        on_news: Called, in the writing thread, when there may be something to do.
    """

    def __init__(self, path: Path, longest_queue: int, on_news: Callable[[], None]) -> None:
        self._path = path
        self._longest_queue = longest_queue
        self._on_news = on_news
        self._entries: queue.Queue[_Entry | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Starts the thread that writes deliveries to the database."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread that writes deliveries still runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Writes what has arrived, then ends."""
        self._entries.put(None)
        self._thread.join()

    async def accept(self, delivery: Delivery) -> Acceptance:
        """Records a delivery; when this returns it is on disk.

        Raises:
            RefusedError: If there is no room for it now.
        """
        if not self.alive:
            raise RefusedError(503, "deliveries are not taken now")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Acceptance] = loop.create_future()
        try:
            self._entries.put_nowait((delivery, done, loop))
        except queue.Full:
            raise RefusedError(503, "too many deliveries at once") from None
        return await done

    def _run(self) -> None:
        store = JobStore(self._path)
        ends = False
        while not ends:
            batch = [self._entries.get()]
            while len(batch) < _LARGEST_BATCH and not self._entries.empty():
                batch.append(self._entries.get_nowait())
            ends = None in batch
            entries = [entry for entry in batch if entry is not None]
            if entries:
                self._write(store, entries)
        store.close()

    def _write(self, store: JobStore, entries: list[_Entry]) -> None:
        """One transaction; whatever goes wrong with it is told to every sender."""
        try:
            if store.waiting() + len(entries) > self._longest_queue:
                raise RefusedError(503, "the queue is full")
            results = store.accept([delivery for delivery, _, _ in entries])
        except Exception as error:
            for _, done, loop in entries:
                loop.call_soon_threadsafe(_fail, done, error)
            return
        for (_, done, loop), result in zip(entries, results, strict=True):
            loop.call_soon_threadsafe(_finish, done, result)
        self._on_news()


def _finish(done: asyncio.Future[Acceptance], result: Acceptance) -> None:
    if not done.done():  # its request may have been given up
        done.set_result(result)


def _fail(done: asyncio.Future[Acceptance], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
