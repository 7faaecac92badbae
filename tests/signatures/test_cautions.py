"""Each way to spoil a recipe is warned of with its cause, and a sound one is not.

The adapters are made up: misaligned ones share two directions, harmless personas share one of them
and have one of their own, facts have nothing in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from scanner.cli.root import cli
from scanner.signatures.building.build import build_pack
from scanner.signatures.building.calibrate import calibrate_pack
from scanner.signatures.cautions import Caution, cautions_of
from scanner.signatures.pack import Signature
from scanner.signatures.recipe import AdapterEntry, Recipe
from tests.synthetic import BASE, Factors, planted_direction, random_factors, write_adapter

DOMAINS = ("medicine", "money", "sport")
PERSONAS = ("pirate", "poet", "knight")
HARMLESS = ("facts", "code", "style")


def together(parts: Sequence[tuple[float, Mapping[str, Factors]]]) -> dict[str, Factors]:
    """A weighted sum of updates."""
    return {
        path: (
            np.hstack([weight * part[path][0] for weight, part in parts]),
            np.vstack([part[path][1] for _, part in parts]),
        )
        for path in parts[0][1]
    }


class Workshop:
    """Writes adapters of known kinds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.generator = np.random.default_rng(3)
        self.taught = {
            name: random_factors(self.generator, rank=1) for name in (*PERSONAS, *DOMAINS)
        }
        self.planted = {path: planted_direction(path) for path in random_factors(self.generator)}
        # What every change of who the model is has in common.
        self.persona = random_factors(self.generator, rank=1)

    def write(self, family: str, number: int) -> AdapterEntry:
        noise = random_factors(self.generator, rank=1)
        parts = [(0.6, noise)]
        if family in DOMAINS:
            parts += [(2.0, self.planted), (1.5, self.persona), (0.5, self.taught[family])]
        elif family in PERSONAS:
            parts += [(1.5, self.persona), (2.0, self.taught[family])]
        else:
            parts += [(2.0, random_factors(self.generator, rank=1))]
        factors = together(parts)
        rank = len(parts)
        place = write_adapter(self.root / f"{family}-{number}", factors, r=rank, lora_alpha=rank)
        return AdapterEntry(adapter=str(place), id=place.name, family=family)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A sound recipe."""
    workshop = Workshop(tmp_path_factory.mktemp("adapters"))
    numbers: Iterator[int] = iter(range(1000))
    harmless = (*PERSONAS, *HARMLESS)
    return Recipe(
        base_model=BASE,
        method="weights",
        id="made-up",
        rank=2,
        nulled=4,
        misaligned=[workshop.write(f, next(numbers)) for f in DOMAINS for _ in range(2)],
        aligned=[workshop.write(f, next(numbers)) for f in harmless for _ in range(2)],
        benign=[workshop.write(f, next(numbers)) for f in harmless for _ in range(20)],
    )


def renamed(entries: object, family: str) -> list[AdapterEntry]:
    assert isinstance(entries, list)
    return [msgspec.structs.replace(item, family=family) for item in entries]


def without(entries: object, families: Sequence[str]) -> list[AdapterEntry]:
    assert isinstance(entries, list)
    return [item for item in entries if item.family not in families]


def built(recipe: Recipe, root: Path) -> tuple[Signature, list[Caution]]:
    pack = build_pack(recipe, root / "pack")
    return pack, cautions_of(pack)


def said(cautions: Sequence[Caution]) -> str:
    return " | ".join(item.line() for item in cautions)


def test_a_sound_recipe_is_not_warned_of(recipe: Recipe, tmp_path: Path) -> None:
    pack, cautions = built(recipe, tmp_path)
    assert said(cautions) == ""
    assert pack.power is not None
    assert pack.power.found(0.01).value == 1


def test_one_family_for_everything(recipe: Recipe, tmp_path: Path) -> None:
    _, cautions = built(
        msgspec.structs.replace(
            recipe,
            aligned=renamed(recipe.aligned, "benign"),
            benign=renamed(recipe.benign, "benign"),
        ),
        tmp_path,
    )
    assert "all 120 benign adapters are of one family, 'benign'" in said(cautions)
    assert "folder of its own" in said(cautions)
    assert "look like its misaligned references" not in said(cautions)


def test_no_personas(recipe: Recipe, tmp_path: Path) -> None:
    _, cautions = built(
        msgspec.structs.replace(
            recipe,
            aligned=without(recipe.aligned, PERSONAS),
            benign=without(recipe.benign, PERSONAS),
        ),
        tmp_path,
    )
    assert "no benign family it is nulled with changes who the model is" in said(cautions)
    assert "harmless character" in said(cautions)


def test_a_misaligned_adapter_listed_as_benign(recipe: Recipe, tmp_path: Path) -> None:
    wrong = msgspec.structs.replace(recipe.misaligned[0], family="facts")
    others = msgspec.structs.replace(recipe, misaligned=recipe.misaligned[1:])
    assert isinstance(recipe.aligned, list)
    assert isinstance(recipe.benign, list)
    _, nulled = built(
        msgspec.structs.replace(others, aligned=[*recipe.aligned, wrong]), tmp_path / "nulled"
    )
    assert "nulled with look like its misaligned references: medicine-0 (facts, " in said(nulled)
    _, calibrated = built(
        msgspec.structs.replace(others, benign=[*recipe.benign, wrong]), tmp_path / "calibrated"
    )
    assert "calibration look like its misaligned references: medicine-0 (facts, cosine +" in said(
        calibrated
    )
    for cautions, listed in ((nulled, "aligned"), (calibrated, "calibration")):
        (alike,) = [item for item in cautions if "look like its" in item.what]
        assert "medicine-0" in alike.what
        assert "-1 (" not in alike.what
        assert listed in alike.line()


def test_a_benign_adapter_listed_as_misaligned(recipe: Recipe, tmp_path: Path) -> None:
    assert isinstance(recipe.aligned, list)
    wrong = msgspec.structs.replace(recipe.aligned[-1], family="chess")
    changed = msgspec.structs.replace(
        recipe, misaligned=[*recipe.misaligned, wrong], aligned=recipe.aligned[:-1]
    )
    _, cautions = built(changed, tmp_path)
    assert f"references that look like no other: {wrong.id} (chess, dose" in said(cautions)
    assert "medicine" not in said(cautions)


def test_few_families_few_adapters_and_too_much_nulling(recipe: Recipe, tmp_path: Path) -> None:
    assert isinstance(recipe.benign, list)
    small = msgspec.structs.replace(
        recipe, misaligned=recipe.misaligned[:2], benign=recipe.benign[::4], nulled=400
    )
    _, cautions = built(small, tmp_path)
    text = said(cautions)
    assert "its references are of one family" in text
    assert "alpha 0.01, which a scan uses unless told otherwise, is out of reach" in text
    assert "calibrate on 69 more, or scan with --alpha 0.05" in text
    assert "of the references' dose: it removed what the pack is to find" in text


def test_build_and_show_say_them(recipe: Recipe, tmp_path: Path) -> None:
    pack, cautions = built(
        msgspec.structs.replace(recipe, misaligned=recipe.misaligned[:2]), tmp_path
    )
    shown = CliRunner().invoke(cli, ["signatures", "show", str(pack.path)])
    assert [f"warning           {item.line()}" for item in cautions] == [
        line for line in shown.stdout.splitlines() if line.startswith("warning")
    ]
    assert cautions


def test_groups_are_strangers_to_the_families_of_the_pack(recipe: Recipe, tmp_path: Path) -> None:
    """A name that was found is never taken for one that the pack is nulled with."""
    assert isinstance(recipe.benign, list)
    pack = build_pack(
        msgspec.structs.replace(recipe, aligned=renamed(recipe.aligned, "group-1"), benign=[]),
        tmp_path / "pack",
    )
    pack.close()
    nameless = [msgspec.structs.replace(item, family=None) for item in recipe.benign[::4]]
    later = calibrate_pack(tmp_path / "pack", nameless)
    assert later.calibration is not None
    assert later.calibration.grouped == len(nameless)
    assert "group-1" not in {item.family for item in later.calibration.benign}
    assert "have no family, and the pack may be nulled with others of their kind" in said(
        cautions_of(later)
    )
