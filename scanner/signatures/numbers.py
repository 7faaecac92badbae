"""Numbers that packs keep: what one adapter does at one site, and how scores are put together."""

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


class ScoreScale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the benign adapters of one shape lie, which puts write and dose on one scale."""

    signed_write: tuple[float, float]
    """Mean and standard deviation of `scanner.signatures.score.signed_write_score`."""
    dose: tuple[float, float]
    """Mean and standard deviation of the dose."""
    both: float
    """Standard deviation of the mean of the two, each in standard deviations above its mean."""
    norm: float
    """The largest norm of an update among them."""
