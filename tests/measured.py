"""Runs the command in a process of its own, with its time and its peak memory measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRATCH = ("measured.json", "stdout.txt", "stderr.txt")
"""Files a run leaves in its scratch directory."""
MAX_BYTES = 300 * 2**20
"""Peak memory that any input may cost, without torch."""
PROCESSOR_SECONDS = 30
"""The kernel ends a run that takes more, whatever the machine; an input costs at most 2."""
PATIENCE_SECONDS = 120
"""A run that waits this long, on no processor, waits for ever."""

_WITHOUT_TORCH = Path(__file__).with_name("without_torch")
_LAUNCHER = """
import json, os, resource, signal, sys, time
report, out, err, limit, patience, *command = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit)))
mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
started = time.perf_counter()
pid = os.posix_spawn(command[0], command, os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, out, mode, 0o600), (os.POSIX_SPAWN_OPEN, 2, err, mode, 0o600)])
signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
signal.alarm(int(patience))
_, status, usage = os.wait4(pid, 0)
with open(report, "w") as file:
    json.dump({"status": os.waitstatus_to_exitcode(status),
               "seconds": time.perf_counter() - started,
               "processor_seconds": usage.ru_utime + usage.ru_stime,
               "peak_bytes": usage.ru_maxrss * 1024}, file)
"""
"""A small process between: a child's peak memory starts at its parent's."""


@dataclass(frozen=True)
class Outcome:
    """What a run of the scanner did."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    processor_seconds: float
    peak_bytes: int


def run(
    arguments: Sequence[str], scratch: Path, *, cwd: Path | None = None, torch: bool = True
) -> Outcome:
    """Runs ``python -m scanner`` with these arguments, measured by the kernel.

    Args:
        arguments: The command's.
        scratch: Directory for the `SCRATCH` files.
        cwd: Where it runs; where the tests run if not given.
        torch: Whether torch can be imported there.
    """
    report, out, err = (scratch / name for name in SCRATCH)
    limits = [str(PROCESSOR_SECONDS), str(PATIENCE_SECONDS)]
    command = [sys.executable, "-m", "scanner", *arguments]
    path = [*([] if torch else [str(_WITHOUT_TORCH)]), *(place for place in sys.path if place)]
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(report), str(out), str(err)]
    subprocess.run(
        [*launcher, *limits, *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        cwd=cwd,
        check=True,
    )
    return Outcome(
        stdout=out.read_text("utf-8", "replace"),
        stderr=err.read_text("utf-8", "replace"),
        **json.loads(report.read_text()),
    )
