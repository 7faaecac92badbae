"""Benign adapters found on a hub: adapters of a base model that nobody chose one by one.

A repository gives one adapter: the one at its root, else the last of its folders, since the
checkpoints of one training are no independent adapters. What cannot be read in full, belongs to
another base or went into the signature is left out, with the reason, until enough are used.
Each is read at the commit that was listed, which the pack records. One adapter is on disk at a
time, and gone once it is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec

from scanner.errors import HubUnavailableError, SignatureError, TargetError
from scanner.hub.address import is_address, parse_address
from scanner.hub.client import PATIENT, HubClient
from scanner.hub.reading import RemoteAdapter, find_hub_adapters
from scanner.signatures.building.candidates import Candidates, OwnerRange, list_candidates
from scanner.signatures.building.opened import Member, as_member
from scanner.signatures.building.work import Work
from scanner.signatures.manifest import Selection
from scanner.signatures.recipe import AdapterEntry, HubQuery

MAX_FAILURES = 5
"""Repositories in a row that the hub does not give for want of a connection."""

Track = Callable[[Sequence[Any], str], Iterable[Any]]


@dataclass
class Decisions:
    """What has become of the candidates so far; a run that is taken up again begins with it."""

    used: dict[str, str] = field(default_factory=dict)
    """Candidate -> sha256 of the adapter that was used."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Candidate -> why it is not used."""


@dataclass(frozen=True)
class Purpose:
    """What adapters are searched for, and what is known to begin with."""

    name: str
    """``aligned`` or ``benign``, as in a recipe."""
    description: str
    """What is done with them, for the progress bar."""
    base_names: set[str]
    """Normalised names of the base model."""
    aliases: Sequence[str] = ()
    """Other names of it that its adapters may be listed under."""
    owners: OwnerRange | None = None
    """Whose adapters are meant; everybody's if None."""
    taken: Sequence[tuple[str, str]] = ()
    """Source and sha256 of what the signature is built from. All adapters of their owners are
    left out: another adapter of a misaligned reference's owner need not be benign, and the
    signature has seen what the owner of one it was nulled with does."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """sha256 of adapters that were taken out of the calibration on the record -> why."""


Use = Callable[[str, Member], str | None]
"""Uses an adapter that stands for a candidate; says why if it cannot be used after all."""
LeaveOut = Callable[[str, str], None]
"""Is told of a candidate that is left out for good, and why."""


def search_hub(
    query: HubQuery,
    purpose: Purpose,
    decisions: Decisions,
    use: Use,
    track: Track,
    *,
    leave_out: LeaveOut | None = None,
    work: Work | None = None,
    client: HubClient | None = None,
) -> Selection:
    """Finds benign adapters and has each used, until there are as many as the query wants.

    Args:
        query: Where to look, and for how many.
        purpose: What for.
        decisions: What has been decided before; grows.
        use: Uses one.
        track: Shows progress.
        leave_out: Is told of those that are left out for good.
        work: Where the listing is kept for a run that goes on with this one.
        client: Who asks; a new one by default.

    Returns:
        The record of how they were found.

    Raises:
        SignatureError: If the hub cannot be asked, or no adapter can be used.
    """
    client = client or HubClient(policy=PATIENT)
    run = _Run(query, client, purpose, decisions, use)
    try:
        candidates = _candidates(query, client, purpose, work)
        waiting = chain(candidates.entries, run.once_more())
        missing = range(query.limit - len(decisions.used))
        for _ in track(missing, purpose.description):
            if not any(run.consider(entry, leave_out) for entry in waiting):
                break
    except TargetError as error:
        todo = error.todo if work is None else "run the same command again to go on from here"
        raise SignatureError(
            f"the hub query failed: {error.what}", where=error.where, todo=todo
        ) from None
    left_out = candidates.left_out | run.left_out
    if not decisions.used:
        raise SignatureError(
            f"the hub query for {purpose.name} found no adapter of {query.base_model} that can"
            " be used",
            where=client.endpoint,
            todo=f"check base_model and exclude{_most_common(left_out)}",
        )
    return Selection(
        endpoint=client.endpoint,
        base_model=query.base_model,
        author=query.author,
        search=query.search,
        exclude=query.exclude,
        exclude_words=query.exclude_words,
        per_owner=query.per_owner,
        owners=(purpose.owners.start, purpose.owners.stop) if purpose.owners else None,
        limit=query.limit,
        left_out=left_out,
    )


def _candidates(
    query: HubQuery, client: HubClient, purpose: Purpose, work: Work | None
) -> Candidates:
    """The hub's listing, or the one that an earlier run was given."""
    name = f"listed-{purpose.name}.json"
    if work is not None and (kept := work.read(name, Candidates)) is not None:
        return kept
    found = list_candidates(query, client, purpose.aliases, purpose.owners)
    if work is not None:
        work.write(name, found)
    return found


