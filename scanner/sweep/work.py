"""One task of a sweep, done: whatever happens, exactly one outcome comes of it.

Errors of the hub are told apart from errors of the adapter. An adapter that breaks its
format's rules is judged (`error`), and so is its every copy; what the hub refuses or fails to
give says nothing about the adapter and is tried again, or written down as refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

import msgspec

from scanner.detection.verdict import scan_adapter
from scanner.errors import (
    AccessDeniedError,
    HubError,
    HubUnavailableError,
    NothingToScanError,
    NotOnHubError,
    unforeseen,
)
from scanner.formats.rules import is_adapter_file
from scanner.hub.address import HubAddress
from scanner.hub.client import HubClient, RetryPolicy
from scanner.hub.reading import RemoteAdapter, adapters_in
from scanner.hub.snapshot import Snapshot, take_snapshot
from scanner.results import ScanResult
from scanner.scanning.targets import error_result
from scanner.signatures.match import known_shapes
from scanner.signatures.pack import Signature
from scanner.sweep.compact import compact
from scanner.sweep.records import (
    FoundAdapter,
    Judge,
    Judgement,
    LookedUp,
    LookUp,
    Outcome,
    Refusal,
    Setback,
    Task,
    Traffic,
)

REQUEST_POLICY = RetryPolicy(attempts=3, first_wait=0.5, longest_wait=30.0)
"""What one request insists on by itself; the rest is the sweep's to try again, much later."""


@dataclass
class Worker:
    """Looks repositories up and judges adapters. Threads may share one.

    Args:
        client: The hub.
        signatures: The packs.
        alpha: False-positive rate; None for the default.
    """

    client: HubClient
    signatures: Sequence[Signature]
    alpha: float | None
    _lock: Lock = field(default_factory=Lock)
    _turn: Lock = field(default_factory=Lock)
    _told: Traffic = field(default_factory=Traffic)

    def __call__(self, task: Task) -> Outcome:
        """Looks one repository up, or judges one adapter."""
        outcome: Outcome
        try:
            outcome = self._look_up(task) if isinstance(task, LookUp) else self._judge(task)
        except (AccessDeniedError, NotOnHubError, NothingToScanError) as error:
            outcome = Refusal(task=task, reason=error.line())
        except HubError as error:
            wait = error.retry_after if isinstance(error, HubUnavailableError) else None
            outcome = Setback(task=task, reason=error.line(), wait=wait, limited=wait is not None)
        except Exception as error:
            # A defect of this program must not end the sweep, nor pass for a verdict.
            outcome = Setback(task=task, reason=unforeseen(error))
        return msgspec.structs.replace(outcome, traffic=self._traffic())

    def _traffic(self) -> Traffic:
        """What was asked of the hub since this was last told."""
        with self._lock:
            now = Traffic(requests=self.client.requests, received=self.client.received)
            told, self._told = self._told, now
        return Traffic(requests=now.requests - told.requests, received=now.received - told.received)

    def _look_up(self, task: LookUp) -> LookedUp:
        snapshot = take_snapshot(HubAddress(task.repository, task.revision), self.client)
        adapters = [_found(item) for item in adapters_in(snapshot, self.client)]
        return LookedUp(key=task.key, adapters=adapters)

    def _judge(self, task: Judge) -> Judgement:
        address = HubAddress(task.repository, task.revision, task.subfolder)
        snapshot = Snapshot(address, {file.path: file for file in task.files})
        shapes = partial(known_shapes, self.signatures, None)
        try:
            (remote,) = adapters_in(snapshot, self.client)
            with remote.open(shapes) as adapter:
                result = scan_adapter(
                    adapter, self.signatures, alpha=self.alpha, jobs=1, turn=self._turn
                )
        except HubError:
            raise
        except Exception as error:  # the adapter's own verdict, and that of its every copy
            result = error_result(str(address), error)
        return _judgement(task.key, result)


def _found(remote: RemoteAdapter) -> FoundAdapter:
    folder = remote.address.folder
    beside = remote.weights.folder if remote.weights else folder
    prefix = f"{beside}/" if beside else ""
    files = [
        file
        for path, file in remote.snapshot.files.items()
        if path == prefix + file.name and is_adapter_file(file.name)
    ]
    return FoundAdapter(subfolder=folder, content=remote.content_digest, files=files)


def _judgement(key: int, result: ScanResult) -> Judgement:
    return Judgement(
        key=key,
        verdict=result.verdict,
        base_model=result.base_model,
        score=result.score,
        dose=result.deciding_dose,
        cosine=result.deciding_cosine,
        p_value=result.p_value,
        reason=result.reasons[0] if result.reasons else "",
        result=compact(result),
    )
