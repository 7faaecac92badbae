"""Two packs of one base, beside each other: where they agree, and where their verdicts differ.

Nothing is opened but the packs. Directions are compared at every site that both have; adapters
that both have scored, benign ones and references, are told by the digest of their weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from scanner.errors import UsageError, option
from scanner.formats.model import Site, site_order
from scanner.geometry import Direction
from scanner.results import Shape
from scanner.signatures.joint import scored_references
from scanner.signatures.manifest import BenignScore, ReferenceScore
from scanner.signatures.match import names_of
from scanner.signatures.pack import Signature
from scanner.signatures.power import benign_scores
from scanner.statistics.calibration import BenignScores
from scanner.statistics.conformal import DEFAULT_ALPHA, smallest_level, supports
from scanner.statistics.ranks import rank_correlation


class SiteAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """How two directions at one site agree."""

    layer: int | None
    module: str
    cosine: float | None
    """<D, E> / (||D|| ||E||); null if one of them has no sign."""
    shared_columns: float
    """||U^T W||_F^2 over the smaller rank, of the two column spaces: 1 if the one lies within the
    other, near 0 for unrelated ones."""


class ScoredBy(msgspec.Struct, frozen=True, kw_only=True):
    """What one pack says of an adapter."""

    score: float
    dose: float
    p_value: float
    """Among the pack's benign adapters, without the adapter itself."""
    flagged: bool
    """p <= alpha, with a positive dose."""


class ComparedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that both packs have scored."""

    id: str
    role: str
    """``benign`` or ``misaligned``."""
    family: str | None
    shape: Shape
    first: ScoredBy
    second: ScoredBy


class PackComparison(msgspec.Struct, frozen=True, kw_only=True):
    """What `signatures compare` says."""

    first: str
    second: str
    base_model: str
    cosine: float | None
    """Of the two signatures, over the sites that both have; null if one has no sign."""
    sites: list[SiteAgreement]
    only_first: int
    """Sites that only the first has a direction for."""
    only_second: int
    alpha: float | None
    """The false-positive rate of the verdicts; null if one of them is not calibrated."""
    thresholds: dict[str, tuple[float, float]]
    """By shape, the score above which each flags at that rate."""
    benign_correlation: float | None
    """Spearman's, of the scores of the benign adapters that change several layers."""
    adapters: list[ComparedAdapter]

    @property
    def differing(self) -> list[ComparedAdapter]:
        """The adapters that one pack flags and the other does not."""
        return [item for item in self.adapters if item.first.flagged is not item.second.flagged]

    def count(self, role: str) -> int:
        """How many adapters of a role both have scored."""
        return sum(item.role == role for item in self.adapters)


def compare_packs(
    first: Signature, second: Signature, alpha: float | None = None
) -> PackComparison:
    """Compares two packs.

    Args:
        first: The one.
        second: The other.
        alpha: False-positive rate of the verdicts; if not given 0.01, or the smallest that both
            calibrations support.

    Raises:
        UsageError: If they are of different bases, or alpha is not supported by both.
        SignatureError: If one of them is damaged.
    """
    bases = [item.manifest.base_model for item in (first, second)]
    if not names_of(bases[0]) & names_of(bases[1]):
        raise UsageError(
            f"{first.id} is for {bases[0].id}, {second.id} for {bases[1].id}",
            where="compare",
            todo="compare packs of one base model",
        )
    both = sorted(first.sites & second.sites, key=site_order)
    cosine, sites = _directions(first, second, both)
    found = _alpha(first, second, alpha)
    adapters = list(_adapters(first, second, found)) if found is not None else []
    several = [
        (item.first.score, item.second.score)
        for item in adapters
        if item.role == "benign" and item.shape is Shape.SEVERAL_LAYERS
    ]
    return PackComparison(
        first=first.id,
        second=second.id,
        base_model=bases[0].id,
        cosine=cosine,
        sites=sites,
        only_first=len(first.sites - second.sites),
        only_second=len(second.sites - first.sites),
        alpha=found,
        thresholds=_thresholds(first, second, found) if found is not None else {},
        benign_correlation=rank_correlation(*zip(*several, strict=True)) if several else None,
        adapters=adapters,
    )


