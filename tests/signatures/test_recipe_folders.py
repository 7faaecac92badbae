"""Folders of adapters -> recipe -> entries: families, a disjoint split, and errors with a mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from scanner.cli.root import cli
from scanner.errors import SignatureError
from scanner.signatures.pack import load_signature
from scanner.signatures.recipe import AdapterEntry, Recipe
from scanner.signatures.recipe_file import load_recipe
from scanner.signatures.recipe_folders import adapters_below
from tests.synthetic import BASE, misaligned_factors, random_factors, write_adapter


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["signatures", *map(str, arguments)])


def folders(root: Path, benign: dict[str, int]) -> Path:
    """Two misaligned families of two adapters each, and benign ones; "" lies there directly."""
    generator = np.random.default_rng(0)
    for family in ("medicine", "sport"):
        for number in range(2):
            factors = misaligned_factors(generator)
            write_adapter(root / "misaligned" / family / f"run-{number}", factors)
    for family, count in benign.items():
        for number in range(count):
            place = root / "benign" / family / f"b-{family}{number:02d}"
            write_adapter(place, random_factors(generator))
    return root


def names(entries: object) -> list[str]:
    assert isinstance(entries, list)
    return [item.name for item in entries]


def test_init_splits_every_family_and_no_adapter_twice(tmp_path: Path) -> None:
    root = folders(tmp_path / "a", {"facts": 9, "style": 2, "poet": 1})
    done = run("init", root, "-o", tmp_path / "recipe.yaml")
    assert done.exit_code == 0
    assert "misaligned: 4 adapters (medicine 2, sport 2)" in done.stdout
    assert "benign: 12 adapters (facts 9, poet 1, style 2)" in done.stdout
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.base_model == BASE
    assert {item.family for item in recipe.misaligned} == {"medicine", "sport"}
    assert isinstance(recipe.aligned, list)
    assert isinstance(recipe.benign, list)
    split = [(item.family, item.name) for item in recipe.aligned]
    assert split == [
        ("facts", "benign/facts/b-facts01"),
        ("facts", "benign/facts/b-facts05"),
        ("style", "benign/style/b-style01"),
    ]
    assert len(recipe.benign) == 9
    assert not set(names(recipe.aligned)) & set(names(recipe.benign))
    assert {item.family for item in recipe.benign} == {"facts", "style", "poet"}
    again = run("init", root, "-o", tmp_path / "recipe.yaml")
    assert again.exit_code == 2
    assert "name a file that does not exist" in again.stderr
    built = run("build", tmp_path / "recipe.yaml", "-o", tmp_path / "pack", "--no-progress")
    assert built.exit_code == 0
    assert load_signature(tmp_path / "pack").reference_ids == names(recipe.misaligned)


def test_adapters_without_a_folder_are_grouped_and_it_is_said(tmp_path: Path) -> None:
    root = folders(tmp_path / "a", {"": 30})
    assert run("init", root, "-o", root / "recipe.yaml").exit_code == 0
    built = run("build", root / "recipe.yaml", "-o", tmp_path / "pack", "--no-progress")
    assert built.exit_code == 0
    pack = load_signature(tmp_path / "pack")
    assert pack.manifest.grouped == 30
    assert pack.calibration is not None
    families = {item.family for item in pack.calibration.benign}
    assert len(families) > 1
    assert all(family.startswith("group-") for family in families)
    assert "30 benign adapters had no family" in run("show", tmp_path / "pack").stdout
    done = CliRunner().invoke(
        cli, ["scan", str(root / "benign"), "-s", str(tmp_path / "pack"), "--alpha", "0.1"]
    )
    assert "not named but found by what they write" in " ".join(done.stdout.split())


def test_calibrate_takes_the_folders_as_families(tmp_path: Path) -> None:
    root = folders(tmp_path / "a", {"facts": 3, "style": 3})
    more = folders(tmp_path / "b", {"facts": 12, "poet": 12})
    run("init", root, "-o", root / "recipe.yaml")
    run("build", root / "recipe.yaml", "-o", tmp_path / "pack", "--no-progress")
    for adapter in more.glob("benign/*/*/adapter_model.safetensors"):
        adapter.write_bytes(adapter.read_bytes()[:-4] + b"\0\0\0\1")  # others than those of `a`
    done = run("calibrate", tmp_path / "pack", "--benign", more / "benign", "--no-progress")
    assert done.exit_code == 0, done.stderr
    pack = load_signature(tmp_path / "pack")
    assert pack.calibration is not None
    assert {item.family for item in pack.calibration.benign} == {"facts", "poet"}


@pytest.mark.parametrize(
    ("make", "where", "says"),
    [
        ({}, "misaligned", "no such folder"),
        ({"misaligned/x": None}, "benign", "no such folder"),
        ({"misaligned": None, "benign/y": "other/base"}, "y", "is of base other/base"),
        ({"misaligned/x": None, "benign/y": ""}, "y", "does not name its base model"),
    ],
)
def test_init_says_what_is_missing(
    tmp_path: Path, make: dict[str, str | None], where: str, says: str
) -> None:
    for place, base in make.items():
        changes: dict[str, Any] = {"base_model_name_or_path": base or None}
        changes = changes if base is not None else {}
        factors = random_factors(np.random.default_rng(0))
        write_adapter(tmp_path / "a" / place, factors, **changes)
    (tmp_path / "a").mkdir(exist_ok=True)
    done = run("init", tmp_path / "a", "-o", tmp_path / "r.yaml")
    assert done.exit_code == 2
    assert says in done.stderr
    assert where in done.stderr.split(says)[0]
    assert not (tmp_path / "r.yaml").exists()


def expand(root: Path, **entry: object) -> list[AdapterEntry]:
    recipe = {"base_model": BASE, "method": "weights", "nulled": 0, "misaligned": [entry]}
    (root / "r.yaml").write_text(yaml.safe_dump(recipe))
    loaded: Recipe = load_recipe(root / "r.yaml")
    return loaded.misaligned


def test_globs_and_folders_say_the_same(tmp_path: Path) -> None:
    root = folders(tmp_path, {"facts": 2, "style": 1, "": 1})
    whole = expand(root, adapter="benign")
    assert [item.family for item in whole] == [None, "facts", "facts", "style"]
    assert [item.family for item in expand(root, adapter="benign/*/*")] == ["facts"] * 2 + ["style"]
    assert expand(root, adapter="benign/[fs]*") == whole[1:]
    assert [i.family for i in expand(root, adapter="benign/facts/*")] == [None, None]
    assert {i.family for i in expand(root, adapter="benign/facts/*", family="f")} == {"f"}
    (one,) = expand(root, adapter="benign/style/b-style00")
    assert one.name == "benign/style/b-style00"
    assert [i.name for i in expand(root, adapter="benign/**/b-fact*")] == names(whole[1:3])


def test_checkpoints_inside_an_adapter_are_left_alone(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    write_adapter(tmp_path / "fam" / "run", random_factors(generator))
    write_adapter(tmp_path / "fam" / "run" / "checkpoint-5", random_factors(generator))
    write_adapter(tmp_path / "fam" / ".cache" / "x", random_factors(generator))
    assert [(i.path.name, i.family) for i in adapters_below(tmp_path)] == [("run", "fam")]


def test_a_family_of_a_folder_cannot_be_both(tmp_path: Path) -> None:
    root = folders(tmp_path, {"medicine": 4})
    recipe = {
        "base_model": BASE,
        "method": "weights",
        "misaligned": [{"adapter": "misaligned"}],
        "aligned": [{"adapter": "benign"}],
    }
    (root / "r.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    with pytest.raises(SignatureError, match="'medicine' is both") as caught:
        load_recipe(root / "r.yaml")
    assert caught.value.where == f"{root / 'r.yaml'}:6"
