"""What goes wrong on purpose on the test hub."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal

Kind = Literal[
    "status",  # answers `status`, with Retry-After if given
    "slow",  # waits `seconds` before answering
    "drip",  # sends the body in pieces, `seconds` apart
    "cut",  # closes the connection after `after` bytes of the body
    "short",  # a whole, well-formed answer that lacks the last `after` bytes
    "wrong-range",  # a 206 whose Content-Range is another one
    "no-range",  # ignores the Range header: 200 and the whole file
    "other-etag",  # a file changed under the same address
    "corrupt",  # one bit of the body is flipped
    "redirect-loop",  # redirects to itself for ever
    "endless",  # a body that does not end
    "header-bomb",  # thousands of header lines
    "not-json",  # an HTML page where JSON was expected
]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, for the requests it matches."""

    kind: Kind
    match: str = ""
    """Regular expression searched in ``"<METHOD> <path>?<query>"``, on the hub and its storage."""
    first: int | None = None
    """Only the first so many matching requests; all if None."""
    every: int = 1
    """Only every so many-th matching request."""
    skip: int = 0
    """Not the first so many matching requests."""
    status: int = 500
    retry_after: int | None = None
    seconds: float = 0.0
    after: int = 0


class Faults:
    """Decides, by counting, which fault a request meets."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = list(faults)
        self._seen = [0] * len(faults)
        self._lock = Lock()
        self.met: Counter[str] = Counter()
        """Requests that met one, by kind; by the status if it is one."""

    def add(self, fault: Fault) -> None:
        """Declares one more, from now on."""
        with self._lock:
            self._faults.append(fault)
            self._seen.append(0)

    def clear(self) -> None:
        """From now on nothing goes wrong."""
        with self._lock:
            self._faults, self._seen = [], []

    def for_request(self, line: str) -> Fault | None:
        """The fault of one request; the first declared that applies."""
        found = None
        with self._lock:
            for index, fault in enumerate(self._faults):
                if not re.search(fault.match, line):
                    continue
                self._seen[index] += 1
                number = self._seen[index] - fault.skip
                if number < 1 or (fault.first is not None and number > fault.first):
                    continue
                if found is None and number % fault.every == 0:
                    found = fault
            if found is not None:
                self.met[str(found.status) if found.kind == "status" else found.kind] += 1
        return found
