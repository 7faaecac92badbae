"""What the test hub answers, before anything goes wrong with it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from tests.hub.repository import Content, read_range, size_of

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Answer:
    """One answer: a status, headers, and a part of some content as the body."""

    status: int
    content: Content = b""
    headers: dict[str, str] = field(default_factory=dict)
    start: int = 0
    count: int = -1
    """Bytes of the content to send; all if negative."""
    ranged: bool = False
    """Whether a Range header applies."""

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return size_of(self.content) if self.count < 0 else self.count

    def block(self, done: int, size: int) -> bytes:
        """A block of the body."""
        return read_range(self.content, self.start + done, min(size, self.length - done))

    def for_range(self, wanted: str | None) -> Answer:
        """The part of it that a Range header asks for."""
        match = _RANGE.fullmatch(wanted or "")
        if not self.ranged or match is None or self.status != 200:
            return self
        total = size_of(self.content)
        first, last = match.groups()
        if not first and not last:
            return self
        start = int(first) if first else max(0, total - int(last))
        end = min(int(last), total - 1) if first and last else total - 1
        if start >= total or end < start:
            return Answer(416, headers={"Content-Range": f"bytes */{total}"})
        headers = {**self.headers, "Content-Range": f"bytes {start}-{end}/{total}"}
        return replace(self, status=206, start=start, count=end - start + 1, headers=headers)


def as_json(value: Any, **headers: str) -> Answer:
    """A JSON answer."""
    body = json.dumps(value).encode()
    return Answer(200, body, {"Content-Type": "application/json; charset=utf-8", **headers})


def failed(status: int, message: str, code: str | None = None) -> Answer:
    """An error as the hub words it."""
    headers = {"Content-Type": "application/json; charset=utf-8", "X-Error-Message": message}
    if code:
        headers["X-Error-Code"] = code
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="Authentication required"'
    return Answer(status, json.dumps({"error": message}).encode(), headers)
