"""Adapter + Signature -> Evidence: one pass over the adapter's factors.

Factors are read once, one site at a time, and projected onto every signature's direction
there, so memory is bounded by the largest site and not by the adapter.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from scanner import geometry
from scanner.errors import HubError, TargetError
from scanner.formats.model import Adapter, Site, Uncovered, Update
from scanner.geometry import AnyUpdate, Direction, LowRank, Matrix, SiteProjection, decomposed
from scanner.geometry.sketch import sketch_update
from scanner.results import Shape
from scanner.signatures.numbers import Measurement
from scanner.signatures.pack import Signature
from scanner.signatures.score import changed_layers, measure, score_of

Found = TypeVar("Found")

_NOT_FINITE = "NaN or Inf among its values; take a checkpoint without them"


@dataclass(frozen=True)
class SignatureEvidence:
    """What one signature sees in one adapter."""

    signature: Signature
    projections: dict[Site, SiteProjection]
    dose: float
    """Signed dose, in units of the median misaligned reference."""
    cosine: float
    """Signed cosine over the sites the adapter changes; NaN if it changes none."""
    score: float
    """What the calibration is about (`scanner.signatures.score.adapter_score`)."""
    measured: Measurement
    """What the score follows from, and support too."""
    overlap: float
    nearest_reference: tuple[str, float] | None
    """Id of the most similar misaligned reference, and the cosine."""


@dataclass(frozen=True)
class Evidence:
    """What all matching signatures see in one adapter."""

    adapter: Adapter
    signatures: tuple[SignatureEvidence, ...]
    uncovered: tuple[Uncovered, ...]
    """What could not be judged: the reader's list, unreadable or non-finite factors, and
    sites that no signature has a direction for."""

    @property
    def covered_sites(self) -> int:
        """Updates that at least one signature has a direction for."""
        return len({site for item in self.signatures for site in item.projections})

    @property
    def shape(self) -> Shape:
        """How many layers are changed by the updates that can be judged."""
        return Shape.of(max(changed_layers(item.projections) for item in self.signatures))


@dataclass(frozen=True)
class _Outcome:
    """One update under every signature; a projection is None where there is no direction."""

    site: Site
    projections: tuple[SiteProjection | None, ...]
    problem: str | None = None
    decomposed: bool | None = None
    """Whether the factors look like a decomposition of the base; None for a zero update, and
    where a signature knows the base's weight."""
    base_cosine: float | None = None
    """Cosine with the base's weight; None for a small update, and where it is not known."""
    sketches: tuple[_Beside | None, ...] = ()
    """Per signature, the update beside the references; None where it has no sketches of them."""


@dataclass(frozen=True)
class _Beside:
    """Sketches at one site: the update's inner products with n references, and its size."""

    inner: Matrix
    """(n,): <update, reference>, the references at unit norm over all sites."""
    squared: float
    """||update||^2."""


def default_jobs() -> int:
    """Threads a scan uses unless told otherwise."""
    return max(1, min(4, os.cpu_count() or 1))


def gather(adapter: Adapter, signatures: Sequence[Signature], jobs: int | None = None) -> Evidence:
    """Projects an adapter onto signatures of its base.

    Args:
        adapter: The adapter.
        signatures: Signatures that match its base model.
        jobs: Threads; a few by default. With 1 it is done in the caller's.
    """
    if jobs == 1:
        outcomes = [_examine(update, signatures) for update in adapter.updates]
    else:
        with ThreadPoolExecutor(jobs or default_jobs()) as pool:
            outcomes = list(pool.map(lambda update: _examine(update, signatures), adapter.updates))
    uncovered = list(adapter.uncovered)
    for update, outcome in zip(adapter.updates, outcomes, strict=True):
        if reason := _why_uncovered(outcome):
            uncovered += [Uncovered(name, reason) for name in update.tensors]
    uncovered += _outside_last_blocks(adapter, signatures)
    uncovered += _filled_blocks(adapter, signatures)
    if reason := _why_base_changed(outcomes):
        uncovered.append(Uncovered("*", reason))
    return Evidence(
        adapter=adapter,
        signatures=tuple(
            _summarise(signature, index, outcomes) for index, signature in enumerate(signatures)
        ),
        uncovered=tuple(uncovered),
    )


def _why_base_changed(outcomes: Sequence[_Outcome]) -> str | None:
    """Why the adapter's initialisation is thought to have changed the base, if it is."""
    cosines = [item.base_cosine for item in outcomes if item.base_cosine is not None]
    if decomposed.holds_base_weights(cosines):
        return decomposed.MEASURED
    signs = (item.decomposed for item in outcomes if item.decomposed is not None)
    return decomposed.SUSPECTED if decomposed.changed_the_base(signs) else None


def _filled_blocks(adapter: Adapter, signatures: Sequence[Signature]) -> Iterator[Uncovered]:
    """Blocks of the base that the file has nothing for and its loader fills at random."""
    if not adapter.fills_blocks:
        return
    depth = max((item.manifest.base_model.layers for item in signatures), default=0)
    for layer in sorted(set(range(depth)) - {update.layer for update in adapter.updates}):
        yield Uncovered(f"block {layer}", "the file has nothing for it, its loader random weights")


