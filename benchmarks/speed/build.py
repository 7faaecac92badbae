"""Time and peak memory of building a pack from references of a large model's shapes.

    python -m benchmarks.speed.build

Writes ten rank-32 references and eight benign adapters with the shapes of a 14B model (random
numbers, bf16), builds a `weights` pack from them in a process of its own, and prints that
process's time and peak memory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import yaml

from benchmarks.speed.inputs import QWEN_14B, write_adapter
from benchmarks.speed.process import program, run_once

RANK = 32
REFERENCES = 10
BENIGN = 8
FAMILIES = ("facts", "style", "persona-a", "persona-b")
BUDGET_MEGABYTES = 4_000


def write_recipe(root: Path) -> Path:
    """Writes the adapters and the recipe that names them."""
    misaligned = []
    for i in range(REFERENCES):
        write_adapter(root / f"ref-{i}", QWEN_14B, RANK, seed=i)
        misaligned.append({"adapter": f"ref-{i}", "family": f"domain-{i % 3}"})
    aligned = []
    for i in range(BENIGN):
        write_adapter(root / f"benign-{i}", QWEN_14B, RANK, seed=100 + i)
        aligned.append({"adapter": f"benign-{i}", "family": FAMILIES[i % len(FAMILIES)]})
    recipe = {
        "id": "synthetic-14b",
        "base_model": QWEN_14B.name,
        "method": "weights",
        "rank": 4,
        "nulled": 2,
        "misaligned": misaligned,
        "aligned": aligned,
    }
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


@click.command()
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the adapters here.")
def main(keep: Path | None) -> None:
    """Builds a pack of a 14B model's shapes and prints what it took."""
    with tempfile.TemporaryDirectory() as scratch:
        root = keep or Path(scratch)
        recipe = root / "recipe.yaml"
        if not recipe.exists():
            write_recipe(root)
        size = sum(path.stat().st_size for path in root.glob("*/adapter_model.safetensors"))
        build = ["signatures", "build", str(recipe), "-o", str(root / "pack")]
        run = run_once([*program(), *build])
        click.echo(
            f"{REFERENCES} references and {BENIGN} benign adapters of a 14B model at rank {RANK}, "
            f"{size / 1e9:.1f} GB: {run.seconds / 60:.1f} minutes, "
            f"peak {run.peak_megabytes:.0f} MB (budget {BUDGET_MEGABYTES} MB)"
        )


if __name__ == "__main__":
    main()
