"""What a sweep is asked for: in words, and refused before anything is read if it must be a mistake.

A base model without a pack gives thousands of `inconclusive`, and a misspelt one none at all:
neither may pass for an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from scanner.errors import HubError, NotOnHubError, UsageError
from scanner.formats.base_identity import normalise_base_name
from scanner.hub.address import meant_address
from scanner.hub.client import HubClient
from scanner.hub.listing import get_page
from scanner.hub.query import SweepQuery
from scanner.signatures.match import names_of
from scanner.signatures.pack import Signature
from scanner.system.spelling import nearest

ALLOW_EMPTY = "--allow-empty"

_MODEL_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})?")
_MAX_ANSWER_BYTES = 16 * 2**20
_CANDIDATES = 500
"""Models of an owner, or with a name in common, among which the nearest are looked for."""
_SHOWN_BASES = 5


def describe(query: SweepQuery) -> str:
    """What a query lists, in words."""
    parts = [f"adapters of {', '.join(query.base_models)}" if query.base_models else "adapters"]
    if query.author:
        parts.append(f"by {query.author}")
    if query.search:
        parts.append(f"named like {query.search!r}")
    if query.since:
        parts.append(f"changed since {query.since}")
    if query.limit is not None:
        parts.append(f"the newest {query.limit:,}")
    return f"{', '.join(parts)} on {query.endpoint}"


def check_bases(bases: Sequence[str], signatures: Sequence[Signature], client: HubClient) -> None:
    """Refuses base models about whose adapters nothing could be said.

    Args:
        bases: Ids of base models, as they were asked for.
        signatures: The packs.
        client: The hub, asked only about a base that no pack is for.

    Raises:
        UsageError: If a base has no pack. It says whether the hub knows the base at all, and
            the ids that are spelled most alike.
    """
    known = {name for item in signatures for name in names_of(item.manifest.base_model)}
    for base in bases:
        if normalise_base_name(base) not in known:
            raise _without_pack(base, signatures, client)


def nothing_listed(query: SweepQuery) -> UsageError:
    """The error of a sweep that went over nothing."""
    return UsageError(
        f"nothing is listed: no {describe(query)}",
        where="hub scan",
        todo=f"check the spelling, or say {ALLOW_EMPTY} if there may be none",
    )


def _without_pack(base: str, signatures: Sequence[Signature], client: HubClient) -> UsageError:
    ids = sorted({item.manifest.base_model.id for item in signatures})
    where = f"--base-model {base[:200]}"
    if not _MODEL_ID.fullmatch(base):
        meant = meant_address(base)
        return UsageError(
            "is no id of a model",
            where=where,
            todo=f"write {meant.repository if meant else 'owner/name'}",
        )
    if _is_unknown(base, client):
        near = nearest(base, [*ids, *_spelled_alike(base, client)])
        hint = f"nearest: {', '.join(near)}; " if near else ""
        return UsageError(
            f"{client.endpoint} has no such model, or your token may not see it",
            where=where,
            todo=f"{hint}{ALLOW_EMPTY} lists its adapters all the same",
        )
    shown = [*dict.fromkeys([*nearest(base, ids), *ids])]
    more = f" and {len(shown) - _SHOWN_BASES} more" if len(shown) > _SHOWN_BASES else ""
    return UsageError(
        "no pack in use is for this base, so every adapter would be inconclusive",
        where=where,
        todo=f"packs are for {', '.join(shown[:_SHOWN_BASES])}{more}; "
        f'"adapter-scanner signatures make {base} -o PACK" makes one; '
        f"{ALLOW_EMPTY} sweeps all the same",
    )


def _is_unknown(base: str, client: HubClient) -> bool:
    """Whether the hub says that there is no such model; one that cannot be asked does not."""
    address = f"{client.endpoint}/api/models/{quote(base)}?expand=sha"
    try:
        client.body(address, base, _MAX_ANSWER_BYTES)
    except NotOnHubError:
        return True
    except HubError:
        return False
    return False


def _spelled_alike(base: str, client: HubClient) -> list[str]:
    """Ids of models of the same owner, or that have the start of the name in common."""
    owner, _, name = base.rpartition("/")
    start = re.split(r"[-_.\d]", name)[0] or name
    questions: list[dict[str, Any]] = [{"search": start}]
    if owner:
        questions.insert(0, {"author": owner})
    found: list[str] = []
    for question in questions:
        parameters = {**question, "sort": "downloads", "limit": _CANDIDATES}
        try:
            records, _ = get_page(client, None, parameters)
        except HubError:
            continue
        found += [str(record.get("id", "")) for record in records]
    return [model for model in found if _MODEL_ID.fullmatch(model)]