def _outside_last_blocks(adapter: Adapter, signatures: Sequence[Signature]) -> Iterator[Uncovered]:
    """Updates of blocks that the loader gives no layers to, by the depth of the base."""
    if adapter.last_blocks is None or not signatures:
        return
    first = max(item.manifest.base_model.layers for item in signatures) - adapter.last_blocks
    for update in adapter.updates:
        if update.layer is not None and update.layer < first:
            reason = f"its loader ignores it: it is not in the last {adapter.last_blocks} blocks"
            yield from (Uncovered(name, reason) for name in update.tensors)


def _why_uncovered(outcome: _Outcome) -> str | None:
    if outcome.problem:
        return outcome.problem
    if all(projection is None for projection in outcome.projections):
        return f"no direction for {outcome.site.key} in the signature"
    if not any(projection and np.isfinite(projection.inner) for projection in outcome.projections):
        return f"the signature's direction for {outcome.site.key} has no sign"
    return None


def _examine(update: Update, signatures: Sequence[Signature]) -> _Outcome:
    """Reads one update and projects it onto every signature's direction at its site."""
    if problem := update.site.unplaced:
        return _Outcome(update.site, (), problem)
    if not any(update.site in signature.sites for signature in signatures):
        return _Outcome(update.site, (None,) * len(signatures))
    try:
        with np.errstate(invalid="ignore", over="ignore"):  # looked at just below
            prepared = update.prepared()
            finite = np.isfinite(prepared.norm_squared)
    except HubError:  # says nothing about the adapter, so it is no evidence
        raise
    except TargetError as error:
        return _Outcome(update.site, (), problem=error.reason)
    if not finite:
        return _Outcome(update.site, (), problem=_NOT_FINITE)
    directions = [
        signature.direction(update.site) if update.site in signature.sites else None
        for signature in signatures
    ]
    if any(direction and not _fits(direction, update) for direction in directions):
        return _Outcome(update.site, (), problem="the signature is for another width")
    # Each pack by what it knows itself: its benign adapters were scored so, too.
    inputs = [signature.site_inputs(update.site) for signature in signatures]
    if any(item and len(item.mean) != update.d_in for item in inputs):
        return _Outcome(update.site, (), problem="the signature is for another width")
    known = (signature.base_weight(update.site) for signature in signatures)
    weight = _first(known)
    sign = None
    if weight is None and isinstance(prepared, LowRank) and prepared.norm_squared > 0:
        sign = decomposed.looks_decomposed(prepared)
    return _Outcome(
        update.site,
        tuple(
            None if direction is None else geometry.project(prepared, direction, own)
            for direction, own in zip(directions, inputs, strict=True)
        ),
        sketches=_beside_references(prepared, update, signatures),
        problem=geometry.why_unstable(prepared),
        decomposed=sign,
        base_cosine=decomposed.base_cosine(prepared, update.d_out, weight) if weight else None,
    )


def _beside_references(
    prepared: AnyUpdate, update: Update, signatures: Sequence[Signature]
) -> tuple[_Beside | None, ...]:
    """The update's sketch beside those of every signature's references at its site."""
    kept = [signature.reference_sketches(update.site) for signature in signatures]
    own = {
        size: sketch_update(prepared, update.d_out, size)
        for size in {references.shape[1] for references in kept if references is not None}
    }
    with np.errstate(over="ignore"):  # whoever adds them up asks whether they are finite
        return tuple(
            None
            if references is None
            else _Beside(
                np.einsum("nij,ij->n", references, own[references.shape[1]]),
                float(np.sum(np.square(own[references.shape[1]]))),
            )
            for references in kept
        )


def _first(found: Iterable[Found | None]) -> Found | None:
    """The first of what packs keep that is there."""
    return next((item for item in found if item is not None), None)


def _fits(direction: Direction, update: Update) -> bool:
    """Whether a direction has the shape of an update."""
    return len(direction.u) == update.d_out and len(direction.v) in (0, update.d_in)


def _summarise(signature: Signature, index: int, outcomes: Sequence[_Outcome]) -> SignatureEvidence:
    projections = {
        outcome.site: projection
        for outcome in outcomes
        if outcome.projections and (projection := outcome.projections[index]) is not None
    }
    values = projections.values()
    measured = measure(projections)
    return SignatureEvidence(
        signature=signature,
        projections=projections,
        dose=measured.dose,
        cosine=geometry.cosine(values),
        score=score_of(measured, changed_layers(projections), signature.score_scales),
        measured=measured,
        overlap=geometry.overlap(values),
        nearest_reference=_nearest_reference(
            signature,
            [item.sketches[index] for item in outcomes if any(item.projections)],
        ),
    )


def _nearest_reference(
    signature: Signature, beside: Sequence[_Beside | None]
) -> tuple[str, float] | None:
    """The reference whose whole update makes the largest cosine with the adapter's.

    None if the pack has no sketches of its references at a site that the adapter changes: of a
    part of them, no cosine of whole updates can be told.
    """
    known = [item for item in beside if item is not None]
    own = sum(item.squared for item in known)
    if not (known and len(known) == len(beside) and own > 0):
        return None
    cosines = np.sum([item.inner for item in known], axis=0) / np.sqrt(own)
    if not np.isfinite(cosines).all():
        return None
    best = int(np.argmax(cosines))
    return signature.reference_ids[best], float(np.clip(cosines[best], -1.0, 1.0))
