"""How benign adapters are scored by a signature, on disk or still in the making.

A benign adapter of family f is scored with the signature nulled *without* family f, so the
threshold also holds for kinds of harmless change the signature has never seen. Families
that were not among the nulling set are scored with the signature itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from scanner import geometry
from scanner.errors import SignatureError
from scanner.formats.model import Adapter, Site, Update
from scanner.geometry import Direction, SiteInputs, SiteProjection
from scanner.signatures.building.opened import Member, open_member, source_of
from scanner.signatures.manifest import PARTIAL_METHODS, BenignScore
from scanner.signatures.pack import Directions, Signature
from scanner.signatures.recipe import AdapterEntry
from scanner.signatures.score import changed_layers, signed_write_score, site_numbers, update_norm

Item = TypeVar("Item")
Track = Callable[[Sequence[Item], str], Iterable[Item]]
"""Wraps a sequence to show progress under a description."""


def untracked(items: Sequence[Item], description: str) -> Iterable[Item]:  # noqa: ARG001
    """A `Track` that shows nothing."""
    return items


def _unknown(_site: Site) -> None:
    """The inputs of no site are known."""


@dataclass(frozen=True)
class Scorer:
    """A signature, as benign adapters are scored by it."""

    directions: Callable[[Site], Direction | None]
    crossfit: Mapping[str, Directions] = field(default_factory=dict)
    """Family -> the signature nulled without it."""
    inputs: Callable[[Site], SiteInputs | None] = _unknown
    """What is known of a site's inputs in the base."""
    partial: bool = False
    """Whether the signature covers some modules only: an adapter's other sites are left aside."""

    def project(self, adapter: Adapter, family: str | None = None) -> dict[Site, SiteProjection]:
        """Projects a benign adapter onto the signature.

        Args:
            adapter: The adapter.
            family: Its family, which the signature is nulled without if it can be.

        Returns:
            The projection at every site; empty if the signature is partial and sees nothing.

        Raises:
            SignatureError: If the adapter changes nothing, holds NaN, or changes a site without
                a direction and the signature is not partial: its score would not be comparable.
        """
        own = self.crossfit.get(family) if family is not None else None
        direction_at = own.get if own else self.directions
        projections: dict[Site, SiteProjection] = {}
        for update in adapter.updates:
            direction = direction_at(update.site)
            if direction is not None and direction.signed:
                _check_fits(adapter, update, direction)
            if direction is None and not self.partial:
                raise SignatureError(
                    f"changes {update.site.key}, where the signature has no direction",
                    where=adapter.target,
                )
            if direction is not None:
                projections[update.site] = geometry.project(
                    update.prepared(), direction, self.inputs(update.site)
                )
        if projections and not math.isfinite(signed_write_score(projections)):
            raise SignatureError("is untrained or holds NaN or Inf", where=adapter.target)
        return projections

    def score(self, member: Member) -> BenignScore | None:
        """Scores one adapter, under the signature nulled without its family if there is one.

        Returns:
            The score, which is the signed write until `scanner.signatures.scaling` knows all of
            them; None if the signature is partial and sees nothing of the adapter.

        Raises:
            SignatureError: If it cannot be scored.
        """
        adapter, entry = member.adapter, member.entry
        family = entry.family or "unnamed"
        projections = self.project(adapter, family)
        if not projections:
            return None
        signed_write = signed_write_score(projections)
        return BenignScore(
            id=entry.name,
            sha256=member.sha256,
            family=family,
            score=signed_write,
            signed_write=signed_write,
            cosine=geometry.cosine(projections.values()),
            dose=geometry.dose(projections.values()),
            norm=update_norm(projections),
            rank=max(update.rank for update in adapter.updates),
            layers=changed_layers(projections),
            modules=sorted({update.module for update in adapter.updates}),
            source=source_of(entry),
            revision=entry.revision,
            sites=site_numbers(projections, digits=4),
        )

    def score_all(
        self,
        entries: Sequence[AdapterEntry],
        base_names: set[str],
        track: Track[AdapterEntry] = untracked,
    ) -> list[BenignScore]:
        """Scores a calibration set, one adapter open at a time.

        Adapters of which a partial signature sees nothing have no score, and are left out.

        Args:
            entries: The adapters.
            base_names: Normalised names of the base model.
            track: Shows progress.

        Raises:
            SignatureError: If an adapter cannot be scored, or stands in the set twice.
        """
        scores: list[BenignScore] = []
        seen: dict[str, str] = {}
        for entry in track(entries, "scoring benign adapters"):
            member = open_member(entry, base_names)
            with member.adapter:
                if member.sha256 in seen:
                    raise SignatureError(
                        f"the same weights as {seen[member.sha256]}", where=entry.adapter
                    )
                seen[member.sha256] = entry.name
                if score := self.score(member):
                    scores.append(score)
        return scores


def scorer_of(signature: Signature, crossfit: Mapping[str, Directions]) -> Scorer:
    """Scores by a pack on disk.

    Args:
        signature: The pack.
        crossfit: Its directions that leave a family out.
    """

    def direction(site: Site) -> Direction | None:
        return signature.direction(site) if site in signature.sites else None

    partial = signature.manifest.method in PARTIAL_METHODS
    return Scorer(direction, crossfit, signature.site_inputs, partial)


def _check_fits(adapter: Adapter, update: Update, direction: Direction) -> None:
    """Refuses an update of another shape than the weight that the direction is of.

    Raises:
        SignatureError: If it is one: the adapter is of another base than it names.
    """
    shape = (len(direction.u), len(direction.v))
    if (update.d_out, update.d_in) != shape:
        raise SignatureError(
            f"{update.site.key} is {update.d_out} x {update.d_in}, "
            f"the signature's base has {shape[0]} x {shape[1]}",
            where=adapter.target,
            todo="it is an adapter of another base than it names",
        )
