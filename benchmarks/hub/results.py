"""What was measured, kept beside the code that measured it."""

from __future__ import annotations

from pathlib import Path

import msgspec

PATH = Path(__file__).with_name("results.json")


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One way on one scenario."""

    scenario: str
    way: str
    adapters: int
    seconds: float
    cpu_seconds: float
    """Of the process; what else the machine does hardly changes it."""
    requests: dict[str, int]
    """By kind: list, info (the API); resolve, cache (files); storage (the store behind them)."""
    received: int
    """Bytes of answers' bodies."""
    ledger_bytes: int = 0
    """What is written down of it, where anything is."""

    @property
    def rate(self) -> float:
        """Adapters per second."""
        return self.adapters / self.seconds

    @property
    def received_each(self) -> float:
        """Bytes per adapter."""
        return self.received / self.adapters

    @property
    def requests_each(self) -> float:
        """Requests per adapter, of all kinds."""
        return sum(self.requests.values()) / self.adapters


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """One sweep of the mixed population."""

    repositories: int
    adapters: int
    wrong: int
    """Verdicts that are not what was expected."""
    seconds: float
    peak_megabytes: float
    requests: dict[str, int]
    ledger_bytes: int
    kills: int = 0
    """SIGKILLs after which the ledger was the same as that of the unbroken run."""


class LedgerSize(msgspec.Struct, frozen=True, kw_only=True):
    """What a ledger of made-up results takes."""

    adapters: int
    sites: int
    """Of each adapter."""
    ledger_bytes: int
    summary_cpu_seconds: float
    """CPU time of reading every row and of gathering the population page."""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Everything."""

    swept: list[Swept] = []
    compared: list[Measured] = []
    ledger: LedgerSize | None = None


def of_kinds(item: Measured | Swept, kinds: tuple[str, ...]) -> float:
    """Requests per adapter, of some kinds."""
    return sum(item.requests.get(kind, 0) for kind in kinds) / item.adapters


def read_results() -> Results:
    """The results that were kept."""
    return msgspec.json.decode(PATH.read_bytes(), type=Results) if PATH.exists() else Results()


def write_results(results: Results) -> None:
    """Keeps results."""
    PATH.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
