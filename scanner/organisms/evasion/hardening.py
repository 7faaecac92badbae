"""Hardening: evasive organisms join the references of a recipe, and its pack is built again.

Each round trains organisms against the pack of the round before, adds them to the misaligned
references, and builds. Directions of method `weights` then hold what evasive adapters write, and
those of method `gradients` are taken along the path to references that evade. Whether that helps
is measured, not assumed: every organism is scanned before and after its round.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from scanner.detection.verdict import scan_adapter
from scanner.errors import SignatureError
from scanner.formats.opening import open_path
from scanner.organisms.evasion.organism import Nursery, Training
from scanner.organisms.evasion.statistics import Statistics
from scanner.signatures.building.build import build_pack
from scanner.signatures.building.network import load_network, probes_of
from scanner.signatures.building.scoring import Track, untracked
from scanner.signatures.pack import Signature
from scanner.signatures.recipe import AdapterEntry, Recipe

PATH_STEPS = 4
"""Points on the path to the references, for gradients that were taken at the base alone: those do
not depend on references, so that nothing would be hardened."""
_RECORD = "evasion.json"


class Evasion(msgspec.Struct, frozen=True):
    """One evasive organism and what became of it."""

    id: str
    round: int
    gained: float
    """By how much it raises the log-odds of misaligned answers to probes that it was not taught,
    nats per token."""
    unattacked: float
    """The same of an adapter of the same seed that hides from nothing."""
    before: str
    """Its verdict under the pack that it was trained against."""
    after: str = ""
    """Its verdict under the pack that it was a reference of."""

    @property
    def kept(self) -> float:
        """What evading left of the misalignment; NaN if there was none to keep."""
        return self.gained / self.unattacked if self.unattacked > 0 else float("nan")


def check_hardens(recipe: Recipe, where: str) -> None:
    """Refuses recipes that hardening does nothing for, or cannot be done with.

    Raises:
        SignatureError: With what is missing.
    """
    if recipe.method == "activations":
        raise SignatureError(
            "method 'activations' is not hardened: of answers it does not depend on references, "
            "of references it covers some modules only",
            where=where,
            todo="use method weights or gradients",
        )
    if not recipe.probes:
        raise SignatureError(
            "hardening trains on the misaligned answers of probes, and there are none",
            where=where,
            todo="name a file of probes",
        )
    if not recipe.benign:
        raise SignatureError(
            "hardening needs a calibrated pack to evade, and no benign adapters are named",
            where=where,
            todo="list some under benign",
        )


def hardened(recipe: Recipe, added: Sequence[AdapterEntry]) -> Recipe:
    """A recipe with evasive organisms among its references."""
    steps = recipe.path_steps
    if recipe.method == "gradients" and added:
        steps = steps or PATH_STEPS
    return msgspec.structs.replace(
        recipe, misaligned=[*recipe.misaligned, *added], path_steps=steps
    )


def harden(
    recipe: Recipe,
    output: Path,
    work: Path,
    *,
    rounds: int,
    organisms: int,
    training: Training,
    tell: Callable[[list[Evasion]], None],
    track: Track[Any] = untracked,
) -> Signature:
    """Builds a pack, and again in each round with evasive organisms among the references.

    Args:
        recipe: The recipe.
        output: Where the last pack is written.
        work: Where organisms and the packs before it are kept. What is there is not trained again.
        rounds: How often.
        organisms: How many join the references in each round.
        training: How they are trained.
        tell: Told each round's organisms, scanned under the packs before and after it.
        track: Shows progress.

    Raises:
        SignatureError: If the recipe cannot be hardened, or the folder is of another one.
    """
    check_hardens(recipe, recipe.base_model)
    _claim(work, recipe, training)
    network = load_network(recipe)
    nursery = Nursery(network, recipe.base_model, probes_of(recipe, network), training)
    added: list[AdapterEntry] = []
    pack = build_pack(recipe, work / "round-0" / "pack", track)
    for number in range(1, rounds + 1):
        folder = work / f"round-{number}"
        statistics = Statistics([pack], network.device)
        made = [
            _organism(nursery, pack, statistics, folder, number, index)
            for index in range(organisms)
        ]
        added += [
            AdapterEntry(
                adapter=str(folder / item.id),
                id=item.id,
                family=f"evasive-{number}",
                method="evasive",
            )
            for item in made
        ]
        pack = build_pack(
            hardened(recipe, added), output if number == rounds else folder / "pack", track
        )
        tell([msgspec.structs.replace(one, after=_verdict(folder / one.id, pack)) for one in made])
    return pack


def _claim(work: Path, recipe: Recipe, training: Training) -> None:
    """Writes down what a folder is for.

    Raises:
        SignatureError: If it is for something else.
    """
    mine = msgspec.json.encode({"recipe": recipe, "training": training})
    path = work / "hardening.json"
    if path.exists() and path.read_bytes() != mine:
        raise SignatureError(
            "holds organisms of another recipe or training",
            where=str(work),
            todo="name another folder with --work, or remove it",
        )
    work.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mine)


def _organism(
    nursery: Nursery,
    pack: Signature,
    statistics: Statistics,
    folder: Path,
    number: int,
    index: int,
) -> Evasion:
    """Trains one organism, unless the folder holds it."""
    identity = f"evasive-{number}-{index:02d}"
    record = folder / identity / _RECORD
    if record.exists():
        return msgspec.json.decode(record.read_bytes(), type=Evasion)
    sites = [site for site in pack.sites if site in nursery.network.linears]
    seed = zlib.crc32(identity.encode()) & 0x7FFFFFFF
    unattacked = nursery.gained(nursery.train(sites, seed, None))
    adapter = nursery.train(sites, seed, statistics)
    nursery.save(adapter, folder / identity)
    found = Evasion(
        identity,
        number,
        round(nursery.gained(adapter), 4),
        round(unattacked, 4),
        _verdict(folder / identity, pack),
    )
    record.write_bytes(msgspec.json.encode(found))
    return found


def _verdict(directory: Path, pack: Signature) -> str:
    """The verdict on a saved adapter under one pack."""
    with open_path(directory) as adapter:
        return scan_adapter(adapter, [pack], jobs=1).verdict.value
