"""Runs a sweep: lists repositories, looks adapters up, judges them, and records the verdicts.

One thread runs it and is the ledger's only writer. The ledger is the queue: the listing runs
ahead by a bounded number of repositories, an engine holds a bounded number of tasks, and
nothing else is kept, so memory does not grow with the listing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from threading import Thread

from scanner.errors import HubUnavailableError
from scanner.hub.listing import Listing, Page
from scanner.sweep.engines import Engine
from scanner.sweep.ledger import Checkpoint, Ledger
from scanner.sweep.records import (
    Judgement,
    LookedUp,
    LookUp,
    Outcome,
    Progress,
    Refusal,
    Setback,
    Task,
)
from scanner.system.backoff import Backoff

_POLL_SECONDS = 0.1
_PAGE_SECONDS = 0.02
"""While a page of the listing is on its way, whose arrival the engine does not report."""
_SHOW_SECONDS = 0.5
_NO_ADAPTER = "no adapter in this repository"


@dataclass(frozen=True)
class RetryPolicy:
    """How often a failed task is tried again, and how long is waited in between."""

    attempts: int = 5
    """Attempts after which a task is given up for this run."""
    first_wait: float = 2.0
    """Seconds before the second attempt; doubled for each further one."""
    longest_wait: float = 300.0
    patience: int = 100
    """Failures in a row, nothing having worked between them, after which the hub counts as down."""

    def wait(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        return Backoff(self.first_wait, self.longest_wait).wait(failures)


@dataclass
class Sweep:
    """One sweep over a listing of the hub.

    Args:
        ledger: The record of all work and verdicts; `begin` has been called.
        listing: The repositories to go over.
        engine: What runs the tasks.
        policy: How failures are tried again.
        clock: Seconds since the epoch, as the ledger counts them.
    """

    ledger: Ledger
    listing: Listing
    engine: Engine
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._looking: set[int] = set()
        self._judging: set[int] = set()
        self._held_until = 0.0
        self._failures = 0
        self._last_failure = ""
        self._listing_failures = 0
        self._shown = 0.0
        self._page: Future[Page] | None = None

    def run(self, checkpoint: Checkpoint, watch: Callable[[Progress], None]) -> Progress:
        """Sweeps until nothing is left to do.

        Args:
            checkpoint: Where the listing stands.
            watch: Is told how far it is, now and then and at the end.

        Raises:
            HubError: If the hub cannot be listed, or nothing works any more. What was done is
                in the ledger, what was not can be gone on with.
        """
        waiting = self.ledger.waiting()
        while True:
            checkpoint = self._go_on_listing(checkpoint)
            if self.clock() >= self._held_until:
                self._hand_out()
            busy = len(self._looking) + len(self._judging)
            if not busy and checkpoint.finished and waiting.next_retry() is None:
                break
            self._take_in()
            self._show(watch)
            if self._failures > self.policy.patience:
                raise HubUnavailableError(
                    f"{self._failures} failures in a row, the last: {self._last_failure}",
                    todo="see to the network or the hub",
                )
        progress = waiting.progress()
        watch(progress)
        return progress

    def _show(self, watch: Callable[[Progress], None]) -> None:
        """Counting takes time that grows with the ledger, so it is not done at every step."""
        if time.monotonic() - self._shown >= _SHOW_SECONDS:
            watch(self.ledger.waiting().progress())
            self._shown = time.monotonic()

    def _go_on_listing(self, checkpoint: Checkpoint) -> Checkpoint:
        """Asks for the next page when there is room, and writes it down when it is there."""
        if self._page is None:
            room = self.ledger.waiting().count() < self.engine.capacity * 2
            if not checkpoint.finished and room and self.clock() >= self._held_until:
                self._page = _begun(
                    partial(self.listing.page, checkpoint.cursor, checkpoint.listed)
                )
            return checkpoint
        if not self._page.done():
            return checkpoint
        future, self._page = self._page, None
        try:
            page = future.result()
        except HubUnavailableError as error:
            self._listing_failures += 1
            if self._listing_failures >= self.policy.attempts and error.retry_after is None:
                raise
            self._fail(error.line())
            self._hold(error.retry_after, self._listing_failures)
            return checkpoint
        self._listing_failures = 0
        self._failures = 0
        with self.ledger.batch():
            self.ledger.add_page(page.repositories, page.cursor, finished=page.last)
        return Checkpoint(page.cursor, checkpoint.listed + len(page.repositories), page.last)

    def _hand_out(self) -> None:
        """Gives the engine as much as it wants to hold: adapters that are known first."""
        room = self.engine.capacity - len(self._looking) - len(self._judging)
        if room <= 0:
            return
        waiting = self.ledger.waiting()
        judgements = waiting.judgements(room, self._judging)
        lookups = waiting.lookups(room - len(judgements), self._looking)
        self._judging |= {task.key for task in judgements}
        self._looking |= {task.key for task in lookups}
        tasks: list[Task] = [*judgements, *lookups]
        for task in tasks:
            self.engine.submit(task)

    def _take_in(self) -> None:
        """Writes down what has been done, all of it in one transaction."""
        outcomes = self.engine.outcomes(_POLL_SECONDS if self._page is None else _PAGE_SECONDS)
        if not outcomes:
            return
        with self.ledger.batch():
            for outcome in outcomes:
                self._write_down(outcome)
                self.ledger.add_traffic(outcome.traffic)

    def _write_down(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Setback):
            self._failures = 0
        match outcome:
            case Judgement():
                self._judging.discard(outcome.key)
                self.ledger.judged(outcome)
            case LookedUp():
                self._looking.discard(outcome.key)
                self.ledger.looked_up(outcome.key, outcome.adapters)
            case Refusal():
                self._is_back(outcome.task)
                self.ledger.give_up(outcome.task, outcome.reason, for_good=True)
            case Setback():
                self._is_back(outcome.task)
                self._try_again(outcome)

    def _is_back(self, task: Task) -> None:
        busy = self._looking if isinstance(task, LookUp) else self._judging
        busy.discard(task.key)

    def _try_again(self, setback: Setback) -> None:
        self._fail(setback.reason)
        if setback.limited:
            self._hold(setback.wait, self._failures)
            self.ledger.put_off(setback.task, self._held_until, counts=False)
            return
        attempts = self.ledger.put_off(setback.task, self.clock(), counts=True)
        if attempts >= self.policy.attempts:
            reason = f"{setback.reason}; given up after {attempts} attempts"
            self.ledger.give_up(setback.task, reason, for_good=False)
            return
        until = self.clock() + max(self.policy.wait(attempts), setback.wait or 0.0)
        self.ledger.put_off(setback.task, until, counts=False)

    def _hold(self, wait: float | None, failures: int) -> None:
        """Asks nothing of the hub for a while: a rate limit holds for everything."""
        seconds = self.policy.wait(failures) if wait is None else wait
        self._held_until = max(self._held_until, self.clock() + seconds)

    def _fail(self, reason: str) -> None:
        self._failures += 1
        self._last_failure = reason


def _begun(work: Callable[[], Page]) -> Future[Page]:
    """Does something beside the sweep, in a daemon: an interrupted sweep does not wait for it."""
    future: Future[Page] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="listing", daemon=True).start()
    return future
