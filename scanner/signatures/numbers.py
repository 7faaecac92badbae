"""Numbers that packs keep: what one adapter does at one site, and how scores are put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
"""What something is divided by."""
Amount = Literal["dose", "felt written"]
"""By what a site can be the strongest (`scanner.signatures.combination.AMOUNTS`)."""


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

    @property
    def felt_written(self) -> float | None:
        """What the network feels of the signature: `felt_write` times `share`, signed.

        None where the pack does not know the inputs.
        """
        if self.felt_write is None or self.share is None:
            return None
        return self.felt_write * self.share


class Measured(Protocol):
    """What the score of one adapter under a signature follows from."""

    @property
    def signed_write(self) -> float:
        """`scanner.signatures.score.signed_write_score`."""

    @property
    def dose(self) -> float:
        """Its dose."""

    @property
    def norm(self) -> float:
        """Frobenius norm of the whole update."""

    @property
    def sites(self) -> Mapping[str, SiteNumbers]:
        """Key of each site it changes -> what it does there; empty where that is not known."""


@dataclass(frozen=True)
class Measurement:
    """`Measured` of the adapter that is scanned."""

    signed_write: float
    dose: float
    norm: float
    sites: Mapping[str, SiteNumbers]


class SiteScale(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How much benign adapters of one shape do at one site. In JSON, a list of these."""

    dose: Positive | None
    """Root mean square of the doses there; None if it is not known."""
    felt_written: Positive | None
    """Root mean square of `SiteNumbers.felt_written`; None if it is not known."""


class ScoreScale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the benign adapters of one shape lie, which puts what is measured on one scale."""

    signed_write: tuple[float, Positive]
    """Mean and standard deviation of `scanner.signatures.score.signed_write_score`."""
    dose: tuple[float, Positive]
    """Mean and standard deviation of the dose."""
    both: Positive
    """Standard deviation of the mean of the two, each in standard deviations above its mean."""
    norm: Positive
    """The largest norm of an update among them."""
    sites: dict[str, SiteScale] = {}
    """Key of each site that enough of them change."""
    strongest: dict[Amount, tuple[float, Positive]] = {}
    """By what a site is the strongest -> mean and standard deviation of what
    benign adapters do of it at their strongest site (`strongest` there)."""
