"""The hub's listing of adapters, a page at a time, from wherever it was left.

A page is asked for by its cursor: the lists still to go over, and the address of the next
page of the first of them. That is all the state there is, so memory does not grow, and a
listing goes on in another process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from scanner.errors import HubAnswerError, HubUnavailableError
from scanner.formats.base_identity import normalise_base_name
from scanner.formats.peft_config import CONFIG_NAME
from scanner.formats.rules import ADAPTER_STEMS, WEIGHT_SUFFIXES
from scanner.hub.client import HubClient
from scanner.hub.query import ListedRepository, SweepQuery

ADAPTER_TAG = "base_model:adapter:"
"""Tag prefix of the adapters of a base model."""
QUANTISED_TAG = "base_model:quantized:"
"""Tag prefix of a base model's quantised mirrors, whose adapters carry the mirror's name."""
PAGE_SIZE = 1000
MAX_PAGE_BYTES = 256 * 2**20
MAX_MIRROR_PAGES = 100
"""Pages of quantised models that are looked through for a base's mirrors."""

_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')


class Cursor(msgspec.Struct, frozen=True):
    """The place in a listing from which the next page is asked for."""

    tags: list[str | None]
    """Lists not yet finished, by the tag they are filtered by."""
    query: str | None = None
    """The hub's cursor of the next page of the first list; None for its first page."""


@dataclass(frozen=True)
class Page:
    """Some repositories, and where the next ones are."""

    repositories: list[ListedRepository]
    cursor: str | None
    last: bool


@dataclass(frozen=True)
class Listing:
    """The repositories a query is about.

    Args:
        client: The hub.
        query: The query.
        aliases: Base model id -> other names of the same model that packs know.
    """

    client: HubClient
    query: SweepQuery
    aliases: Mapping[str, Sequence[str]]

    def page(self, cursor: str | None, listed: int) -> Page:
        """One page, in one request (more at the start, to find quantised mirrors).

        Args:
            cursor: Where it is; None for the start.
            listed: Repositories listed so far, which the query's limit counts.

        Raises:
            HubUnavailableError: If the hub cannot be reached or asks to wait.
            HubError: If it refuses, or answers something else.
        """
        at = self._start() if cursor is None else msgspec.json.decode(cursor, type=Cursor)
        room = None if self.query.limit is None else self.query.limit - listed
        if not at.tags or (room is not None and room <= 0):
            return Page([], None, last=True)
        records, query = self._records(at, room)
        recent = [record for record in records if self._is_recent(record)]
        found = [self._repository(record) for record in recent if self._holds_adapter(record)]
        ended = query is None or len(recent) < len(records)  # the newest come first
        following = Cursor(at.tags[1:]) if ended else Cursor(at.tags, query)
        full = room is not None and len(found) >= room
        return Page(
            found[:room],
            msgspec.json.encode(following).decode(),
            last=full or not following.tags,
        )

    def _start(self) -> Cursor:
        """The lists to go over: those of every base and of all its mirrors, or just one."""
        if not self.query.base_models:
            return Cursor([None])
        names: dict[str, None] = {}
        for base in self.query.base_models:
            for name in (base, *self._named_by_packs(base), *self._mirrors(base)):
                names.setdefault(name)
        return Cursor([ADAPTER_TAG + name for name in names])

    def _named_by_packs(self, base: str) -> list[str]:
        """Aliases that are ids of repositories."""
        return [name for name in self.aliases.get(base, ()) if name.count("/") == 1]

    def _mirrors(self, base: str) -> list[str]:
        """Quantised models that are the base but for their packaging, by name."""
        names = {normalise_base_name(name) for name in (base, *self.aliases.get(base, ()))}
        found: list[str] = []
        query: str | None = None
        for _ in range(MAX_MIRROR_PAGES):
            parameters = {"filter": QUANTISED_TAG + base, "limit": PAGE_SIZE, "expand": "sha"}
            records, query = get_page(self.client, query, parameters)
            quantised = [_text(record, "id") for record in records]
            found += [name for name in quantised if normalise_base_name(name) in names]
            if query is None:
                break
        return sorted(found)

    def _records(
        self, at: Cursor, room: int | None
    ) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        query = self.query
        columns = (
            ["sha", "lastModified"] if query.base_models else ["sha", "lastModified", "siblings"]
        )
        parameters: dict[str, Any] = {
            "expand": columns,
            # By time of creation a listing is stable while it is gone through: what is new
            # comes before its start. Only "changed since" needs the other order.
            "sort": "lastModified" if query.since else "createdAt",
            "limit": PAGE_SIZE if room is None else min(room, PAGE_SIZE),
        }
        if at.tags[0] is not None:
            parameters["filter"] = at.tags[0]
        if query.author:
            parameters["author"] = query.author
        if query.search:
            parameters["search"] = query.search
        return get_page(self.client, at.query, parameters)

    def _is_recent(self, record: Mapping[str, Any]) -> bool:
        return self.query.since is None or _text(record, "lastModified") >= self.query.since

    def _holds_adapter(self, record: Mapping[str, Any]) -> bool:
        """Whether a repository looks as if it held an adapter.

        What carries an adapter's tag is looked into in any case; an author's other models are
        not adapters, and no concern of this listing.
        """
        if self.query.base_models:
            return True
        names = [str(file.get("rfilename", "")) for file in record.get("siblings") or ()]
        return any(_is_adapter_file(name.rpartition("/")[2]) for name in names)

    @staticmethod
    def _repository(record: Mapping[str, Any]) -> ListedRepository:
        return ListedRepository(name=_text(record, "id"), revision=_text(record, "sha"))


def _is_adapter_file(name: str) -> bool:
    return name == CONFIG_NAME or (
        name.startswith(ADAPTER_STEMS) and name.endswith(WEIGHT_SUFFIXES)
    )


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value:
        raise HubAnswerError(f"a listing whose entries have no {key!r}")
    return value


def get_page(
    client: HubClient, query: str | None, parameters: Mapping[str, Any]
) -> tuple[Sequence[Mapping[str, Any]], str | None]:
    """One page of the hub's list of models.

    Args:
        client: The hub.
        query: The page's query; None for the first one.
        parameters: Of the first page; the queries of the others hold theirs.

    Returns:
        The entries, and the next page's query if there is one. The rest of its address is the
        client's own: a mirror repeats the addresses of the hub behind it.

    Raises:
        HubError: If the page cannot be had.
    """
    address = f"{client.endpoint}/api/models?{query or urlencode(parameters, doseq=True)}"
    where = "the hub's list of models"
    body = bytearray()
    with client.answer(address, where) as answer:
        for block in answer.raw:
            body += block
            if len(body) > MAX_PAGE_BYTES:
                raise HubAnswerError(f"a page over {MAX_PAGE_BYTES:,} bytes", where=where)
        link = _NEXT.search(answer.headers.get("Link", ""))
        claimed = answer.headers.get("Content-Length", "")
    if claimed.isdigit() and int(claimed) != len(body):
        raise HubUnavailableError("a page that ends too early", where=where)
    try:
        records = msgspec.json.decode(body, type=list[dict[str, Any]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # A proxy may cut an answer and still announce the length it passes on: worth another try.
        begun = body.lstrip().startswith(b"[")
        error = HubUnavailableError if begun else HubAnswerError
        raise error("a page that is no list of models", where=where) from None
    return records, urlsplit(link[1]).query if link else None
