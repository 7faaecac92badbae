"""The packs that ship, from the organism lab's populations.

    python -m benchmarks.packs llama --lab .cache/organisms

writes the recipes of one base next to its population, builds a pack from each there, and copies
those of the kinds that ship (`benchmarks.kinds`) to `signatures/<pack>`; with `--rescore` it leaves
the directions as they are and scores the calibration again. What ships lacks the directions that
leave families out: nothing but calibrating needs them, and they are several times the rest; and all
but one of a base's packs lack the sketches of its references, which are the same for all.
The settings are those that `benchmarks.detection` chooses without the test split.
Which adapter plays which part is the population's declaration (`split`), never a choice made
here: references and nulling set go into the signature, the calibration set into its
threshold, the test split into nothing. An adapter counts as benign by its measured behaviour.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml

from benchmarks.detection.data import find_populations
from benchmarks.detection.extractors import (
    BASE,
    CANDIDATE_KINDS,
    KINDS,
    METHODS,
    SHIPPED_KINDS,
    contrast,
    probes_of,
)
from benchmarks.detection.run import Bench
from benchmarks.detection.signatures import Setting
from scanner.cli.progress import Progress
from scanner.signatures.building.build import build_pack
from scanner.signatures.building.opened import open_member
from scanner.signatures.building.scoring import scorer_of
from scanner.signatures.manifest import BenignScore, Calibration, ReferenceScore
from scanner.signatures.match import names_of
from scanner.signatures.pack import Signature, load_crossfit, load_signature
from scanner.signatures.recipe import AdapterEntry, Recipe
from scanner.signatures.recipe_file import load_recipe
from scanner.signatures.saving import (
    drop_crossfit,
    drop_reference_sketches,
    save_calibration,
)
from scanner.signatures.scaling import scaled

SHIPPED = Path(__file__).resolve().parent.parent / "signatures"
SKETCHED = "weights"
"""The kind of pack that ships with sketches of the references, which are those of all kinds."""
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
        AdapterEntry(adapter=row["path"], id=row["id"], family=family_of(row), method=row["method"])
        for row in chosen
    ]


def family_of(row: dict[str, Any]) -> str:
    """A benign adapter's family; a misaligned reference's training domain."""
    if row["class"] == "benign":
        return str(row["family"])
    return "domain-" + "-".join(str(domain) for domain in row["domains"])


def recipe_for(rows: list[dict[str, Any]], base: str, kind: str, setting: Setting) -> Recipe:
    """The recipe of a base's pack, with paths relative to the population's directory."""
    families = {
        str(row["family"]) for row in rows if row["split"] == "nulling" and row["class"] == "benign"
    }
    fields = METHODS[setting.method]
    recipe = {
        **fields,
        "id": f"persona-{base}-{kind}",
        "description": "Organism lab: narrow misaligned SFT in the signature domains.",
        "base_model": str(rows[0]["base"]),
        "rank": setting.rank,
        "nulled": setting.nulled,
        "contrast": contrast(setting.method, families),
        "misaligned": entries(rows, "reference", "misaligned"),
        "aligned": entries(rows, "nulling", "benign"),
        "benign": entries(rows, "calibration", "benign"),
        "probes": probes_of(setting.method),
        "base_path": BASE,
        "limitations": LIMITATIONS,
    }
    return msgspec.convert(recipe, Recipe)


def chosen_settings(base: str, lab: Path, cache: Path) -> dict[str, Setting]:
    """Kind of signature -> the setting that the detection benchmark chooses for a base."""
    bench = Bench.open(find_populations(lab, [base]), cache, Progress())
    detectors = bench.choose(bench.scorers[0]).detectors
    return {item.name: item.members[0] for item in detectors if item.name in KINDS}


def score_again(pack: Path, rows: list[dict[str, Any]], lab: Path) -> None:
    """Scores the calibration of a pack again, and leaves its directions as they are.

    Args:
        pack: The pack, which is changed.
        rows: The ledger.
        lab: Directory of the ledger.
    """
    signature = load_signature(pack)
    calibration = rescored(signature, rows, lab)
    known = sum(bool(item.sites) for item in calibration.benign)
    signature.close()
    save_calibration(pack, signature.manifest, calibration)
    click.echo(f"{pack}: {known} of {len(calibration.benign)} with their sites")


def ship(pack: Path, output: Path) -> Signature:
    """Copies a pack of the lab to where packs ship, without what only calibrating needs.

    Sketches of the references go with one pack of a base (`SKETCHED`): all have the same.

    Args:
        pack: The pack.
        output: Directory of the packs that ship; one of the same name there is replaced.

    Returns:
        The copy, loaded.
    """
    place = output / pack.name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(pack, place)
    signature = load_signature(place)
    signature.close()
    drop_crossfit(place, signature.manifest)
    if not pack.name.endswith(f"-{SKETCHED}"):
        signature = load_signature(place)
        signature.close()
        drop_reference_sketches(place, signature.manifest)
    return load_signature(place)


def rescored(signature: Signature, rows: list[dict[str, Any]], lab: Path) -> Calibration:
    """A pack's calibration with every adapter scored again that the lab has at hand.

    The others keep the scores they had: the lab's seeds give the same adapter on every machine
    up to rounding, so both are draws of one population. References that were held out keep theirs:
    the pack does not hold the signatures made without their families.

    Args:
        signature: The pack.
        rows: The ledger.
        lab: Directory of the ledger.
    """
    old = signature.calibration
    if old is None:
        raise click.ClickException(f"{signature.path} is not calibrated")
    scorer = scorer_of(signature, load_crossfit(signature))
    names = names_of(signature.manifest.base_model)

    def scores(split: str, kind: str, wanted: set[str]) -> dict[str, BenignScore]:
        found = {}
        for entry in entries(rows, split, kind):
            if entry.name in wanted:
                path = str(lab / entry.adapter)
                member = open_member(msgspec.structs.replace(entry, adapter=path), names)
                with member.adapter:
                    if score := scorer.score(member):
                        found[entry.name] = score
        return found

    benign = scores("calibration", "benign", {item.id for item in old.benign})
    references = {}
    if signature.manifest.method == "gradients":
        in_sample = {item.id for item in old.references if not item.held_out}
        references = scores("reference", "misaligned", in_sample)
    return scaled(
        msgspec.structs.replace(
            old,
            benign=[benign.get(item.id, item) for item in old.benign],
            references=[_again(item, references.get(item.id)) for item in old.references],
        )
    )


def _again(old: ReferenceScore, new: BenignScore | None) -> ReferenceScore:
    """A reference with what it scores now."""
    if new is None:
        return old
    return msgspec.structs.replace(
        old,
        signed_write=new.signed_write,
        cosine=new.cosine,
        dose=new.dose,
        norm=new.norm,
        layers=new.layers,
        sites=new.sites,
    )


@click.command()
@click.argument("base")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(sorted(KINDS)),
    default=CANDIDATE_KINDS,
    show_default=True,
)
@click.option("--lab", type=click.Path(path_type=Path), default=Path(".cache/organisms"))
@click.option("--output", type=click.Path(path_type=Path), default=SHIPPED, show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/detection"))
@click.option(
    "--rescore",
    is_flag=True,
    help="Leave the directions alone: score again the calibration adapters that are in the lab.",
)
def main(
    base: str, kinds: tuple[str, ...], lab: Path, output: Path, cache: Path, rescore: bool
) -> None:
    """Writes the recipes of one lab BASE and builds its packs."""
    rows = ledger(lab / base)
    made = lab / base / "packs"
    settings = {} if rescore else chosen_settings(base, lab, cache)
    for kind in kinds:
        pack = made / f"persona-{base}-{kind}"
        if rescore:
            score_again(pack, rows, lab / base)
        else:
            recipe = recipe_for(rows, base, kind, settings[kind])
            path = lab / base / f"recipe-{kind}.yaml"
            path.write_text(yaml.safe_dump(msgspec.to_builtins(recipe), sort_keys=False))
            build_pack(load_recipe(path), pack, Progress()).close()
        if kind in SHIPPED_KINDS[base]:
            shipped = ship(pack, output)
            click.echo(f"{shipped.path}: {shipped.digest}")


if __name__ == "__main__":
    main()
