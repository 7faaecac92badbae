"""What one adapter does at one site, as packs keep it of their calibration's adapters."""

from __future__ import annotations

import msgspec


class SiteNumbers(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one adapter does at one site. In JSON, a list of the four."""

    norm: float
    """||dW||_F."""
    dose: float | None
    """<dW, D>_F; None along a direction without a sign."""
    write: float | None
    """||D^T dW|| / (||D|| ||dW||), in [0, 1]; None where D is zero."""
    signed_write: float | None
    """The same with a sign (`geometry.signed_write`); None where it has none."""
