"""A plain web server of a directory, on this machine, for packs that lie anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


class _Handler(SimpleHTTPRequestHandler):
    """Files of a directory; `/away/...` leads elsewhere, `/cut/...` breaks off."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Nothing."""

    def do_GET(self) -> None:
        """As the base, but for the two."""
        self.server.seen.append(dict(self.headers))  # type: ignore[attr-defined]
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", "http://192.0.2.1/pack")  # a documentation address
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path.startswith("/cut/"):
            self.path = self.path.removeprefix("/cut")
            self._cut()
            return
        super().do_GET()

    def _cut(self) -> None:
        """Half of what is asked for at a time."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=")[:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[start : start + (len(data) - start) // 2 + 1])
        self.close_connection = True


@contextmanager
def serve_directory(root: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Serves a directory; gives its address, and the headers of requests as they come."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(root)))
    seen: list[dict[str, str]] = []
    server.seen = seen  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
