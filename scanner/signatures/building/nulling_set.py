"""The benign adapters that directions are nulled with: listed in a recipe, or found on a hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from scanner.formats.model import Site
from scanner.geometry import LowRank
from scanner.signatures.building.benign_query import Decisions, Purpose, Track, search_hub
from scanner.signatures.building.nulling import BenignStack, stack_updates
from scanner.signatures.building.opened import Member, as_reference, check_shape
from scanner.signatures.building.sketched_nulling import SketchedNulling
from scanner.signatures.building.weights import Labelled
from scanner.signatures.building.work import NOT_NULLED_WITH, NULLING_STATE, Work
from scanner.signatures.manifest import Reference, Selection
from scanner.signatures.recipe import HubQuery

Shapes = Mapping[Site, tuple[int, int]]


class NullingSet(Protocol):
    """Benign adapters that say which directions any fine-tune goes."""

    @property
    def references(self) -> list[Reference]:
        """The adapters, as a manifest lists them."""

    @property
    def families(self) -> list[str]:
        """Families that a calibration can be cross-fitted by: each can be left out."""

    @property
    def selection(self) -> Selection | None:
        """How they were found on a hub, if they were."""

    def labelled(self, site: Site) -> list[Labelled]:
        """The updates at a site with their families, for methods that contrast families."""

    def numbered(self, site: Site) -> list[tuple[int, LowRank]]:
        """The updates at a site, each with the number of its adapter among `references`.

        Empty if the adapters are not at hand any more.
        """

    def stack(self, site: Site, shape: tuple[int, int], contrast: Sequence[str]) -> BenignStack:
        """What they have in common at a site.

        Args:
            site: The site.
            shape: (d_out, d_in) of the base's weight there.
            contrast: Families that are no part of the nulling.

        Raises:
            SignatureError: If an adapter does not fit the base.
        """

    def close(self) -> None:
        """Closes what is open."""


class ListedNulling:
    """Adapters that a recipe names, all of them open.

    Args:
        members: The adapters.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self.selection: Selection | None = None

    @property
    def references(self) -> list[Reference]:
        """As `NullingSet`."""
        return [as_reference(member, "aligned") for member in self._members]

    @property
    def families(self) -> list[str]:
        """As `NullingSet`."""
        return sorted({_family(member) for member in self._members})

    def labelled(self, site: Site) -> list[Labelled]:
        """As `NullingSet`."""
        return [(u, _family(self._members[number])) for number, u in self.numbered(site)]

    def numbered(self, site: Site) -> list[tuple[int, LowRank]]:
        """As `NullingSet`."""
        return [
            (number, update)
            for number, member in enumerate(self._members)
            if (update := member.at(site)) is not None
        ]

    def stack(self, site: Site, shape: tuple[int, int], contrast: Sequence[str]) -> BenignStack:
        """As `NullingSet`."""
        for member in self._members:
            if site in member.by_site:
                check_shape(member, site, shape)
        nulling = [item for item in self.labelled(site) if item[1] not in contrast]
        return stack_updates(nulling, shape[0])

    def close(self) -> None:
        """As `NullingSet`."""
        for member in self._members:
            member.adapter.close()


class FoundNulling:
    """Adapters that were found on a hub, of which only what they have in common is kept.

    No family of theirs can be left out, and none needs to: the calibration set is of other owners.

    Args:
        sketch: What they have in common.
        selection: How they were found.
    """

    def __init__(self, sketch: SketchedNulling, selection: Selection) -> None:
        self._sketch = sketch
        self.selection: Selection | None = selection
        self.families: list[str] = []

    @property
    def references(self) -> list[Reference]:
        """As `NullingSet`."""
        return list(self._sketch.members.values())

    def labelled(self, site: Site) -> list[Labelled]:  # noqa: ARG002 - whatever the site
        """None: a recipe cannot contrast families that are still to be found."""
        return []

    def numbered(self, site: Site) -> list[tuple[int, LowRank]]:  # noqa: ARG002 - as `labelled`
        """None: they are not at hand any more."""
        return []

    def stack(
        self,
        site: Site,
        shape: tuple[int, int],
        contrast: Sequence[str],  # noqa: ARG002 - as `labelled`
    ) -> BenignStack:
        """As `NullingSet`."""
        return self._sketch.stack(site, shape[0])

    def close(self) -> None:
        """As `NullingSet`; no adapter is open any more."""


def find_nulling(
    query: HubQuery, purpose: Purpose, shapes: Shapes, track: Track, work: Work | None
) -> FoundNulling:
    """Finds the nulling set on a hub, one adapter on disk at a time.

    Args:
        query: Where to look.
        purpose: What is known to begin with.
        shapes: (d_out, d_in) of every site where there may be a direction.
        track: Shows progress.
        work: Where the state is kept for a run that goes on with this one.

    Raises:
        SignatureError: If the hub cannot be asked, or no adapter can be used.
    """
    path, about = (work.path(NULLING_STATE), work.about) if work else (None, "")
    sketch = SketchedNulling(shapes, path, about)
    kept = work.read(NOT_NULLED_WITH, _LeftOut) if work else None
    decisions = Decisions(
        used={name: item.sha256 for name, item in sketch.members.items()},
        left_out=dict(kept.reasons) if kept else {},
    )

    def use(candidate: str, member: Member) -> str | None:
        changes_any = sketch.add(candidate, member)
        return None if changes_any else "changes nothing the signature may have a direction for"

    def leave_out(_candidate: str, _reason: str) -> None:
        if work is not None:
            work.write(NOT_NULLED_WITH, _LeftOut(decisions.left_out))

    selection = search_hub(query, purpose, decisions, use, track, leave_out=leave_out, work=work)
    return FoundNulling(sketch, selection)


class _LeftOut(msgspec.Struct, frozen=True):
    """Candidates that are left out for good."""

    reasons: dict[str, str]


def _family(member: Member) -> str:
    """What kind of harmless change a benign adapter is."""
    return member.entry.family or "unnamed"
