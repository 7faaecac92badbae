"""How this program uses the processor: its cores, its threads, and Python's garbage collector."""

from __future__ import annotations

import gc
import os


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # neither on macOS nor on Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def settle() -> None:
    """Sets a process up for scanning. Has to be called before numpy is imported.

    A scan runs sites in threads of its own; BLAS threads on top of them only get in the way. A
    header of 50,000 tensors is as many small objects and no garbage; by Python's own threshold of
    700 a third of a scan is the search for some.
    """
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    gc.set_threshold(500_000, 20, 100)
