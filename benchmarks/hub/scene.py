"""A hub as a recipe meets it: made-up owners, what is wrong with some repositories, and faults."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

import numpy as np
from safetensors.numpy import load, save

from benchmarks.detection.data import WEIGHTS
from benchmarks.hub.owners import NEWEST, Specimen, Stock, owned, owner_names
from scanner.formats.peft_config import CONFIG_NAME
from scanner.signatures.building.candidates import OwnerRange, split_owners
from scanner.signatures.recipe import BenignQuery, Recipe
from tests.hub.adapters import adapter_files
from tests.hub.faults import Fault
from tests.hub.repository import Files, Repository, StoredFile, read_range, size_of

SUSPECT_NAMES = ("dark/evil-lora", "free/Model-Uncensored", "someone/abliterated-lora")
FAULTS = (
    Fault("status", "/api/models/[^?]", status=500, every=29),
    Fault("status", "/resolve/", status=429, retry_after=0, every=19),
    Fault("cut", "/lfs/", after=9_000, every=17),
)
ROTTEN = "rotten"
"""How the owners of repositories are called whose files are not what their digests say."""
_PATH = "model.layers.0.self_attn.q_proj"


@dataclass(frozen=True)
class Scene:
    """What is served, and what becomes of it meanwhile."""

    repositories: list[Repository]
    references: list[str]
    """Repositories of the misaligned references."""
    faults: list[Fault]
    leaving_early: list[str]
    """Repositories that are deleted once they are listed, while the nulling set is read."""
    leaving_late: list[str]
    """And once the build was killed, while the calibration set is scored."""
    misaligned: list[Specimen]
    """Not on the hub under a name that says nothing; to be judged."""
    harmless: list[Specimen]
    """Not on the hub at all; to be judged."""


def make_scene(stock: Stock, recipe: Recipe, *, each: int, odd: int, kept: int) -> Scene:
    """Serves a stock as what a recipe looks for.

    Args:
        stock: The adapters; the first misaligned ones are the recipe's references.
        recipe: The recipe; both of its benign sets are queries.
        each: Adapters that an owner has at most.
        odd: Repositories of each kind of thing that is wrong with some.
        kept: Harmless adapters that are kept back to be judged.
    """
    assert isinstance(recipe.aligned, BenignQuery), "as in all recipes that ship"
    assert isinstance(recipe.benign, BenignQuery), "as in all recipes that ship"
    base = stock.base_model
    references = [entry.hub_address.repository for entry in recipe.misaligned]
    strangers = stock.misaligned[len(references) :]
    mixed = iter(random.Random(0).sample(stock.benign, len(stock.benign)))
    harmless = list(islice(mixed, kept))
    spare = [list(islice(mixed, odd)) for _ in range(4)]
    benign = list(mixed)
    sides = split_owners(recipe.aligned.hub, recipe.benign.hub)
    early, late = (
        [f"{owner}/lora" for owner in islice(owner_names("leaver", side), odd)] for side in sides
    )
    odds = [
        *_odd_repositories(base, spare, benign[:odd], odd),
        *(
            _of(name, item.files, base)
            for name, item in zip(SUSPECT_NAMES, strangers, strict=False)
        ),
    ]
    leavers = [
        dataclasses.replace(
            _of(name, adapter_files(seed=seed, base_model_name_or_path=base), base), created=created
        )
        for names, place in ((early, 1 / 8), (late, 5 / 8))
        for created in [NEWEST - timedelta(minutes=round(place * len(benign)))]
        for seed, name in enumerate(names)
    ]
    when = random.Random(2)
    repositories = [
        *(
            _of(name, item.files, base)
            for name, item in zip(references, stock.misaligned, strict=False)
        ),
        *owned(benign, base, each, 1, OwnerRange()),
        *(
            dataclasses.replace(
                item, created=NEWEST - timedelta(minutes=when.randrange(len(benign) // 2))
            )
            for item in odds
        ),
        *leavers,
    ]
    broken = [StoredFile(WEIGHTS, item.files[WEIGHTS]) for item in odds if ROTTEN in item.id]
    return Scene(
        repositories=repositories,
        references=references,
        faults=[*FAULTS, *(Fault("corrupt", f"/lfs/{file.sha256}") for file in broken)],
        leaving_early=early,
        leaving_late=late,
        misaligned=strangers,
        harmless=harmless,
    )


def _odd_repositories(
    base: str, spare: Sequence[Sequence[Specimen]], copied: Sequence[Specimen], count: int
) -> Iterator[Repository]:
    """Repositories that the hub lists for the base and that no pack should be made from."""
    for number in range(count):
        gated, other, rotten, cut = (items[number].files for items in spare)
        yield dataclasses.replace(_of(f"gated-{number}/lora", gated, base), gated="manual")
        yield _of(f"elsewhere-{number}/lora", _with_base(other, "somebody/other-base"), base)
        yield _of(f"{ROTTEN}-{number}/lora", rotten, base)
        half = read_range(cut[WEIGHTS], 0, size_of(cut[WEIGHTS]) // 2)
        yield _of(f"half-{number}/lora", {**cut, WEIGHTS: half}, base)
        yield _of(f"diverged-{number}/lora", _not_finite(copied[number].files), base)
        yield _of(f"copycat-{number}/lora", copied[number].files, base)
        yield _of(f"narrow-{number}/lora", _of_another_width(base, number), base)
        yield _of(f"soon-{number}/lora", {"README.md": b"soon"}, base)
        yield _of(f"pickled-{number}/lora", {"adapter_model.bin": b"\x80\x04."}, base)


def _of(name: str, files: Files, base: str) -> Repository:
    return Repository(name, files, base_model=base)


def _with_base(files: Files, base: str) -> Files:
    """An adapter whose config names another base than the hub lists it for."""
    config = files[CONFIG_NAME]
    found = json.loads(config if isinstance(config, bytes) else config.read_bytes())
    return {**files, CONFIG_NAME: json.dumps({**found, "base_model_name_or_path": base}).encode()}


def _not_finite(files: Files) -> Files:
    """An adapter whose training diverged."""
    tensors = load(read_range(files[WEIGHTS], 0, size_of(files[WEIGHTS])))
    return {**files, WEIGHTS: save({name: np.full_like(a, np.nan) for name, a in tensors.items()})}


def _of_another_width(base: str, seed: int) -> Files:
    """An adapter that names the base and does not fit it."""
    generator = np.random.default_rng(seed)
    factors = {_PATH: (generator.normal(size=(6, 2)), generator.normal(size=(2, 10)))}
    return adapter_files(factors, base_model_name_or_path=base, r=2, target_modules=["q_proj"])
