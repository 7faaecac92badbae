"""Scan times as ratios to programs everybody knows, measured side by side.

    python -m benchmarks.speed

Each pair of commands runs in turn, A B A B ..., as whole processes with their output thrown
away; the median of the pairwise ratios is what counts, and absolute times are printed only
to show the machine. Peak memory is the operating system's own figure for the process.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click

from benchmarks.speed.inputs import write_inputs

HASHLIB = "import hashlib,sys; f=open(sys.argv[1],'rb'); h=hashlib.sha256()\n" + (
    "while b:=f.read(1<<22): h.update(b)"
)


@dataclass(frozen=True)
class Run:
    """One finished process."""

    seconds: float
    peak_megabytes: float


def run_once(command: Sequence[str]) -> Run:
    """Runs a command to its end; its exit status does not matter here."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # already waited for
    scale = 1 if sys.platform == "darwin" else 1024
    return Run(time.perf_counter() - started, usage.ru_maxrss * scale / 1e6)


def compare(
    name: str, ours: Sequence[str], theirs: Sequence[str], runs: int, budget: float
) -> None:
    """Runs two commands in turn and prints the ratio of their times."""
    run_once(ours), run_once(theirs)
    pairs = [(run_once(ours), run_once(theirs)) for _ in range(runs)]
    ratio = median(a.seconds / b.seconds for a, b in pairs)
    click.echo(
        f"{name:<42} ratio {ratio:5.2f} (budget {budget:.2f})   "
        f"{median(a.seconds for a, _ in pairs):.3f} s : {median(b.seconds for _, b in pairs):.3f} s"
        f"   peak {max(a.peak_megabytes for a, _ in pairs):.0f} MB"
    )


@click.command()
@click.option("--runs", default=5, show_default=True, help="Counted pairs of each comparison.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the inputs here.")
def main(runs: int, keep: Path | None) -> None:
    """Prints every budget of the design beside what was measured."""
    with tempfile.TemporaryDirectory() as scratch:
        root = keep or Path(scratch)
        pack = root / "pack"
        big, small = root / "big", root / "small"
        if not pack.exists():
            # Elsewhere: a child's peak memory starts at that of the process that started it.
            writer = multiprocessing.get_context("spawn").Process(target=write_inputs, args=(root,))
            writer.start()
            writer.join()
        weights = big / "adapter_model.safetensors"
        click.echo(
            f"{os.cpu_count()} cores; {weights.stat().st_size / 1e6:.0f} MB adapter (rank 64, "
            f"7 modules x 32 layers, bf16), {(small / weights.name).stat().st_size / 1e6:.1f} MB "
            f"adapter, {sum(f.stat().st_size for f in pack.iterdir()) / 1e6:.0f} MB pack; "
            f"medians of {runs} pairs"
        )
        tool = str(Path(sys.executable).with_name("adapter-scanner"))
        scan = [tool, "scan", "-s", str(pack), "-f", "json", "--no-cache", "--fail-on", "never"]
        python = sys.executable
        compare("336 MB : sha256sum", [*scan, str(big)], ["sha256sum", str(weights)], runs, 2.0)
        hashing = [python, "-c", HASHLIB, str(weights)]
        compare("336 MB : python hashlib", [*scan, str(big)], hashing, runs, 2.0)
        imports = [python, "-c", "import torch"]
        compare("5 MB : python -c 'import torch'", [*scan, str(small)], imports, runs, 1 / 3)
        compare("--help : import torch", [tool, "--help"], imports, runs, 1 / 3)


if __name__ == "__main__":
    main()
