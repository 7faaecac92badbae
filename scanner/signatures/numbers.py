"""What one adapter does at one site, as packs keep it of their calibration's adapters."""

from __future__ import annotations

import msgspec


class SiteNumbers(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one adapter does at one site. In JSON, a list of these."""

    norm: float
    """||dW||_F."""
    dose: float | None
    """<dW, D>_F; None along a direction without a sign."""
    write: float | None
    """||D^T dW|| / (||D|| ||dW||), in [0, 1]; None where D is zero."""
    signed_write: float | None
    """The same with a sign (`geometry.signed_write`); None where it has none."""
    felt: float | None = None
    """sqrt(E ||dW x||^2) over the site's inputs x; None where the pack does not know them."""
    felt_write: float | None = None
    """As `signed_write`, of what is felt: with ||D^T dW x|| and ||dW x|| in the place of both."""
    spread: float | None = None
    """`geometry.Felt.spread`."""
    steady: float | None = None
    """`geometry.Felt.steady`."""
    share: float | None = None
    """`geometry.Felt.share`: its size beside the base's own answer to the same inputs."""
