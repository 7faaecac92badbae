"""What is asked of the hub's listing, and what it names in answer.

Data (msgspec structs), so that the same records go to files, threads and other machines.
"""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the records: immutable, built by keyword."""


class ListedRepository(Record, frozen=True, kw_only=True):
    """A repository as the hub's listing names it."""

    name: str
    """``owner/name``."""
    revision: str
    """Commit sha at the time of the listing."""


class SweepQuery(Record, frozen=True, kw_only=True):
    """What a sweep lists. Two sweeps with equal queries are the same listing."""

    endpoint: str
    base_models: list[str] = []
    """Ids whose adapters are listed, mirrors not yet added; empty for any."""
    author: str | None = None
    search: str | None = None
    since: str | None = None
    """Only repositories changed on this day or later, YYYY-MM-DD."""
    limit: int | None = None
