"""What each reader says of its formats; docs/formats.md is written from it."""

from __future__ import annotations

from typing import NamedTuple

LIBRARY = "merged minus base weights of the writing library, relative error 1e-4 (LoRA: 1e-5)"
RULE = "fixture built by the documented rule"


class FormatNote(NamedTuple):
    """One row of the documentation."""

    name: str
    recovered: str
    not_recovered: str
    checked: str


class CanonNote(NamedTuple):
    """What a canonical adapter of one format is: a row of the documentation."""

    name: str
    canonical: str
    uncovered: str
    """What differs from that, and which loader then does what."""
    loaders: str
    """Which loaders were run, and which were read."""
