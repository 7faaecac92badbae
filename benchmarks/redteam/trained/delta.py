"""Trained adapters as the arithmetic of the other attacks has them."""

from __future__ import annotations

from benchmarks.redteam.delta import Factored
from scanner.formats.model import Site
from scanner.organisms.evasion.lora import Update, factors_of


def as_delta(update: Update, factor: float = 1.0) -> dict[Site, Factored]:
    """An update as numbers to be saved, without sites that it does not change.

    Args:
        update: The adapter.
        factor: What it is multiplied with.
    """
    return {site: Factored(*found) for site, found in factors_of(update, factor).items()}
