"""Requests to the hub: bounded, retried, and with one clear error for each way they end.

The connection, the endpoint and the token are huggingface_hub's own. Redirects are followed
here, one by one: the token goes to the hub alone, and never over a plainer protocol than the
one asked for. Rate limits are shared: when the hub asks one thread to wait, all threads of
the client do. Nothing but this program's name and version is sent with a request.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import urljoin, urlsplit

from scanner.errors import (
    HubAnswerError,
    HubError,
    HubUnavailableError,
    UsageError,
    first_line,
)
from scanner.hub.refusals import refusal, seconds_to_wait
from scanner.system.backoff import Backoff
from scanner.version import version

MAX_REDIRECTS = 5
MIN_BYTES_PER_SECOND = 10_000
"""An answer that comes more slowly, after a minute, is given up."""

_GRACE_SECONDS = 60.0
_UNREAD_BYTES = 2**16
"""Most that is read of an answer nobody wants, so that its connection can be used again."""
_PROGRESS_BYTES = 2**20
"""An attempt that brought as much does not count as failed."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class RetryPolicy:
    """How often a failed request is tried again, and how long is waited in between."""

    attempts: int = 4
    """Tries of one request, the first included."""
    first_wait: float = 1.0
    """Seconds after the first failure; doubles with each."""
    longest_wait: float = 120.0
    """A hub that asks for a longer wait makes the request fail, and says when to come back."""


PATIENT = RetryPolicy(attempts=6, longest_wait=330.0)
"""For long work that nobody watches: it sits out the hub's rate limit, whose window is 300 s."""


@dataclass(frozen=True)
class Answer:
    """One answer, its body not yet read."""

    status: int
    url: str
    """Where it came from, after redirects."""
    headers: Mapping[str, str]
    linked: Mapping[str, str]
    """What the hub said of the file: the headers of its redirect, or of the answer itself."""
    raw: Iterator[bytes]
    """The pieces of the body, as they arrive."""


