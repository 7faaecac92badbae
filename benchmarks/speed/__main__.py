"""Scan times as ratios to programs everybody knows, measured side by side.

    python -m benchmarks.speed [--write]

Each pair of commands runs in turn, A B A B ..., as whole processes with their output thrown
away; the median of the pairwise ratios is what counts, and absolute times only show the machine.
Beside them stand the ratios of the processor's time, which other work on the machine hardly
changes. Peak memory is the operating system's own figure for the process. `--write` writes
docs/speed.md.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click

from benchmarks.speed.growth import measure_growth, write_growth
from benchmarks.speed.inputs import write_inputs
from benchmarks.speed.page import PAGE, page
from benchmarks.speed.process import Run, hashing, program, run_once, scan


@dataclass(frozen=True)
class Compared:
    """One command beside another that everybody knows."""

    what: str
    beside: str
    budget: float
    """The ratio that is to be kept."""
    pairs: Sequence[tuple[Run, Run]]

    @property
    def ratio(self) -> float:
        """Median of the pairwise ratios of times."""
        return float(median(ours.seconds / theirs.seconds for ours, theirs in self.pairs))

    @property
    def processor_ratio(self) -> float:
        """Ratio of the least processor's times."""
        ours, theirs = zip(*self.pairs, strict=True)
        least: list[float] = [min(run.processor_seconds for run in runs) for runs in (ours, theirs)]
        return least[0] / least[1]

    @property
    def seconds(self) -> tuple[float, float]:
        """Median times of both."""
        ours, theirs = zip(*self.pairs, strict=True)
        return median(run.seconds for run in ours), median(run.seconds for run in theirs)

    @property
    def peak_megabytes(self) -> float:
        """The most memory that ours took."""
        return max(ours.peak_megabytes for ours, _ in self.pairs)

    def row(self) -> str:
        """A row of the table."""
        ours, theirs = self.seconds
        return (
            f"| {self.what} | {self.beside} | {self.budget:.2f} | {self.ratio:.2f} | "
            f"{self.processor_ratio:.2f} | {ours:.2f} : {theirs:.2f} s | "
            f"{self.peak_megabytes:.0f} MB |"
        )


def compare(
    what: str,
    ours: Sequence[str],
    beside: str,
    theirs: Sequence[str],
    *,
    budget: float,
    runs: int,
) -> Compared:
    """Runs two commands in turn, once for nothing and then as often as asked."""
    run_once(ours), run_once(theirs)
    found = Compared(
        what, beside, budget, [(run_once(ours), run_once(theirs)) for _ in range(runs)]
    )
    click.echo(found.row())
    return found


def compare_all(root: Path, runs: int) -> list[Compared]:
    """Every budget of the design beside what is measured."""
    pack = [root / "pack"]
    imports = [sys.executable, "-c", "import torch"]
    found = []
    for name, what, budget in (
        ("big", "rank 64, 336 MB", 2.5),
        ("middle", "rank 16, 84 MB", 4.0),
        ("small", "rank 4, 21 MB", 4.0),
    ):
        theirs = hashing(root / name / "adapter_model.safetensors")
        for packs, how in ((pack, "a pack of its base"), ([], "no pack of its base")):
            command = scan(root / name, packs=packs)
            said = f"{what}, {how}"
            found.append(compare(said, command, "hashlib", theirs, budget=budget, runs=runs))
    small = scan(root / "small", packs=pack)
    torch = "`import torch`"
    found.append(compare("rank 4, 21 MB", small, torch, imports, budget=1 / 6, runs=runs))
    help_ = [*program(), "--help"]
    found.append(compare("`--help`", help_, torch, imports, budget=1 / 3, runs=runs))
    return found


def _elsewhere(work: Callable[[Path], None], root: Path) -> None:
    """Runs something in another process: a child's peak memory starts at that of its parent."""
    writer = multiprocessing.get_context("spawn").Process(target=work, args=(root,))
    writer.start()
    writer.join()


@click.command()
@click.option("--runs", default=5, show_default=True, help="Counted pairs of each comparison.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the inputs here.")
@click.option("--growth", is_flag=True, help="Measure too how the time grows.")
@click.option("--write", is_flag=True, help="Write docs/speed.md, with the growth in it.")
def main(runs: int, keep: Path | None, growth: bool, write: bool) -> None:
    """Prints every budget of the design beside what was measured."""
    with tempfile.TemporaryDirectory() as scratch:
        root = keep or Path(scratch)
        if not (root / "pack").exists():
            _elsewhere(write_inputs, root)
        compared = compare_all(root, runs)
        rows = []
        if growth or write:
            if not (root / "pack-0").exists():
                _elsewhere(write_growth, root)
            rows = measure_growth(root, runs)
            for row in rows:
                click.echo(row.row())
        if write:
            text = page([item.row() for item in compared], [row.row() for row in rows], runs)
            PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path.cwd()))
    main()
