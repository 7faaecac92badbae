"""The one score of an adapter under a signature, from its sites' projections."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from scanner import geometry
from scanner.formats.model import Site, site_order
from scanner.geometry import SiteProjection
from scanner.results import Shape
from scanner.signatures.numbers import ScoreScale, SiteNumbers

STATISTIC = "signed-write-and-dose"
"""Name of what `adapter_score` computes. Calibrations say which statistic their scores are, and
scores of two statistics cannot be compared: whoever changes the one changes the other."""
SCALED_FROM = 20
"""Benign adapters of a shape from which on its scale is taken from them: of fewer, the spread of
the doses is hardly known, and the signed write counts alone."""


def changed_layers(projections: Mapping[Site, SiteProjection]) -> int:
    """How many layers the update changes, of the sites that were projected.

    Weights outside the blocks count as one.
    """
    return len({site.layer for site, item in projections.items() if item.norm_squared > 0})


DOSE_MARGIN = 1.0
"""Standard deviations that dose and write together have to be further out than the write alone to
count. Without it the few harmless adapters of a large dose raise the threshold for adapters of a
small one, which the write alone finds; with it references that are scaled down to 0.3 stand as far
out as by the write alone, and whole ones nearly as far as without it, on all four bases."""


def adapter_score(
    projections: Mapping[Site, SiteProjection], scales: Mapping[str, ScoreScale]
) -> float:
    """What verdicts are based on; NaN if the adapter changes no site the signature knows.

    Args:
        projections: The adapter.
        scales: Shape -> the scale of the calibration's adapters of it, if it has enough of them.
    """
    return with_dose(
        signed_write_score(projections),
        geometry.dose(projections.values()),
        update_norm(projections),
        scales.get(Shape.of(changed_layers(projections)).value),
    )


def update_norm(projections: Mapping[Site, SiteProjection]) -> float:
    """Frobenius norm of the whole update, of the sites that were projected."""
    return math.sqrt(sum(item.norm_squared for item in projections.values()))


def with_dose(signed_write: float, dose: float, norm: float, scale: ScoreScale | None) -> float:
    """The larger of the signed write, and the mean of it and the dose on its scale, less a margin.

    The signed write says what share of an update goes the signature's way, whatever its size; the
    dose how far it goes, and what else an update does cannot dilute it. Both are put in standard
    deviations of benign adapters of the same shape, and so is their mean, which is then brought
    back to the scale of the signed write, less `DOSE_MARGIN`.

    Of an update that is larger than all of them the dose counts that it would have at the size of
    the largest: any harmless one has a large dose, of one sign or the other, if it is only made
    large enough, and support (`scanner.detection.support`) is what speaks about size.

    Args:
        signed_write: The first.
        dose: The second.
        norm: Frobenius norm of the update.
        scale: Where benign adapters lie; None if that is not known, and the first counts alone.
    """
    if scale is None or not math.isfinite(dose):
        return signed_write
    middle, spread = scale.signed_write
    above = (signed_write - middle) / spread
    dose *= scale.norm / max(norm, scale.norm)
    dose_above = (dose - scale.dose[0]) / scale.dose[1]
    together = (above + dose_above) / 2 / scale.both
    return max(signed_write, middle + spread * (together - DOSE_MARGIN))


def scale_of(
    signed_writes: Sequence[float], doses: Sequence[float], norms: Sequence[float]
) -> ScoreScale | None:
    """The scale of benign adapters of one shape; None of too few, or if they do not differ.

    Args:
        signed_writes: What each scores by `signed_write_score`.
        doses: Their doses, in the same order.
        norms: Frobenius norms of their updates.
    """
    if len(signed_writes) < SCALED_FROM:
        return None
    values = np.array([signed_writes, doses])
    means, spreads = values.mean(axis=1), values.std(axis=1, ddof=1)
    if not (spreads > 0).all():
        return None
    both = float(((values - means[:, None]) / spreads[:, None]).mean(axis=0).std(ddof=1))
    if not both > 0:  # the one is the other's opposite
        return None
    return ScoreScale(
        signed_write=(float(means[0]), float(spreads[0])),
        dose=(float(means[1]), float(spreads[1])),
        both=both,
        norm=float(max(norms)),
    )


def signed_write_score(projections: Mapping[Site, SiteProjection]) -> float:
    """How much of an update goes the signature's way; NaN if it changes no site that it knows.

    Over several layers the sites' signed writes are added up, once by how much the signature says
    about each (`geometry.site_score`) and once by how much the update changes there
    (`geometry.felt_score`), and the larger sum counts: idle sites and unused inputs can dilute the
    first and not the second. A pack that does not know its base's inputs has the first alone.

    Within one layer there is little to add up, and one site may do all that matters while the other
    stores something else: the strongest site counts (`geometry.strongest_write`). Adapters of
    one layer and of several are never compared with each other where the calibration has
    enough of both (`scanner.statistics.calibration`).
    """
    if Shape.of(changed_layers(projections)) is Shape.ONE_LAYER:
        return geometry.strongest_write(projections.values())
    found = geometry.site_score(projections.values())
    felt = geometry.felt_score(projections.values())
    return max(found, felt) if math.isfinite(felt) else found


def _felt(item: SiteProjection, known: Callable[[float], float | None]) -> dict[str, float | None]:
    """The numbers of what an update makes of its site's inputs."""
    if item.felt is None:
        return {}
    return {
        "felt": known(math.sqrt(item.felt.squared)),
        "felt_write": known(geometry.felt_write(item)),
        "spread": known(item.felt.spread),
        "steady": known(item.felt.steady),
        "share": known(item.felt.share),
    }


def site_numbers(
    projections: Mapping[Site, SiteProjection], digits: int | None = None
) -> dict[str, SiteNumbers]:
    """What an adapter does at each site that it changes, by the site's key.

    Args:
        projections: The adapter.
        digits: Significant digits to keep; all by default.
    """

    def known(value: float) -> float | None:
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")

    return {
        site.key: SiteNumbers(
            norm=known(math.sqrt(item.norm_squared)) or 0.0,
            dose=known(item.inner),
            write=known(geometry.write(item)),
            signed_write=known(geometry.signed_write(item)),
            **_felt(item, known),
        )
        for site, item in sorted(projections.items(), key=lambda pair: site_order(pair[0]))
        if item.norm_squared > 0
    }