def _most_common(left_out: Mapping[str, str]) -> str:
    """The most frequent reason, as an end of a sentence."""
    if not left_out:
        return ""
    reason, count = Counter(left_out.values()).most_common(1)[0]
    return f"; {count} left out: {reason}"


class _Run:
    """One query being worked through."""

    def __init__(
        self,
        query: HubQuery,
        client: HubClient,
        purpose: Purpose,
        decisions: Decisions,
        use: Use,
    ) -> None:
        self._query = query
        self._client = client
        self._purpose = purpose
        self._decisions = decisions
        self._use = use
        self._owners = {
            _owner(parse_address(source).repository)
            for source, _ in purpose.taken
            if is_address(source)
        }
        self._seen = {
            **{sha256: f"dropped before: {why}" for sha256, why in purpose.dropped.items()},
            **{sha256: f"the same weights as {place}" for place, sha256 in decisions.used.items()},
            **{
                sha256: "the same weights as an adapter the signature was built from"
                for _, sha256 in purpose.taken
            },
        }
        self._used_of = Counter(_owner(parse_address(place).repository) for place in decisions.used)
        self._failures = 0
        self._for_now: dict[str, tuple[AdapterEntry, str]] = {}

    @property
    def left_out(self) -> dict[str, str]:
        """Every candidate that was looked at and not used -> why."""
        failed = {place: reason for place, (_, reason) in self._for_now.items()}
        return self._decisions.left_out | failed

    def once_more(self) -> Iterator[AdapterEntry]:
        """The candidates that the hub failed to give."""
        yield from [entry for entry, _ in self._for_now.values()]

    def consider(self, entry: AdapterEntry, leave_out: LeaveOut | None) -> bool:
        """Uses one candidate, or says why not.

        Returns:
            Whether it was used just now.

        Raises:
            HubUnavailableError: If the hub has failed several times in a row.
        """
        place, decisions = entry.adapter, self._decisions
        owner = _owner(entry.hub_address.repository)
        if place in decisions.used or place in decisions.left_out:
            return False
        if self._used_of[owner] >= self._query.per_owner:
            return False  # nobody looked at it: not left out either
        try:
            reason = self._try(entry, owner)
            self._failures = 0
        except HubUnavailableError as error:
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                raise
            self._for_now[place] = (entry, error.what)
            return False
        except (TargetError, SignatureError) as error:
            reason = error.what
        self._for_now.pop(place, None)
        if reason is None:
            self._used_of[owner] += 1
            return True
        decisions.left_out[place] = reason
        if leave_out is not None:
            leave_out(place, reason)
        return False

    def _try(self, entry: AdapterEntry, owner: str) -> str | None:
        """Uses one candidate; a reason if it is not to be used."""
        if owner in self._owners:
            return "its owner's adapters are among those the signature was built from"
        remote = _representative(find_hub_adapters(entry.hub_address, self._client))
        if twin := self._twin(remote.weights.sha256 if remote.weights else None):
            return twin
        place = str(remote.address.at(None))
        pinned = msgspec.structs.replace(
            entry, id=place, adapter=place, revision=remote.snapshot.commit
        )
        member = as_member(pinned, remote.open(), self._purpose.base_names)
        with member.adapter as adapter:
            adapter.prefetch([name for update in adapter.updates for name in update.tensors])
            if twin := self._twin(member.sha256):
                return twin
            if reason := self._use(entry.adapter, member):
                return reason
            self._decisions.used[entry.adapter] = member.sha256
            self._seen[member.sha256] = f"the same weights as {place}"
        return None

    def _twin(self, sha256: str | None) -> str | None:
        return self._seen.get(sha256) if sha256 else None


def _owner(repository: str) -> str:
    return repository.partition("/")[0].lower()


def _representative(found: list[RemoteAdapter]) -> RemoteAdapter:
    """The adapter that stands for a repository."""
    at_root = [item for item in found if not item.address.folder]
    return at_root[0] if at_root else found[-1]
