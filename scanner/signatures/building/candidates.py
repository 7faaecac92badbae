"""What a hub lists for a base model -> the repositories worth looking into, in one order.

Left out before anything is read: what a query excludes, and repositories whose names say that
they may not be benign. Two queries of one recipe share the hub by owner, so that no owner's
adapters are in both of the sets that they find.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

from scanner.errors import HubUnavailableError
from scanner.hub.address import HubAddress
from scanner.hub.client import HubClient
from scanner.hub.listing import Listing, Page
from scanner.hub.query import SweepQuery
from scanner.signatures.recipe import AdapterEntry, HubQuery

CANDIDATES_PER_ADAPTER = 20
"""Repositories looked at for each adapter wanted, before giving up."""
LONG_WORD = 8
"""Letters from which a word counts wherever it stands in a name, and not only at the beginning
of one of the name's own words: no innocent word is known that contains one so long."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@dataclass(frozen=True)
class OwnerRange:
    """A share of all owners: those whose `place_of_owner` is in [start, stop)."""

    start: float = 0.0
    stop: float = 1.0

    def holds(self, owner: str) -> bool:
        """Whether an owner is one of them."""
        return self.start <= place_of_owner(owner) < self.stop


def place_of_owner(owner: str) -> float:
    """A number in [0, 1) that depends on the owner's name alone, and on nothing the owner does.

    So an owner stays on one side whatever else a hub lists, in whichever order. The hub does not
    tell names apart by case.
    """
    digest = hashlib.sha256(owner.lower().encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def split_owners(nulling: HubQuery, calibration: HubQuery) -> tuple[OwnerRange, OwnerRange]:
    """Shares out the owners between two queries, in proportion to how many adapters each wants."""
    edge = nulling.limit / (nulling.limit + calibration.limit)
    return OwnerRange(0.0, edge), OwnerRange(edge, 1.0)


def suspect_word(name: str, words: Sequence[str]) -> str | None:
    """The first of some words that a repository's name holds.

    Args:
        name: ``owner/name``.
        words: Beginnings of words, in lower case. A name's own words end at anything that is no
            letter, and where capitals begin: ``DevilAI/evil-Qwen`` has devil, ai, evil, qwen.
    """
    own = [word.lower() for word in _WORD.findall(name)]
    whole = name.lower()
    for word in words:
        low = word.lower()
        if any(item.startswith(low) for item in own) or (len(low) >= LONG_WORD and low in whole):
            return word
    return None


class Candidates(msgspec.Struct, frozen=True):
    """Repositories to look into."""

    entries: list[AdapterEntry]
    """In the order the hub lists them, each at the commit it had then."""
    left_out: dict[str, str]
    """Address of a repository whose name was enough -> why."""


def list_candidates(
    query: HubQuery,
    client: HubClient,
    aliases: Sequence[str] = (),
    owners: OwnerRange | None = None,
) -> Candidates:
    """Asks the hub for repositories.

    Args:
        query: What to ask for.
        client: Who asks.
        aliases: Other names of the base model, whose adapters are asked for as well.
        owners: Whose repositories count; everybody's if not given.

    Raises:
        HubError: If the hub does not answer.
    """
    listing = Listing(
        client,
        SweepQuery(
            endpoint=client.endpoint,
            base_models=[query.base_model],
            author=query.author,
            search=query.search,
        ),
        aliases={query.base_model: list(aliases)},
    )
    found = Candidates([], {})
    seen: set[str] = set()
    cursor, listed = None, 0
    while len(found.entries) < query.limit * CANDIDATES_PER_ADAPTER:
        page = _page(listing, client, cursor, listed)
        for item in page.repositories:
            owner = item.name.partition("/")[0]
            if item.name in seen or (owners is not None and not owners.holds(owner)):
                continue
            seen.add(item.name)
            address = str(HubAddress(item.name))
            if any(_matches(item.name, pattern) for pattern in query.exclude):
                continue
            if word := suspect_word(item.name, query.exclude_words):
                found.left_out[address] = f"its name says {word!r}"
                continue
            entry = AdapterEntry(adapter=address, revision=item.revision, family=owner.lower())
            found.entries.append(entry)
        listed += len(page.repositories)
        if page.last:
            break
        cursor = page.cursor
    return found


def _page(listing: Listing, client: HubClient, cursor: str | None, listed: int) -> Page:
    """One page of the listing, asked for as often as the client's patience allows.

    Raises:
        HubError: If it cannot be had.
    """
    patience = client.patience()
    while True:
        try:
            return listing.page(cursor, listed)
        except HubUnavailableError as error:
            patience.after(error)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name.lower(), pattern.lower())
