"""What crosses the walls inside a sweep: work to do, and what came of it.

All of it is data (msgspec structs), so that the same records go to threads, to processes and
to the machines of a cluster.
"""

from __future__ import annotations

import msgspec

from scanner.hub.address import HubAddress
from scanner.hub.snapshot import HubFile
from scanner.results import Verdict


def target_of(repository: str, revision: str, subfolder: str) -> str:
    """An adapter's name in reports: ``hf://owner/name@revision[/subfolder]``."""
    return str(HubAddress(repository, revision, subfolder))


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the records: immutable, built by keyword."""


class Traffic(Record, frozen=True, kw_only=True):
    """What the hub was asked for."""

    requests: int = 0
    received: int = 0
    """Bytes received, headers not counted."""


class FoundAdapter(Record, frozen=True, kw_only=True):
    """An adapter in a repository, known by its files' digests before any of them is read."""

    subfolder: str
    """Folder of the adapter in its repository; empty at the root."""
    content: str
    """Digest of the names and the digests of everything the adapter is made of."""
    files: list[HubFile]
    """The files of the adapter, kept so that they are not looked up again."""


class LookUp(Record, frozen=True, kw_only=True, tag=True):
    """Work: which adapters are in a repository, and what are their digests?"""

    key: int
    """Row of the repository in the ledger."""
    repository: str
    revision: str


class Judge(Record, frozen=True, kw_only=True, tag=True):
    """Work: read one adapter and judge it."""

    key: int
    """Row of the adapter in the ledger."""
    repository: str
    revision: str
    subfolder: str
    content: str
    files: list[HubFile]


Task = LookUp | Judge


class LookedUp(Record, frozen=True, kw_only=True, tag=True):
    """A repository's adapters."""

    key: int
    adapters: list[FoundAdapter]
    traffic: Traffic = Traffic()


class Judgement(Record, frozen=True, kw_only=True, tag=True):
    """An adapter's verdict. The numbers are those of the result, for the ledger's columns."""

    key: int
    verdict: Verdict
    base_model: str | None
    score: float | None
    dose: float | None
    """Dose by the signature that decided."""
    cosine: float | None
    p_value: float | None
    reason: str
    result: bytes
    """The `ScanResult`, as `scanner.sweep.compact` packs it."""
    traffic: Traffic = Traffic()


class Refusal(Record, frozen=True, kw_only=True, tag=True):
    """The hub will not give it: gated, private, gone. Asking again would not help."""

    task: Task
    reason: str
    traffic: Traffic = Traffic()


class Setback(Record, frozen=True, kw_only=True, tag=True):
    """It did not work this time: the network, the hub's own trouble, a rate limit."""

    task: Task
    reason: str
    wait: float | None = None
    """Seconds to wait, if the hub named a time."""
    limited: bool = False
    """A rate limit. It says nothing about the task, and holds for every other one too."""
    traffic: Traffic = Traffic()


Outcome = LookedUp | Judgement | Refusal | Setback


class Progress(Record, frozen=True, kw_only=True):
    """How far a sweep is."""

    listed: int
    listing_finished: bool
    repositories_waiting: int
    adapters_waiting: int
    verdicts: dict[str, int]
    """Verdict -> adapters that have it."""

    @property
    def finished(self) -> int:
        """Adapters with a verdict."""
        return sum(self.verdicts.values())
