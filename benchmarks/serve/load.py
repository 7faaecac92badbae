"""Sends deliveries at a fixed rate, whether or not the server keeps up."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serve.plan import Planned, stamp
from tests.serve.process import ServeProcess

_SENDERS = 16


@dataclass(frozen=True)
class Sent:
    """One delivery and its answer."""

    planned: Planned
    status: int
    seconds: float
    """From its place in the schedule to its answer: waiting for a sender counts."""


def send_all(server: ServeProcess, planned: list[Planned], rate: float) -> list[Sent]:
    """Sends everything, `rate` a second."""
    started = time.perf_counter()

    def send(number: int) -> Sent:
        due = started + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        delivery = planned[number]
        if delivery.platform == "mlflow":
            reply = server.deliver_mlflow(
                delivery.event,
                secret=delivery.secret,
                delivery_id=delivery.delivery_id,
                timestamp=stamp(delivery),
            )
        else:
            reply = server.deliver_hub(delivery.event, delivery.secret)
        return Sent(delivery, reply.status, time.perf_counter() - due)

    with ThreadPoolExecutor(_SENDERS) as pool:
        return list(pool.map(send, range(len(planned))))


class MemoryWatch:
    """Resident memory of a process, sampled."""

    def __init__(self, pid: int, seconds: float = 0.5) -> None:
        self._pid = pid
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.samples: list[tuple[float, float]] = []
        """Seconds since the start, and megabytes."""

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        started = time.perf_counter()
        while not self._stop.wait(self._seconds):
            status = Path(f"/proc/{self._pid}/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            self.samples.append((time.perf_counter() - started, int(line.split()[1]) / 1000))

    def between(self, begin: float, end: float) -> list[float]:
        """Samples of a stretch of time."""
        return [size for when, size in self.samples if begin <= when < end]
