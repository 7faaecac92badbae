"""A local HTTP server that speaks the hub's API as huggingface_hub uses it.

    with HubServer([Repository("lab/one", {"adapter_config.json": b"{}"})]) as hub:
        HfApi(endpoint=hub.endpoint).model_info("lab/one")

Two servers in one: the hub, and the storage that it redirects LFS files to, which is another
origin as in production and refuses requests that carry the hub's token. Both bind to
127.0.0.1 only. What is declared (`Repository`, `Fault`) is all there is; every request is
counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from http.server import ThreadingHTTPServer
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any

from tests.hub.answers import Answer
from tests.hub.api import HubApi
from tests.hub.faults import Fault, Faults
from tests.hub.handler import Handler
from tests.hub.repository import Content, Files, Repository, StoredFile

__all__ = ["Answer", "Content", "Fault", "Files", "HubServer", "Repository", "StoredFile"]


class _Listener(ThreadingHTTPServer):
    """One of the two origins."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, hub: HubServer, is_storage: bool) -> None:
        self.hub = hub
        self.is_storage = is_storage
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not worth a traceback."""


class HubServer:
    """A hub with the given repositories.

    Args:
        repositories: What it holds at the start; `add` and `remove` change it later.
        tokens: Token -> ids of private and gated repositories it may read.
        faults: What goes wrong.
        page_size: Most entries of one page of a listing.
    """

    def __init__(
        self,
        repositories: Iterable[Repository] = (),
        *,
        tokens: Mapping[str, Collection[str]] | None = None,
        faults: Sequence[Fault] = (),
        page_size: int = 1000,
    ) -> None:
        self.faults = Faults(faults)
        self.stopping = Event()
        self._lock = Lock()
        self.requests: Counter[str] = Counter()
        """Requests by kind: list, info, tree, paths-info, resolve, cache, storage, other."""
        self.bytes: Counter[str] = Counter()
        """Bytes of answers' bodies by kind."""
        self.log: list[str] = []
        """``"<METHOD> <path>?<query> <Range>"`` of every request, in order."""
        self._listeners = (_Listener(self, False), _Listener(self, True))
        self._threads: list[Thread] = []
        self.api = HubApi(repositories, tokens or {}, page_size, self.endpoint, self.storage)

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._listeners[0].server_address[1]}"

    @property
    def storage(self) -> str:
        """The origin of the LFS storage."""
        return f"http://127.0.0.1:{self._listeners[1].server_address[1]}"

    def add(self, *repositories: Repository) -> None:
        """Adds repositories, or new states of them, to the running hub."""
        self.api.add(repositories)

    def remove(self, name: str) -> None:
        """Removes a repository from the running hub."""
        self.api.remove(name)

    def record(self, kind: str, line: str) -> None:
        """Counts a request."""
        with self._lock:
            self.requests[kind] += 1
            self.log.append(line)

    def record_bytes(self, kind: str, count: int) -> None:
        """Counts what was sent."""
        with self._lock:
            self.bytes[kind] += count

    def forget(self) -> None:
        """Starts counting anew."""
        with self._lock:
            self.requests.clear()
            self.bytes.clear()
            self.log.clear()

    def start(self) -> HubServer:
        """Starts both servers; as a context manager it also stops them."""
        for listener in self._listeners:
            thread = Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def stop(self) -> None:
        """Stops both servers."""
        self.stopping.set()
        for listener in self._listeners:
            if self._threads:
                listener.shutdown()
            listener.server_close()
        for thread in self._threads:
            thread.join(timeout=10)
        self._threads = []

    def __enter__(self) -> HubServer:
        return self if self._threads else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
