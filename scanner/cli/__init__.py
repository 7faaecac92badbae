"""The command line. Parsing and wiring only; one module per command group."""

from __future__ import annotations

import gc
import os


def main() -> None:
    """Entry point of the `adapter-scanner` command."""
    # The scan runs sites in threads of its own; BLAS threads on top of them only get in the
    # way. Has to be set before numpy is imported.
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    # A header of 50,000 tensors is as many small objects and no garbage; by Python's own
    # threshold of 700 a third of a scan is the search for some.
    gc.set_threshold(500_000, 20, 100)
    from scanner.cli.root import cli

    cli(prog_name="adapter-scanner")
