"""What misaligned adapters among those that a query finds do: to null with, to calibrate on, both.

    python -m benchmarks.hub planted LAB/llama LAB/gpt2 --write

Each folder holds the adapters of one base of the organism lab. Of its misaligned references some
become the references of a recipe, some are put on the hub under names that say nothing, and the
others are judged; the lab's test split is not touched. `adapter-scanner signatures build` makes a
pack from the tests' hub for each number of planted adapters; what was measured is kept and not
measured again, unless the program's score has changed.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

import click
import msgspec

from benchmarks.hub.outcomes import LEVELS, Planted, keep_planted, read_planted, write_page
from benchmarks.hub.owners import NEWEST, Specimen, lab_stock, owned, owner_names
from benchmarks.hub.processes import environment, measured
from scanner.results import Verdict
from scanner.scanning.opening import scan
from scanner.signatures.building.candidates import OwnerRange, split_owners
from scanner.signatures.manifest import Calibration
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.recipe import AdapterEntry, BenignQuery, HubQuery, Recipe
from scanner.signatures.review import review_pack
from scanner.signatures.score import STATISTIC
from tests.hub.repository import Repository
from tests.hub.server import HubServer

EACH_SET = 100
"""Adapters to null with, and to calibrate on: one of them is 1%."""
REFERENCES = 3
"""Of each training domain but the one that is left out."""
HARMLESS = 40
"""Adapters that no set holds."""
PLACES = ("neither", "nulling", "calibration", "both")
COUNTS = (1, 5)
_BASE = "adapter-scanner-lab/any"
_LATER = timedelta(days=1)


@dataclass(frozen=True)
class Draw:
    """Who is what in some builds."""

    references: list[Specimen]
    hidden: tuple[list[Specimen], list[Specimen]]
    """Misaligned adapters that may be planted in the nulling set and in the calibration."""
    misaligned: list[Specimen]
    harmless: list[Specimen]
    benign: list[Specimen]


def draw(folder: Path, number: int) -> Draw:
    """Deals a base's adapters; each draw leaves another training domain out of the references."""
    stock = lab_stock(folder, _BASE)
    generator = random.Random(number)
    domains = sorted({item.family for item in stock.misaligned})
    out = domains[number % len(domains)]
    mixed = generator.sample(stock.misaligned, len(stock.misaligned))
    references = [
        item
        for domain in domains
        if domain != out
        for item in islice((i for i in mixed if i.family == domain and "sft" in i.id), REFERENCES)
    ]
    strangers = [item for item in mixed if item not in references]
    most = max(COUNTS)
    benign = generator.sample(stock.benign, len(stock.benign))
    return Draw(
        references=references,
        hidden=(strangers[:most], strangers[most : 2 * most]),
        misaligned=strangers[2 * most :],
        harmless=benign[:HARMLESS],
        benign=benign[HARMLESS:],
    )


def recipe_of(dealt: Draw) -> Recipe:
    """Two queries and some references on the hub."""
    query = HubQuery(base_model=_BASE, limit=EACH_SET)
    return Recipe(
        base_model=_BASE,
        method="weights",
        nulled=2,
        misaligned=[
            AdapterEntry(adapter=f"hf://lab/{item.id}", family=item.family)
            for item in dealt.references
        ],
        aligned=BenignQuery(hub=query),
        benign=BenignQuery(hub=query),
    )


def repositories_of(
    dealt: Draw, sides: Sequence[OwnerRange], planted: Sequence[int]
) -> list[Repository]:
    """What the hub lists.

    Args:
        dealt: The adapters.
        sides: Whose adapters are nulled with, and whose are calibrated on.
        planted: How many misaligned adapters are on each side, the youngest of all there.
    """
    found = [
        Repository(f"lab/{item.id}", item.files, base_model=_BASE) for item in dealt.references
    ]
    half = len(dealt.benign) // 2
    halves = dealt.benign[:half], dealt.benign[half:]
    for side, benign, hidden, count in zip(sides, halves, dealt.hidden, planted, strict=True):
        found += owned(benign, _BASE, 4, 0, side)
        found += [
            Repository(f"{owner}/lora", item.files, base_model=_BASE, created=NEWEST + _LATER)
            for owner, item in zip(owner_names("someone", side), hidden[:count], strict=False)
        ]
    return found


