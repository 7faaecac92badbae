"""HTTP of the test hub: sends answers, and lets them go wrong as declared."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from tests.hub.answers import Answer
from tests.hub.api import Request, kind_of
from tests.hub.faults import Fault
from tests.hub.repository import read_range

if TYPE_CHECKING:
    from tests.hub.server import HubServer

_BLOCK_BYTES = 2**18
_ENDLESS_BYTES = 2**30
"""Where an endless body ends after all: a test must not fill the machine's memory."""
_DRIP_BYTES = 64


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Nothing: the hub keeps its own log."""

    @property
    def _hub(self) -> HubServer:
        hub: HubServer = self.server.hub  # type: ignore[attr-defined]
        return hub

    def do_GET(self) -> None:
        """Any request; what differs is in the API."""
        if self._hub.stopping.is_set():  # a connection kept open does not outlive the server
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        is_storage: bool = self.server.is_storage  # type: ignore[attr-defined]
        self._kind = kind_of(self.path, is_storage)
        line = f"{self.command} {self.path}"
        wanted = self.headers.get("Range")
        self._hub.record(self._kind, f"{line} {wanted}" if wanted else line)
        length = int(self.headers.get("Content-Length") or 0)
        request = Request(
            self.command,
            self.path,
            (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None,
            self.rfile.read(length),
            self.headers.get("Content-Type") or "",
        )
        fault = self._hub.faults.for_request(line)
        api = self._hub.api
        answer = api.stored(request) if is_storage else api.answer(request)
        if fault is None or fault.kind != "no-range":
            answer = answer.for_range(wanted)
        self._send(answer, fault)

    do_HEAD = do_GET  # noqa: N815 - the base's names
    do_POST = do_GET  # noqa: N815

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        kind = fault.kind if fault else None
        if fault and kind == "slow":
            self._hub.stopping.wait(fault.seconds)
        if fault:
            answer = _spoiled(answer, fault, self.path)
        answer = self._compressed(answer)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if kind == "header-bomb":
            for number in range(5000):
                self.send_header(f"X-Bomb-{number}", "x" * 100)
        if kind == "endless":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(answer, fault)

    def _compressed(self, answer: Answer) -> Answer:
        """As the hub does with small text files, for clients that take it."""
        accepts = "gzip" in (self.headers.get("Accept-Encoding") or "")
        if self._kind != "cache" or answer.status != 200 or not accepts:
            return answer
        body = gzip.compress(read_range(answer.content, 0, answer.length))
        return replace(answer, content=body, headers={**answer.headers, "Content-Encoding": "gzip"})

    def _send_body(self, answer: Answer, fault: Fault | None) -> None:
        left = fault.after if fault and fault.kind == "cut" else answer.length
        for block in self._blocks(answer, fault):
            part = block[:left] if fault and fault.kind == "cut" else block
            self._hub.record_bytes(self._kind, len(part))
            self.wfile.write(part)
            left -= len(part)
            if fault and fault.kind == "cut" and left <= 0:
                break
        if fault and fault.kind in ("cut", "endless"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _blocks(self, answer: Answer, fault: Fault | None) -> Iterator[bytes]:
        kind = fault.kind if fault else None
        if kind == "endless":
            for _ in range(_ENDLESS_BYTES // _BLOCK_BYTES):
                yield b"\0" * _BLOCK_BYTES
            return
        size = _DRIP_BYTES if kind == "drip" else _BLOCK_BYTES
        for done in range(0, answer.length, size):
            block = answer.block(done, size)
            if kind == "corrupt" and done == 0:
                middle = len(block) // 2
                block = block[:middle] + bytes([block[middle] ^ 1]) + block[middle + 1 :]
            if fault and kind == "drip" and self._hub.stopping.wait(fault.seconds):
                return
            yield block


def _spoiled(answer: Answer, fault: Fault, path: str) -> Answer:
    """An answer with what is wrong with it as a whole."""
    headers = dict(answer.headers)
    if fault.kind == "status":
        if fault.retry_after is not None:
            headers["Retry-After"] = str(fault.retry_after)
        return Answer(fault.status, b"{}", _without_file(headers))
    if fault.kind == "redirect-loop":
        return Answer(302, b"", {**_without_file(headers), "Location": path})
    if fault.kind == "not-json":
        return Answer(200, b"<html>sign in to the network</html>", {"Content-Type": "text/html"})
    if fault.kind == "wrong-range" and answer.status == 206:
        begin, end = answer.start + 8, answer.start + 8 + answer.length - 1
        total = headers["Content-Range"].rpartition("/")[2]
        headers["Content-Range"] = f"bytes {begin}-{end}/{total}"
    if fault.kind == "other-etag" and "ETag" in headers:
        headers["ETag"] = f'"{"0" * 64}"'
    if fault.kind == "short":
        return replace(answer, headers=headers, count=max(0, answer.length - fault.after))
    return replace(answer, headers=headers)


def _without_file(headers: dict[str, str]) -> dict[str, str]:
    """Headers without those that describe the file that is not sent."""
    dropped = ("Location", "ETag", "Content-Range", "X-Linked-Size", "X-Linked-ETag")
    return {name: value for name, value in headers.items() if name not in dropped}
