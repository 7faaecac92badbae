"""The scanner's pass: a signed header that lets it read what is blocked until it is judged.

MLflow loads `PassHeader` through the entry point ``mlflow.request_header_provider`` and asks it
for headers with every request. Downloads run in threads of MLflow's own, so the pass is the
process's and not a context's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from scanner.gates.attestation import Pass, now, sign
from scanner.gates.keys import SigningKey

HEADER = "X-Adapter-Scanner-Pass"
LIFETIME = timedelta(minutes=15)
"""How long a pass lets its bearer read; renewed with every judgement."""

_shown: list[str] = []


def signed_pass(key: SigningKey) -> str:
    """A pass that is valid from now for `LIFETIME`."""
    return sign(Pass(expires=now() + LIFETIME), key)


@contextmanager
def showing_pass(token: str) -> Iterator[None]:
    """Shows a signed pass with every MLflow request of this process inside the block."""
    _shown.append(token)
    try:
        yield
    finally:
        _shown.remove(token)


class PassHeader:
    """What MLflow calls a request header provider."""

    def in_context(self) -> bool:
        """Whether there is a pass to show."""
        return bool(_shown)

    def request_headers(self) -> dict[str, str]:
        """The request header with the newest pass."""
        return {HEADER: _shown[-1]}
