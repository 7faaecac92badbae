"""From a base model to calibrated packs, in one run that can be taken up again.

Directions are gradients of the base model over the probes that ship, one or two signatures a kind
(`recipes.SIGNATURES`). They need no adapter at all. What a verdict needs beside them are harmless
adapters to compare with: a directory of them, a query of the hub, or organisms trained here.

Everything is kept in a working folder as it is made; a second run goes on where the first was.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scanner.errors import SignatureError, UsageError
from scanner.organisms.ledger import Ledger, Row
from scanner.organisms.recipes import KINDS, PROBES, SIGNATURES, usable, write_probes
from scanner.signatures.manifest import MANIFEST_NAME
from scanner.signatures.recipe import AdapterEntry, Benign, BenignQuery, Recipe
from scanner.signatures.recipe_checks import check_recipe

if TYPE_CHECKING:
    from scanner.organisms.plan import Size
    from scanner.organisms.work import Show
    from scanner.signatures.pack import Signature

RANK = 2
"""Singular triples kept per site: with 4 the references of SmolLM2 stand out no better."""

LIMITATIONS = (
    "Directions are gradients at the base alone: to first order, what makes the answers of the "
    "probes likelier. They say nothing of behaviour that such answers do not show.",
)


@dataclass(frozen=True)
class Making:
    """What is to be made, and where.

    Attributes:
        source: The base: a hub id, a directory of transformers, or a directory with one GGUF file.
        base_id: What its adapters name as their base.
        output: What the packs' paths begin with: `output-hostile` and so on.
        work: What is made on the way: probes, adapters, packs that are not calibrated yet.
        kinds: Of `recipes.KINDS`.
        benign: Harmless adapters that are at hand, or a query for them.
        organisms: How much of the shipped plan to train, if none are at hand.
    """

    source: str
    base_id: str
    output: Path
    work: Path
    kinds: tuple[str, ...] = KINDS
    benign: Benign = field(default_factory=list)
    organisms: Size | None = None
    workers: int = 1
    threads: int = 1

    @property
    def signatures(self) -> list[str]:
        """The names of the signatures to make, keys of `recipes.SIGNATURES`."""
        return [name for name, item in SIGNATURES.items() if item.kind in self.kinds]


@dataclass(frozen=True)
class Watching:
    """How a run shows what it does.

    Attributes:
        say: Called with a line before each part.
        track: Wraps a sequence to show progress under a description.
        show: Called with how many adapters are made and how many are wanted.
    """

    say: Callable[[str], None]
    track: Any
    show: Show


def make_packs(making: Making, watching: Watching) -> list[Signature]:
    """Makes and calibrates the packs of each kind.

    Returns:
        The packs, loaded from where they are now.

    Raises:
        UsageError: If a setting cannot be used.
        SignatureError: If the base, the probes or an adapter cannot be used.
    """
    making.work.mkdir(parents=True, exist_ok=True)
    base = _directory_of(making)
    if making.organisms is not None:
        _train(making, base, watching)
    benign = _benign(making)
    made = []
    for name in making.signatures:
        pack = _directions(making, name, base, watching)
        watching.say(f"{name}: scoring harmless adapters")
        made.append(_finish(making, name, pack, benign, watching))
    return made


def place_of(making: Making, name: str) -> Path:
    """Where the pack of a signature is put."""
    return making.output.with_name(f"{making.output.name}-{name}")


def _directory_of(making: Making) -> str:
    """The base as transformers loads it; a GGUF file is read once and kept as a directory.

    Raises:
        UsageError: If it cannot be loaded.
    """
    from scanner.organisms.base import gguf_file, load_base, save_dequantised

    if not gguf_file(making.source):
        return making.source
    kept = making.work / "base"
    if not (kept / "config.json").exists():
        partial = making.work / ".base.partial"
        shutil.rmtree(partial, ignore_errors=True)
        save_dequantised(load_base(making.source, base_id=making.base_id), partial)
        partial.rename(kept)
    return str(kept)


def _train(making: Making, base: str, watching: Watching) -> None:
    from scanner.organisms.plan import expand, shipped_plan
    from scanner.organisms.work import Job, run

    assert making.organisms is not None, "checked by the caller"
    plan = expand(shipped_plan(), making.organisms)
    wanted = tuple(o for o in plan if o.role in ("calibration", "reference"))
    watching.say(f"training and measuring {len(wanted)} organisms in {making.work / 'organisms'}")
    job = Job(making.work / "organisms", base, making.base_id, wanted, True, making.threads)
    run(job, making.workers, watching.show)


def _benign(making: Making) -> Benign:
    """The calibration set.

    Raises:
        UsageError: If there is none.
    """
    if making.organisms is None:
        if isinstance(making.benign, list) and not making.benign:
            raise UsageError("no harmless adapters to calibrate on", where="make")
        return making.benign
    return [_entry(making, row, str(row["family"])) for row in _made(making, "calibration")]


def _made(making: Making, role: str) -> list[Row]:
    """The organisms that were trained for one purpose."""
    return usable(Ledger(making.work / "organisms"), role)


def _entry(making: Making, row: Row, family: str) -> AdapterEntry:
    place = Ledger(making.work / "organisms").adapter(row["id"])
    return AdapterEntry(
        adapter=str(place), id=row["id"], family=family, method=str(row.get("method", ""))
    )


def _recipe(making: Making, name: str, base: str, probes: Path) -> Recipe:
    """The recipe of one signature: gradients at the base; references only set the unit of dose."""
    signature = SIGNATURES[name]
    references = []
    if making.organisms is not None:
        references = [
            _entry(making, row, "+".join(row["domains"]))
            for row in _made(making, "reference")
            if row["teaches"] == signature.misaligned
        ]
    of_base = making.base_id.rpartition("/")[2].lower()
    less = ", less what harmless answers share" if signature.specific else ""
    return Recipe(
        id=f"{of_base}-{name}",
        kind=signature.kind,
        description=f"What makes {signature.kind} answers likelier than aligned ones{less}.",
        base_model=making.base_id,
        base_path=base,
        method="gradients",
        misaligned=references,
        rank=RANK,
        nulled=0,
        probes=str(probes),
        limitations=list(LIMITATIONS),
    )


def _directions(making: Making, name: str, base: str, watching: Watching) -> Path:
    """Builds a signature's pack in the working folder, unless the same one is there."""
    from scanner.signatures.building.build import build_pack

    probes = making.work / f"probes-{name}.jsonl"
    write_probes(name, probes)
    recipe = _recipe(making, name, base, probes)
    check_recipe(recipe, lambda _: f"the recipe of {name}")
    pack, mark = making.work / "packs" / name, making.work / "packs" / f"{name}.recipe"
    wanted = _digest(msgspec.json.encode(recipe), probes.read_bytes())
    if _is_pack(pack) and mark.exists() and mark.read_text() == wanted:
        return pack
    watching.say(f"{name}: directions from the base model and {PROBES} probes")
    shutil.rmtree(pack, ignore_errors=True)
    mark.unlink(missing_ok=True)
    build_pack(recipe, pack, watching.track, kept_gradients=making.work / "gradients")
    mark.write_text(wanted)
    return pack


def _is_pack(path: Path) -> bool:
    """Whether there is a pack that this version can read: an older one may have written it."""
    from scanner.signatures.pack import load_signature

    try:
        load_signature(path).close()
    except SignatureError:
        return False
    return True


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _finish(making: Making, name: str, pack: Path, benign: Benign, watching: Watching) -> Signature:
    """Calibrates a pack and puts a copy of it in its place.

    The one in the working folder keeps the directions that leave harmless families out: they are
    several times the rest, and nothing but calibrating needs them.

    Raises:
        SignatureError: If something that is no pack stands in the way.
    """
    from scanner.signatures.building.calibrate import calibrate_pack
    from scanner.signatures.pack import load_signature
    from scanner.signatures.saving import drop_crossfit

    place = place_of(making, name)
    if place.exists() and not (place / MANIFEST_NAME).exists():
        raise SignatureError("is there already, and is no pack", where=str(place))
    found = making.work / "hub" / name if isinstance(benign, BenignQuery) else None
    calibrated = calibrate_pack(pack, benign, watching.track, found)
    calibrated.close()
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(pack, partial)
    drop_crossfit(partial, calibrated.manifest)
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
    return load_signature(place)
