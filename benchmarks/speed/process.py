"""Whole processes, timed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HASHLIB = "import hashlib,sys; f=open(sys.argv[1],'rb'); h=hashlib.sha256()\n" + (
    "while b:=f.read(1<<22): h.update(b)"
)


@dataclass(frozen=True)
class Run:
    """One finished process."""

    seconds: float
    processor_seconds: float
    peak_megabytes: float


def run_once(command: Sequence[str]) -> Run:
    """Runs a command to its end; its exit status does not matter here.

    It finds the bytecode of what it imports, as every installed program does, and its own number of
    threads.
    """
    left_out = ("PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # already waited for
    scale = 1 if sys.platform == "darwin" else 1024
    return Run(
        time.perf_counter() - started,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * scale / 1e6,
    )


def program() -> list[str]:
    """This interpreter's `adapter-scanner`, of the working tree that is imported here."""
    return [sys.executable, "-c", "from scanner.cli import main; main()"]


def scan(*targets: Path, packs: Sequence[Path] = ()) -> list[str]:
    """The command that scans adapters afresh, by some packs or by those that are installed."""
    named = [argument for pack in packs for argument in ("-s", str(pack))]
    fixed = ["scan", "-f", "json", "--no-cache", "--isolated", "--fail-on", "never"]
    return [*program(), *fixed, *named, *map(str, targets)]


def hashing(weights: Path) -> list[str]:
    """Python's own hashlib on one file."""
    return [sys.executable, "-c", HASHLIB, str(weights)]