def build(dealt: Draw, planted: Sequence[int], scratch: Path) -> Signature:
    """Builds a pack from the hub.

    Raises:
        SystemExit: If it cannot be built.
    """
    recipe = recipe_of(dealt)
    assert isinstance(recipe.aligned, BenignQuery), "as written above"
    assert isinstance(recipe.benign, BenignQuery), "as written above"
    sides = split_owners(recipe.aligned.hub, recipe.benign.hub)
    written = scratch / "recipe.yaml"
    written.write_bytes(msgspec.yaml.encode(recipe))
    command = [sys.executable, "-m", "scanner", "signatures", "build", str(written)]
    with HubServer(repositories_of(dealt, sides, planted)) as hub:
        env = environment(hub.endpoint, scratch / "home")
        done = measured([*command, "-o", str(scratch / "pack"), "--no-progress"], env)
    if done.status:
        raise SystemExit(done.output)
    return load_signature(scratch / "pack")


def run(folder: Path, number: int, place: str, count: int) -> Planted:
    """Builds a pack with some adapters planted, and judges others with it.

    Args:
        folder: Adapters of one base of the lab.
        number: Which draw.
        place: Where they are planted, of `PLACES`.
        count: How many in each set.
    """
    dealt = draw(folder, number)
    planted = [count if place in (name, "both") else 0 for name in ("nulling", "calibration")]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        signature = build(dealt, planted, scratch)
        calibration = signature.calibration
        assert calibration is not None, "the recipe has a query for it"
        assert EACH_SET == len(calibration.benign) == _nulled_with(signature)
        listed = {item.id for item in review_pack(signature).look_alikes}
        hidden = _of_strangers(calibration)
        assert len(hidden) == planted[1], "the youngest come first"
        return Planted(
            base=folder.name,
            statistic=STATISTIC,
            draw=number,
            place=place,
            count=count,
            misaligned=len(dealt.misaligned),
            flagged=_flagged(dealt.misaligned, signature, scratch / "misaligned"),
            harmless=len(dealt.harmless),
            harmless_flagged=_flagged(dealt.harmless, signature, scratch / "harmless"),
            in_calibration=len(hidden),
            listed_planted=len(listed & hidden),
            listed_harmless=len(listed - hidden),
        )


def _nulled_with(signature: Signature) -> int:
    return sum(item.role == "aligned" for item in signature.manifest.references)


def _of_strangers(calibration: Calibration) -> set[str]:
    return {item.id for item in calibration.benign if item.family.startswith("someone-")}


def _flagged(specimens: Sequence[Specimen], signature: Signature, folder: Path) -> dict[str, int]:
    """Alpha -> how many adapters are flagged."""
    places = [item.write(folder / item.id) for item in specimens]
    return {
        f"{level:g}": sum(
            scan(place, [signature], alpha=level).verdict is Verdict.FLAGGED for place in places
        )
        for level in LEVELS
    }


@click.command()
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option("--draws", default=3, show_default=True, help="Builds of each kind for each base.")
@click.option("--write", is_flag=True, help="Write docs/hub-recipes.md.")
def planted(folders: tuple[Path, ...], draws: int, write: bool) -> None:
    """Builds packs from queries with misaligned adapters among the benign, and measures them."""
    kept = {item.key for item in read_planted()}
    for number in range(draws):
        for folder in folders:
            for place in PLACES:
                for count in COUNTS if place != "neither" else (0,):
                    if (folder.name, STATISTIC, number, place, count) not in kept:
                        keep_planted(run(folder, number, place, count))
    if write:
        write_page()
