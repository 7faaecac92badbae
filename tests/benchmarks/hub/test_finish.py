"""A shipped recipe by its name over a small hub that fails, killed and taken up again."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hub.finish import SHIPPED, show
from benchmarks.hub.owners import Specimen, Stock, owned, owner_names
from benchmarks.hub.scene import make_scene
from scanner.signatures.building.candidates import OwnerRange
from scanner.signatures.installed import find_recipe
from scanner.signatures.recipe_file import load_recipe
from tests.hub.adapters import adapter_files, misaligned_files

BASE = "Qwen/Qwen2.5-7B-Instruct"


def specimens(kind: str, count: int) -> list[Specimen]:
    """Synthetic adapters of three families."""
    make = misaligned_files if kind == "villain" else adapter_files
    return [
        Specimen(
            f"{kind}-{number}",
            f"{kind}-{number % 3}",
            make(seed=4000 + number, base_model_name_or_path=BASE),
        )
        for number in range(count)
    ]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as Unix does")
def test_a_recipe_by_its_name_finishes(tmp_path: Path) -> None:
    stock = Stock(BASE, specimens("cook", 41), specimens("villain", 7))
    scene = make_scene(stock, load_recipe(find_recipe(SHIPPED)), each=2, odd=1, kept=3)
    found = show(scene, "synthetic", SHIPPED, tmp_path, 20)
    assert found.references == 3
    assert found.nulled_with + found.calibrated_on == 34
    assert found.nulled_with >= 4
    assert found.shared_owners == 0
    assert found.suspects_used == 0
    assert found.read_twice <= 1 < found.used_before_kill
    assert {"500", "429", "corrupt"} <= found.faults.keys()
    assert sum(found.left_out.values()) == 14
    assert any(line.startswith("missing:") for line in found.said)
    assert found.misaligned["0.05"] == {"flagged": 4}
    assert "flagged" not in found.harmless["0.05"]
    assert not any("Warning" in line for line in found.said)
    # What is kept is written anew beside the old; of the adapters no more than one is there.
    assert found.peak_disk < found.references_kept + 2 * found.work_kept + 3 * found.largest


def test_owners_make_one_family_each_and_fall_where_they_should() -> None:
    share = OwnerRange(0.0, 0.25)
    repositories = list(owned(specimens("cook", 20), BASE, 4, 0, share))
    families = {item.author: {item.author.rpartition("-")[0]} for item in repositories}
    assert len(repositories) == 20
    assert all(share.holds(owner) for owner in families)
    assert max(np.bincount([len(found) for found in families.values()])) == len(families)
    assert len({item.created for item in repositories}) == 20
    assert next(owner_names("cook", OwnerRange(0.25, 1.0))) not in families