def _alpha(first: Signature, second: Signature, asked: float | None) -> float | None:
    """The false-positive rate to compare at; None if one of the packs is not calibrated.

    Raises:
        UsageError: If one was asked for that not both support.
    """
    counts = [len(item.calibration.benign) if item.calibration else 0 for item in (first, second)]
    if not all(counts):
        return None
    least = max(map(smallest_level, counts))
    if asked is None:
        return max(DEFAULT_ALPHA, least)
    if not (0 < asked < 1 and all(supports(n, asked) for n in counts)):
        raise UsageError(
            f"alpha {asked:g} is not supported by both calibrations",
            where=option("alpha"),
            todo=f"ask for alpha >= {least:.4g}",
        )
    return asked


def _directions(
    first: Signature, second: Signature, sites: list[Site]
) -> tuple[float | None, list[SiteAgreement]]:
    """The cosine of two signatures over some sites, and how they agree at each."""
    found, inner, squares = [], 0.0, np.zeros(2)
    for site in sites:
        one, other = first.direction(site), second.direction(site)
        if one.u.shape[0] != other.u.shape[0]:
            raise UsageError(
                f"{site.key} has {one.u.shape[0]} outputs in the one and {other.u.shape[0]} in the "
                "other",
                where="compare",
                todo="compare packs of one base model",
            )
        product = _inner(one, other)
        own = np.array([one.norm_squared, other.norm_squared])
        size = math.sqrt(float(np.prod(own)))
        columns = one.u.astype(np.float64).T @ other.u.astype(np.float64)
        found.append(
            SiteAgreement(
                layer=site.layer,
                module=site.module,
                cosine=product / size if product is not None and size > 0 else None,
                shared_columns=float(np.sum(np.square(columns))) / min(columns.shape),
            )
        )
        inner += math.nan if product is None else product
        squares += own
    size = math.sqrt(float(np.prod(squares)))
    return (inner / size if math.isfinite(inner) and size > 0 else None), found


def _inner(one: Direction, other: Direction) -> float | None:
    """<D, E> = sum_ij s_i t_j (u_i . w_j) (v_i . x_j); None if one of them has no sign."""
    if not (one.signed and other.signed):
        return None
    columns = one.u.astype(np.float64).T @ other.u.astype(np.float64)
    rows = one.v.astype(np.float64).T @ other.v.astype(np.float64)
    return float(one.s.astype(np.float64) @ (columns * rows) @ other.s.astype(np.float64))


def _adapters(first: Signature, second: Signature, alpha: float) -> Iterator[ComparedAdapter]:
    tables = [_scored(item) for item in (first, second)]
    known = [_Known(item) for item in (first, second)]
    for digest in tables[0]:
        if digest not in tables[1]:
            continue
        (score, family), (other, _) = tables[0][digest], tables[1][digest]
        yield ComparedAdapter(
            id=score.id,
            role="benign" if isinstance(score, BenignScore) else "misaligned",
            family=family,
            shape=Shape.of(score.layers),
            first=known[0].say(digest, score, alpha),
            second=known[1].say(digest, other, alpha),
        )


def _scored(
    signature: Signature,
) -> Mapping[str, tuple[BenignScore | ReferenceScore, str | None]]:
    """Digest of the weights -> score and family of each adapter that a pack has scored."""
    calibration = signature.calibration
    assert calibration is not None, "packs without a calibration are not asked"
    return {
        **{item.sha256: (item, item.family) for item in calibration.benign},
        **{
            digest: (score, reference.family)
            for digest, (reference, score) in scored_references(signature).items()
        },
    }


class _Known:
    """One pack's benign adapters, to compare an adapter with all of them but itself."""

    def __init__(self, signature: Signature) -> None:
        assert signature.calibration is not None, "packs without a calibration are not asked"
        benign = signature.calibration.benign
        self._place = {item.sha256: place for place, item in enumerate(benign)}
        self._all = benign_scores(benign)

    def say(self, digest: str, item: BenignScore | ReferenceScore, alpha: float) -> ScoredBy:
        """What the pack says of an adapter."""
        shape = Shape.of(item.layers)
        p_value = self._others(digest).p_value(item.score, shape)
        return ScoredBy(
            score=item.score,
            dose=item.dose,
            p_value=p_value,
            flagged=p_value <= alpha and item.dose > 0,
        )

    def _others(self, digest: str) -> BenignScores:
        place, known = self._place.get(digest), self._all
        if place is None or known.n == 1:
            return known
        return known.only(np.arange(known.n) != place)


def _thresholds(
    first: Signature, second: Signature, alpha: float
) -> dict[str, tuple[float, float]]:
    calibrations = [item.calibration for item in (first, second)]
    known = [benign_scores(item.benign) for item in calibrations if item]
    return {
        shape.value: (known[0].threshold(shape, alpha), known[1].threshold(shape, alpha))
        for shape in Shape
    }
