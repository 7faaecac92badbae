"""A pack -> what a page shows of it: what it finds, what it misses, and where it lives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from scanner.reports.drawing import HeatMap
from scanner.reports.pack_drawing import (
    FamilyScores,
    Steps,
    family_scores,
    power_curve,
    roc_curve,
    signature_map,
)
from scanner.results import Shape
from scanner.signatures.manifest import BenignScore, Calibration, Manifest, ReferenceScore
from scanner.signatures.pack import Signature
from scanner.signatures.power import Power, benign_scores, power_levels
from scanner.signatures.power_words import found_in_words
from scanner.signatures.summary import detail_rows, summarise_pack
from scanner.statistics.conformal import supports
from scanner.statistics.roc import Roc, roc

Item = TypeVar("Item", BenignScore, ReferenceScore)

_ALPHAS = (0.05, 0.01)
_LARGEST_ALPHA = 0.5


@dataclass(frozen=True)
class Scores:
    """The scores of adapters of one shape."""

    shape: Shape
    drawing: FamilyScores
    benign: int
    references: int
    in_sample: int
    """References that the signature which scored them was made from."""
    text: str
    """The same in words, for those who do not see it."""


@dataclass(frozen=True)
class PackView:
    """A pack as a page shows it."""

    anchor: str
    id: str
    description: str
    sentences: list[str]
    warnings: list[str]
    """What may make it useless, each with the cause and what to do."""
    scores: list[Scores]
    """By shape, that of most adapters first."""
    roc: Steps | None
    roc_text: str
    power: Steps | None
    power_text: str
    map: HeatMap | None
    facts: list[tuple[str, str]]


def pack_view(signature: Signature, anchor: str) -> PackView:
    """What a page shows of a pack.

    Args:
        signature: The pack.
        anchor: The id of its place on the page.

    Raises:
        SignatureError: If it is damaged.
    """
    manifest, calibration, power = signature.manifest, signature.calibration, signature.power
    curve, summary = _roc(calibration) if calibration else None, summarise_pack(signature)
    alphas = _power_points(power) if power else []
    return PackView(
        anchor=anchor,
        id=signature.id,
        description=manifest.description,
        sentences=_sentences(signature, power),
        warnings=[caution.line() for caution in summary.warnings],
        scores=_all_scores(manifest, calibration) if calibration else [],
        roc=roc_curve(curve) if curve else None,
        roc_text=_roc_text(curve) if curve else "",
        power=power_curve([(alpha, power.found(alpha)) for alpha in alphas])
        if power and len(alphas) > 1
        else None,
        power_text=_power_text(power) if power else "",
        map=signature_map({site: signature.direction_norm(site) ** 2 for site in signature.sites}),
        facts=[row for row in detail_rows(summary, signature) if row[0] != "warning"],
    )


def _sentences(signature: Signature, power: Power | None) -> list[str]:
    manifest, calibration = signature.manifest, signature.calibration
    made = f"A signature of {manifest.base_model.id}, made by {manifest.method}"
    count = len(signature.reference_ids)
    found = [f"{made} from {count} misaligned references." if count else f"{made}."]
    if calibration is None:
        return [*found, "It is not calibrated: every verdict is inconclusive."]
    families = len({item.family for item in calibration.benign})
    found.append(
        f"Calibrated on {len(calibration.benign)} benign adapters of {families} "
        f"{'family' if families == 1 else 'families'}."
    )
    levels = power_levels(power) if power and power.references else []
    if power is None or not levels:
        return [*found, "What it finds is not known."]
    return [*found, f"It {found_in_words(levels[-1], power.held_out)}."]


def _all_scores(manifest: Manifest, calibration: Calibration) -> list[Scores]:
    shapes = sorted(
        {Shape.of(item.layers) for item in calibration.benign},
        key=lambda shape: -sum(Shape.of(item.layers) is shape for item in calibration.benign),
    )
    return [_scores(shape, manifest, calibration) for shape in shapes]


def _scores(shape: Shape, manifest: Manifest, calibration: Calibration) -> Scores:
    families = {item.id: item.family or item.id for item in manifest.references}
    benign = [item for item in calibration.benign if Shape.of(item.layers) is shape]
    references = [item for item in calibration.references if Shape.of(item.layers) is shape]
    known = benign_scores(calibration.benign)
    marks = [
        (known.threshold(shape, alpha), f"alpha {alpha:g}")
        for alpha in _ALPHAS
        if supports(known.n, alpha)
    ]
    lowest, highest = min(i.score for i in benign), max(i.score for i in benign)
    found = [f"{len(benign)} benign adapters score {lowest:.3g} to {highest:.3g}."]
    found += [f"The threshold for {label} is {mark:.3g}." for mark, label in marks]
    found += [f"The reference {item.id} scores {item.score:.3g}." for item in references]
    return Scores(
        shape=shape,
        drawing=family_scores(
            _by_family(benign, lambda item: item.family),
            _by_family(references, lambda item: families.get(item.id, item.id)),
            marks,
        ),
        benign=len(benign),
        references=len(references),
        in_sample=sum(not item.held_out for item in references),
        text=" ".join(found),
    )


def _by_family(
    items: Iterable[Item], family: Callable[[Item], str]
) -> Mapping[str, list[tuple[str, float]]]:
    """Family -> name and score of its adapters, the families in the order of their names."""
    found: dict[str, list[tuple[str, float]]] = {}
    for item in items:
        found.setdefault(family(item), []).append((item.id, item.score))
    return dict(sorted(found.items()))


def _roc(calibration: Calibration) -> Roc | None:
    """Of the adapters that change several layers; those of one are scored by another scale."""
    shape = Shape.SEVERAL_LAYERS
    benign = [item.score for item in calibration.benign if Shape.of(item.layers) is shape]
    known = [item.score for item in calibration.references if Shape.of(item.layers) is shape]
    return roc(benign, known) if benign and known else None


def _roc_text(curve: Roc) -> str:
    n = curve.points[0].found.n
    return (
        f"Area under the curve {curve.area:.3f} (95%: {curve.low:.3f} to {curve.high:.3f}), "
        f"{n} {'reference' if n == 1 else 'references'}"
    )


def _power_text(power: Power) -> str:
    told = [
        f"{level.found} of {level.references} at alpha {level.alpha:g}"
        for level in power_levels(power)
    ]
    whose = "held-out references" if power.held_out else "references, in sample"
    return f"Found of the {whose}: {', '.join(told)}"


def _power_points(power: Power) -> list[float]:
    """The alphas at which the share found may change, from the smallest that is supported."""
    if not power.references:
        return []
    steps = {
        item.flagged_from
        for item in power.references
        if item.flagged_from is not None and item.flagged_from < _LARGEST_ALPHA
    }
    return sorted({power.smallest_alpha, *steps, *power.levels, _LARGEST_ALPHA})
