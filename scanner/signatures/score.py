"""The one score of an adapter under a signature, from its sites' projections."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from scanner import geometry
from scanner.formats.model import Site, site_order
from scanner.geometry import SiteProjection
from scanner.results import Shape
from scanner.signatures.combination import combined_score
from scanner.signatures.numbers import Measured, Measurement, ScoreScale, SiteNumbers

STATISTIC = "signed-write-dose-strongest-site"
"""Name of what `adapter_score` computes. Calibrations say which statistic their scores are, and
scores of two statistics cannot be compared: whoever changes the one changes the other."""


def changed_layers(projections: Mapping[Site, SiteProjection]) -> int:
    """How many layers the update changes, of the sites that were projected.

    Weights outside the blocks count as one.
    """
    return len({site.layer for site, item in projections.items() if item.norm_squared > 0})


def adapter_score(
    projections: Mapping[Site, SiteProjection], scales: Mapping[str, ScoreScale]
) -> float:
    """What verdicts are based on; NaN if the adapter changes no site the signature knows.

    Args:
        projections: The adapter.
        scales: Shape -> the scale of the calibration's adapters of it, if it has enough of them.
    """
    return score_of(measure(projections), changed_layers(projections), scales)


def measure(projections: Mapping[Site, SiteProjection]) -> Measurement:
    """What the score of an adapter follows from."""
    return Measurement(
        signed_write=signed_write_score(projections),
        dose=geometry.dose(projections.values()),
        norm=update_norm(projections),
        sites=site_numbers(projections),
    )


def score_of(measured: Measured, layers: int, scales: Mapping[str, ScoreScale]) -> float:
    """As `adapter_score`, of what is measured of an adapter that changes so many layers."""
    return combined_score(measured, scales.get(Shape.of(layers).value))


def update_norm(projections: Mapping[Site, SiteProjection]) -> float:
    """Frobenius norm of the whole update, of the sites that were projected."""
    return math.sqrt(sum(item.norm_squared for item in projections.values()))


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