class Patience:
    """How often one request may still be tried."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._backoff = Backoff(policy.first_wait, policy.longest_wait)

    def after(self, error: HubUnavailableError, received: int = 0) -> None:
        """Waits before the next try.

        Args:
            error: How the last one ended.
            received: Bytes it brought all the same.

        Raises:
            HubUnavailableError: The error itself, if there is no next try.
        """
        if received >= _PROGRESS_BYTES:
            self._failures = 0
        self._failures += 1
        asked = error.retry_after
        wait = self._backoff.wait(self._failures) if asked is None else asked
        if self._failures >= self._policy.attempts or wait > self._policy.longest_wait:
            raise error
        time.sleep(wait)


class HubClient:
    """Requests to one hub. Threads may share it.

    Args:
        endpoint: The hub's address; the user's own setting (``HF_ENDPOINT``) if not given.
        policy: How long it insists.

    Raises:
        UsageError: If the endpoint is no http(s) address.
    """

    def __init__(self, endpoint: str | None = None, policy: RetryPolicy | None = None) -> None:
        from huggingface_hub import constants

        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.policy = policy or RetryPolicy()
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("is no http(s) address", where=f"HF_ENDPOINT={self.endpoint[:200]}")
        self._lock = Lock()
        self._not_before = 0.0
        self._requests = 0
        self._received = 0

    @property
    def requests(self) -> int:
        """Requests sent so far, redirects followed included."""
        return self._requests

    @property
    def received(self) -> int:
        """Bytes of answers' bodies received so far."""
        return self._received

    def patience(self) -> Patience:
        """How often, and until when, one request may be tried."""
        return Patience(self.policy)

    def body(self, url: str, where: str, limit: int) -> bytes:
        """The body of an answer that is read as a whole.

        Args:
            url: The address.
            where: What to call it in errors.
            limit: Most bytes it may have.

        Raises:
            HubError: If there is none; see `scanner.errors`.
        """
        patience = self.patience()
        while True:
            try:
                with self.answer(url, where) as answer:
                    return self._whole(answer, where, limit)
            except HubUnavailableError as error:
                patience.after(error)

    def _whole(self, answer: Answer, where: str, limit: int) -> bytes:
        body = bytearray()
        for block in answer.raw:
            body += block
            if len(body) > limit:
                raise HubAnswerError(f"an answer over {limit:,} bytes", where=where)
        claimed = answer.headers.get("Content-Length", "")
        if claimed.isdigit() and int(claimed) != len(body):
            raise HubUnavailableError("an answer that ends too early", where=where)
        return bytes(body)

    @contextmanager
    def answer(
        self, url: str, where: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[Answer]:
        """Sends one GET, once, and follows where it leads.

        The body must be read inside the `with`, by nothing but the answer's own iterator.

        Raises:
            HubError: If the answer is no success, or the connection fails.
        """
        from huggingface_hub.errors import OfflineModeIsEnabled

        try:
            with self._following(url, where, dict(headers or {})) as answer:
                yield answer
        except OfflineModeIsEnabled:
            raise HubError(
                "huggingface_hub is in offline mode",
                where=where,
                todo="unset HF_HUB_OFFLINE, or scan a local copy",
            ) from None
        except _client_errors() as error:
            raise HubUnavailableError(
                f"the connection to {urlsplit(url).netloc} failed: {first_line(error)}",
                where=where,
                todo="check the network, or scan a local copy",
            ) from None

    @contextmanager
    def _following(self, url: str, where: str, headers: dict[str, str]) -> Iterator[Answer]:
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session

        headers = {"User-Agent": f"adapter-scanner/{version()}", **headers}
        headers |= {"Accept-Encoding": "identity", **self._token_for(url)}
        linked: Mapping[str, str] = {}
        for _ in range(MAX_REDIRECTS + 1):
            self._pass_gate()
            with get_session().stream(
                "GET",
                url,
                headers=headers,
                follow_redirects=False,
                timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            ) as response:
                found = response.headers
                if response.status_code not in _REDIRECTS:
                    self._check(response, where)
                    linked = linked or found
                    raw = self._paced(response.iter_raw(), where)
                    yield Answer(response.status_code, url, found, linked, raw)
                    return
                linked = linked or found
                target = _target(url, found.get("Location", ""), where)
                if urlsplit(target)[:2] != urlsplit(url)[:2]:
                    headers.pop("authorization", None)
                url = target
                self._drain(response)
        raise HubAnswerError(f"more than {MAX_REDIRECTS} redirects", where=where)

    def _token_for(self, url: str) -> dict[str, str]:
        from huggingface_hub import constants, get_token

        if urlsplit(url)[:2] != urlsplit(self.endpoint)[:2]:
            return {}
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        return {"authorization": f"Bearer {token}"} if token else {}

    def _pass_gate(self) -> None:
        """Counts a request, and holds it back while the hub wants to be left alone."""
        with self._lock:
            self._requests += 1
            wait = self._not_before - time.monotonic()
        if wait > 0:
            time.sleep(wait)

    def _check(self, response: Any, where: str) -> None:
        """Refuses an answer that is no success, or compressed though nobody asked for it."""
        if response.status_code == 429:
            wait = seconds_to_wait(response.headers)
            with self._lock:
                until = time.monotonic() + min(wait or 0.0, self.policy.longest_wait)
                self._not_before = max(self._not_before, until)
        if error := refusal(response.status_code, response.headers, where):
            self._drain(response)
            raise error
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise HubAnswerError("a compressed answer, which was not asked for", where=where)

    def _paced(self, blocks: Iterator[bytes], where: str) -> Iterator[bytes]:
        """Counts a body's bytes, and gives it up if it comes too slowly."""
        started, received = time.monotonic(), 0
        for block in blocks:
            received += len(block)
            with self._lock:
                self._received += len(block)
            late = time.monotonic() - started - _GRACE_SECONDS
            if late > received / MIN_BYTES_PER_SECOND:
                raise HubUnavailableError("the answer comes too slowly", where=where)
            yield block

    @staticmethod
    def _drain(response: Any) -> None:
        """Reads what little is left, so that the connection can be used again."""
        received = 0
        for block in response.iter_raw():
            received += len(block)
            if received > _UNREAD_BYTES:
                return


def _client_errors() -> tuple[type[Exception], ...]:
    """What the HTTP client under huggingface_hub raises: HfHubHTTPError derives from it."""
    from huggingface_hub.errors import HfHubHTTPError

    return tuple(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))


def _target(url: str, location: str, where: str) -> str:
    """The address a redirect points at, if it may be followed."""
    target = urljoin(url, location)
    scheme = urlsplit(target).scheme
    if not location or not re.fullmatch(r"https?", scheme):
        raise HubAnswerError("a redirect to nowhere", where=where)
    if scheme == "http" and not _may_be_plain(url, target):
        raise HubAnswerError("a redirect to plain http", where=where)
    return target


def _may_be_plain(url: str, target: str) -> bool:
    """Whether a redirect may lead to plain http: from plain http, and not out of this machine."""
    origin = urlsplit(url)
    if origin.scheme != "http":
        return False
    return is_loopback(urlsplit(target).hostname) or not is_loopback(origin.hostname)


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine, by its name alone: nothing is looked up."""
    if host == "localhost":
        return True
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
