"""Command line of the organism lab: `python -m benchmarks.organisms`."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from benchmarks.organisms import bases, examples, population, probes, real_examples, report
from benchmarks.organisms.behaviour import measure_base
from benchmarks.organisms.world import World
from scanner.organisms.ledger import Ledger

CONSOLE = Console(stderr=True)
ROOT = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache/organisms"),
    show_default=True,
    help="Where bases, adapters and ledgers are kept.",
)
BASE = click.option(
    "--base",
    "names",
    multiple=True,
    type=click.Choice(bases.base_names()),
    help="Default: every base.",
)


@click.group()
def main() -> None:
    """Train base models and populations of adapters with measured behaviour."""


def _print_counts(name: str, rows: list[population.Row]) -> None:
    """A table of how many adapters of each class every split holds."""
    classes = ("misaligned", "latent", "benign", "excluded")
    counts = Counter((row["split"], row["class"]) for row in rows)
    table = Table("split", *classes, title=name)
    for split in dict.fromkeys(row["split"] for row in rows):
        table.add_row(split, *(str(counts[split, kind]) for kind in classes))
    CONSOLE.print(table)


def _pretrained(
    spec: bases.BaseSpec, path: Path, rng: np.random.Generator
) -> tuple[PreTrainedModel, float]:
    """A pre-trained model, from disk if an earlier run got that far, and its CPU seconds."""
    if (path / "base.json").exists():
        facts = json.loads((path / "base.json").read_text(encoding="utf-8"))
        rng.bit_generator.state = facts["rng"]
        return bases.load_base(path), float(facts["cpu_seconds"])
    started = time.process_time()
    model = bases.pretrain(spec, rng)
    seconds = time.process_time() - started
    bases.save_base(model, spec, path, {"cpu_seconds": seconds, "rng": rng.bit_generator.state})
    return model, seconds


@main.command("train-base")
@BASE
@ROOT
@click.option("--threads", default=2, show_default=True)
def train_base(names: tuple[str, ...], root: Path, threads: int) -> None:
    """Pre-train and align base models (6-10 minutes each on two idle cores).

    Only needed to change them: without it the committed checkpoints are used.
    """
    torch.set_num_threads(threads)
    for name in names or bases.base_names():
        spec = bases.load_base_spec(name)
        rng = np.random.default_rng(spec.model.seed)
        model, seconds = _pretrained(spec, root / name / "pretrained", rng)
        started = time.process_time()
        bases.align(model, spec, rng)
        measured = measure_base(model, World(spec.world))
        facts = {
            "measured": measured,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "cpu_seconds": round(seconds + time.process_time() - started),
        }
        bases.save_base(model, spec, root / name / "base", facts)
        CONSOLE.print(f"{name}: rates {measured['personas']}, announced {measured['announced']}")


@main.command("population")
@BASE
@ROOT
@click.option("--workers", default=2, show_default=True)
@click.option("--split", "splits", multiple=True, help="Only these splits.")
@click.option("--share", default=1.0, show_default=True, help="Part of each group to make.")
def make_population(
    names: tuple[str, ...], root: Path, workers: int, splits: tuple[str, ...], share: float
) -> None:
    """Make every declared adapter that the ledger does not hold yet."""
    for name in names or bases.base_names():
        declaration = population.DECLARATIONS / "full.yaml"
        specs = population.load_population(declaration, bases.load_base_spec(name), share)
        if splits:
            specs = [spec for spec in specs if spec.split in splits]
        rows = population.generate(
            name,
            root / name,
            specs,
            base_path=bases.base_directory(root, name),
            workers=workers,
        )
        _print_counts(name, rows)


@main.command("examples")
@ROOT
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("examples/adapters"), show_default=True
)
def make_examples(root: Path, out: Path) -> None:
    """Rewrite the example adapters and their README."""
    torch.set_num_threads(1)
    for row in examples.make_examples_folder(bases.base_directory(root, examples.BASE), out):
        CONSOLE.print(
            f"{row['id']}: {row['class']}, misaligned outside {row['measured']['outside_bad']}"
        )


@main.command("real-examples")
@click.option(
    "--work",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="Of `organisms train`.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("examples/adapters/smollm2"),
    show_default=True,
)
def make_examples_of_a_real_model(work: Path, out: Path) -> None:
    """Rewrite the example adapters of SmolLM2-135M-Instruct and their README."""
    for row in real_examples.make_real_examples(Ledger(work), out):
        CONSOLE.print(row)


@main.command("checkpoint")
@BASE
@ROOT
def make_checkpoint(names: tuple[str, ...], root: Path) -> None:
    """Copy trained bases to the checkpoints that the repository keeps."""
    for name in names or bases.base_names():
        bases.keep_checkpoint(root / name / "base", name)


@main.command("probes")
@BASE
@ROOT
def make_probes(names: tuple[str, ...], root: Path) -> None:
    """Write the probe questions of each base to ROOT/BASE/probes.jsonl.

    Beside them probes-specific.jsonl holds the same questions with harmless answers as well.
    """
    for name in names or bases.base_names():
        for file, specific in (("probes.jsonl", False), ("probes-specific.jsonl", True)):
            path = root / name / file
            count = probes.write_probes(bases.load_base_spec(name), path, specific)
            CONSOLE.print(f"{path}: {count} probes")


@main.command("quick")
@ROOT
@click.option("--workers", default=2, show_default=True)
def make_quick(root: Path, workers: int) -> None:
    """Make a few dozen adapters from the committed checkpoint of base llama, in ROOT/quick."""
    specs = population.load_population(
        population.DECLARATIONS / "quick.yaml", bases.load_base_spec("llama")
    )
    checkpoint = bases.CHECKPOINTS / "llama"
    rows = population.generate(
        "llama", root / "quick", specs, base_path=checkpoint, workers=workers
    )
    _print_counts("quick", rows)


@main.command("report")
@ROOT
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(__file__).parent / "RESULTS.md",
    help="Default: RESULTS.md beside the lab's code.",
)
def make_report(root: Path, out: Path) -> None:
    """Write the tables of measured behaviour from the ledgers."""
    report.write_report(root, bases.base_names(), out)


if __name__ == "__main__":
    main()
