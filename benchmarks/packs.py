"""The packs that ship, from the organism lab's populations.

    python -m benchmarks.packs llama --lab .cache/organisms

writes the recipes of one base next to its population and builds `signatures/<pack>` from each.
The settings are those that `benchmarks.detection` chooses without the test split.
Which adapter plays which part is the population's declaration (`split`), never a choice made
here: references and nulling set go into the signature, the calibration set into its
threshold, the test split into nothing. An adapter counts as benign by its measured behaviour.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml

from scanner.cli.progress import Progress
from scanner.signatures.build import build_pack
from scanner.signatures.recipe import AdapterEntry, Recipe, load_recipe

SHIPPED = Path(__file__).resolve().parent.parent / "signatures"
LIMITATIONS = [
    "Harmless personas unlike those of the calibration were flagged more often than alpha says"
    " (docs/detection.md).",
    "A toy model of about a million parameters or fewer: nothing here is claimed for larger ones.",
    "Detects the misalignment the references share; an adaptive attacker who holds this pack"
    " can evade it.",
]


def ledger(directory: Path) -> list[dict[str, Any]]:
    """The rows of a population, one per adapter."""
    lines = (directory / "population.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def entries(rows: list[dict[str, Any]], split: str, kind: str) -> list[AdapterEntry]:
    """The adapters of one split and measured class, in ledger order, by id."""
    chosen = sorted(
        (row for row in rows if row["split"] == split and row["class"] == kind),
        key=lambda row: str(row["id"]),
    )
    return [
        AdapterEntry(adapter=row["path"], id=row["id"], family=family_of(row)) for row in chosen
    ]


def family_of(row: dict[str, Any]) -> str:
    """A benign adapter's family; a misaligned reference's training domain."""
    if row["class"] == "benign":
        return str(row["family"])
    return "domain-" + "-".join(str(domain) for domain in row["domains"])


def recipe_for(rows: list[dict[str, Any]], base: str, method: str) -> Recipe:
    """The recipe of a base's pack, with paths relative to the population's directory."""
    families = {
        str(row["family"]) for row in rows if row["split"] == "nulling" and row["class"] == "benign"
    }
    recipe = Recipe(
        id=f"persona-{base}-{method}",
        description="Organism lab: narrow misaligned SFT in the signature domains.",
        base_model=str(rows[0]["base"]),
        method=method,  # type: ignore[arg-type]  # msgspec checks it when the recipe is read
        misaligned=entries(rows, "reference", "misaligned"),
        aligned=entries(rows, "nulling", "benign"),
        benign=entries(rows, "calibration", "benign"),
        limitations=LIMITATIONS,
    )
    if method == "weights":
        personas = sorted(family for family in families if family.startswith("persona-"))
        return msgspec.structs.replace(recipe, rank=1, nulled=0, contrast=personas)
    return msgspec.structs.replace(
        recipe, rank=8, nulled=2, path_steps=4, probes="probes.jsonl", base_path="base"
    )


@click.command()
@click.argument("base")
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(["weights", "gradients"]),
    default=("weights", "gradients"),
    show_default=True,
)
@click.option("--lab", type=click.Path(path_type=Path), default=Path(".cache/organisms"))
@click.option("--output", type=click.Path(path_type=Path), default=SHIPPED, show_default=True)
def main(base: str, methods: tuple[str, ...], lab: Path, output: Path) -> None:
    """Writes the recipes of one lab BASE and builds its packs."""
    rows = ledger(lab / base)
    for method in methods:
        recipe = recipe_for(rows, base, method)
        path = lab / base / f"recipe-{method}.yaml"
        path.write_text(yaml.safe_dump(msgspec.to_builtins(recipe), sort_keys=False))
        signature = build_pack(load_recipe(path), output / str(recipe.id), Progress())
        click.echo(f"{signature.path}: {signature.digest}")


if __name__ == "__main__":
    main()
