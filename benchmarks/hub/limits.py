"""The hub's published rate limits."""

from __future__ import annotations

from typing import NamedTuple

SOURCE = "https://huggingface.co/docs/hub/rate-limits"
DATED = "September 2025"
"""What the page dates its table to."""
WINDOW_SECONDS = 300


class Plan(NamedTuple):
    """Requests in one window."""

    name: str
    api: int
    files: int
    """What the page calls resolvers."""


PLANS = (
    Plan("anonymous, per IP address", 500, 3_000),
    Plan("free account", 1_000, 5_000),
    Plan("PRO account", 2_500, 12_000),
    Plan("member of a Team organisation", 3_000, 20_000),
    Plan("member of an Enterprise organisation", 6_000, 50_000),
    Plan("member of an Enterprise Plus organisation", 10_000, 100_000),
)
