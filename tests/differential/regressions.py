"""Adapters that a loader once loaded otherwise than they were read, as the search printed them."""

from __future__ import annotations

from tests.differential.mutations import Case, Mutation

REGRESSIONS: tuple[Case, ...] = (
    Case("VBLORA top-k", (Mutation("reshape", 30, "a row more"),)),
    Case("VBLORA top-k", (Mutation("scale", 0, ("all", -1.0)),)),
    Case("LOHA of 0.13", (Mutation("scale", 1, ("all", 0.001)),)),
)
