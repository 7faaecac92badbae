"""Statuses and headers the hub refuses a request with -> errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping

from scanner.errors import (
    AccessDeniedError,
    HubAnswerError,
    HubError,
    HubUnavailableError,
    NotOnHubError,
)

_LOG_IN = 'log in with "hf auth login", or set HF_TOKEN'
_WAIT_IN_RATE_LIMIT = re.compile(r"\bt\s*=\s*(\d{1,9})")


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """What a 429 asks for: Retry-After, or the reset of the RateLimit header the hub sends."""
    if (after := headers.get("Retry-After", "").strip()).isdigit():
        return float(after)
    match = _WAIT_IN_RATE_LIMIT.search(headers.get("RateLimit", ""))
    return float(match[1]) if match else None


def refusal(status: int, headers: Mapping[str, str], where: str) -> HubError | None:
    """The error a status stands for; None if it is a success."""
    if status in (200, 206):
        return None
    code = headers.get("X-Error-Code", "")
    message = _one_line(headers.get("X-Error-Message", ""))
    if status == 429:
        return HubUnavailableError(
            "the hub's rate limit is reached (429)",
            where=where,
            todo="wait, or log in: the limits of an account are higher",
            retry_after=seconds_to_wait(headers),
        )
    if status == 408 or status >= 500:
        return HubUnavailableError(
            f"the hub has a problem of its own ({status})",
            where=where,
            todo="try again later",
            retry_after=seconds_to_wait(headers),
        )
    if code == "GatedRepo":
        return _gated(status, where)
    if status == 401:
        return _unauthorised(code, message, where)
    if status == 404 or code == "RepoNotFound":
        return _not_found(code, where)
    if status == 403:
        return AccessDeniedError(
            f"access is forbidden (403{f': {message}' if message else ''})",
            where=where,
            todo="check what your token may read",
        )
    return HubAnswerError(f"an answer of status {status}", where=where)


def _gated(status: int, where: str) -> HubError:
    if status == 401:
        return AccessDeniedError(
            "a gated repository, and you are not logged in (401)",
            where=where,
            todo=f"ask for access on its page, then {_LOG_IN}",
        )
    return AccessDeniedError(
        f"a gated repository, and your account has no access ({status})",
        where=where,
        todo="ask for access on its page",
    )


def _unauthorised(code: str, message: str, where: str) -> HubError:
    if code == "RepoNotFound":
        return NotOnHubError(
            "no such repository, or a private one and you are not logged in (401)",
            where=where,
            todo=f"check the name, or {_LOG_IN}",
        )
    if "invalid credentials" in message.lower():
        return AccessDeniedError(
            "the hub does not accept your token (401)", where=where, todo=_LOG_IN
        )
    return AccessDeniedError("the hub wants to know who you are (401)", where=where, todo=_LOG_IN)


def _not_found(code: str, where: str) -> HubError:
    if code == "RevisionNotFound":
        return NotOnHubError(
            "no such revision in this repository (404)",
            where=where,
            todo="name a branch, a tag or a whole commit id",
        )
    if code == "EntryNotFound":
        return NotOnHubError("no such file in this repository (404)", where=where)
    if code != "RepoNotFound":
        return NotOnHubError("nothing is there (404)", where=where, todo="check the name")
    return NotOnHubError(
        "no such repository, or a private one your account cannot see (404)",
        where=where,
        todo="check the name and your access",
    )


def _one_line(text: str) -> str:
    """A server's message, shortened and escaped to fit one line of a terminal."""
    return "".join(c if c.isprintable() else " " for c in text[:200]).strip()
