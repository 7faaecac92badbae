"""A calibration set found on the hub: adapters of a base model that nobody chose one by one.

A repository gives one adapter: the one at its root, else the last of its folders, since the
checkpoints of one training are no independent adapters. What cannot be read in full, belongs to
another base or went into the signature is left out, with the reason, until enough are scored.
Each is read at the commit that was listed, which the calibration records; nothing is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from scanner.errors import HubUnavailableError, SignatureError, TargetError
from scanner.hub.address import HubAddress, is_address, parse_address
from scanner.hub.client import PATIENT, HubClient
from scanner.hub.listing import Listing
from scanner.hub.query import SweepQuery
from scanner.hub.reading import RemoteAdapter, find_hub_adapters
from scanner.signatures.building.opened import Member, as_member
from scanner.signatures.manifest import BenignScore, Selection
from scanner.signatures.recipe import AdapterEntry, HubQuery

MAX_FAILURES = 5
"""Repositories in a row that the hub does not give for want of a connection."""
CANDIDATES_PER_ADAPTER = 20
"""Repositories looked at for each adapter wanted, before giving up."""

Score = Callable[[Member], BenignScore | None]
Track = Callable[[Sequence[AdapterEntry], str], Iterable[AdapterEntry]]


def score_query(
    query: HubQuery,
    base_names: set[str],
    score: Score,
    track: Track,
    taken: Sequence[tuple[str, str]] = (),
    client: HubClient | None = None,
) -> tuple[list[BenignScore], Selection]:
    """Finds benign adapters and scores them.

    Args:
        query: Where to look, and for how many.
        base_names: Normalised names of the base model.
        score: Scores one.
        track: Shows progress.
        taken: Source and sha256 of what the signature was built from. Whole repositories of
            theirs are left out: another checkpoint of a misaligned reference is not benign.
        client: Who asks; a new one by default.

    Returns:
        The scores, and the record of how they were found.

    Raises:
        SignatureError: If the hub cannot be asked, or no adapter can be used.
    """
    client = client or HubClient(policy=PATIENT)
    run = _Run(query, client, base_names, score, taken)
    try:
        candidates = list(_candidates(query, client))
        for entry in track(candidates, "scoring benign adapters of the hub"):
            if len(run.scores) == query.limit:
                break
            run.consider(entry)
    except TargetError as error:
        raise SignatureError(
            f"the hub query failed: {error.what}", where=error.where, todo=error.todo
        ) from None
    if not run.scores:
        raise SignatureError(
            f"the hub query found no adapter of {query.base_model} that can be used",
            where=client.endpoint,
            todo=f"check base_model and exclude{_most_common(run.left_out)}",
        )
    return run.scores, run.selection()


def _candidates(query: HubQuery, client: HubClient) -> Iterator[AdapterEntry]:
    """Repositories in the order the hub lists them, each at the commit it has now."""
    listing = Listing(
        client,
        SweepQuery(
            endpoint=client.endpoint,
            base_models=[query.base_model],
            author=query.author,
            search=query.search,
        ),
        aliases={},
    )
    cursor, listed, seen = None, 0, set()
    while listed < query.limit * CANDIDATES_PER_ADAPTER:
        page = listing.page(cursor, listed)
        for item in page.repositories:
            if item.name not in seen and not _is_excluded(item.name, query.exclude):
                seen.add(item.name)
                owner = item.name.partition("/")[0]
                address = str(HubAddress(item.name))
                yield AdapterEntry(adapter=address, revision=item.revision, family=owner)
        listed += len(page.repositories)
        if page.last:
            return
        cursor = page.cursor


def _is_excluded(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


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
        base_names: set[str],
        score: Score,
        taken: Sequence[tuple[str, str]],
    ) -> None:
        self._query = query
        self._client = client
        self._base_names = base_names
        self._score = score
        self._references = {
            parse_address(source).repository for source, _ in taken if is_address(source)
        }
        self._seen = {digest: "an adapter the signature was built from" for _, digest in taken}
        self._failures = 0
        self.scores: list[BenignScore] = []
        self.left_out: dict[str, str] = {}

    def selection(self) -> Selection:
        """The record of the query and what it left out."""
        query = self._query
        return Selection(
            endpoint=self._client.endpoint,
            base_model=query.base_model,
            author=query.author,
            search=query.search,
            exclude=query.exclude,
            limit=query.limit,
            left_out=self.left_out,
        )

    def consider(self, entry: AdapterEntry) -> None:
        """Scores one candidate, or says why not.

        Raises:
            HubUnavailableError: If the hub has failed several times in a row.
        """
        try:
            reason = self._try(entry)
            self._failures = 0
        except HubUnavailableError as error:
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                raise
            reason = error.what
        except (TargetError, SignatureError) as error:
            reason = error.what
        if reason is not None:
            self.left_out[entry.adapter] = reason

    def _try(self, entry: AdapterEntry) -> str | None:
        """Scores one candidate; a reason if it is not to be used."""
        if entry.hub_address.repository in self._references:
            return "its repository holds a reference of the signature"
        remote = _representative(find_hub_adapters(entry.hub_address, self._client))
        if twin := self._twin(remote.weights.sha256 if remote.weights else None):
            return twin
        place = str(remote.address.at(None))
        pinned = msgspec.structs.replace(
            entry, id=place, adapter=place, revision=remote.snapshot.commit
        )
        member = as_member(pinned, remote.open(), self._base_names)
        with member.adapter as adapter:
            adapter.prefetch([name for update in adapter.updates for name in update.tensors])
            if twin := self._twin(member.sha256):
                return twin
            score = self._score(member)
            if score is None:
                return "changes nothing the signature has a direction for"
            self._seen[member.sha256] = place
            self.scores.append(score)
        return None

    def _twin(self, sha256: str | None) -> str | None:
        return f"the same weights as {self._seen[sha256]}" if sha256 in self._seen else None


def _representative(found: list[RemoteAdapter]) -> RemoteAdapter:
    """The adapter that stands for a repository."""
    at_root = [item for item in found if not item.address.folder]
    return at_root[0] if at_root else found[-1]
