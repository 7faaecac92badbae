"""The command, in a process that is killed at a chosen transaction of its ledger.

    python -m tests.sweep.killed NUMBER before|after ARGUMENT...

SIGKILL comes from the process itself, so that the moment is exact: just before the NUMBERth
transaction is committed, or just after.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

from scanner.cli import main
from scanner.sweep.ledger import Ledger

_batch = Ledger.batch
_number, _when = int(sys.argv[1]), sys.argv[2]
_count = 0


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def _deadly(self: Ledger) -> Iterator[None]:
    global _count
    _count += 1
    with _batch(self):
        yield
        if _count == _number and _when == "before":
            _die()
    if _count == _number:
        _die()


if __name__ == "__main__":
    Ledger.batch = _deadly  # type: ignore[method-assign]
    sys.argv = ["adapter-scanner", *sys.argv[3:]]
    main()
