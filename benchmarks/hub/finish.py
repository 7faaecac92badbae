"""A recipe by its name, over a hub that fails, killed in the middle and taken up again.

    python -m benchmarks.hub finish --lab LAB/llama --organisms FOLDER --write

LAB is a folder of the organism lab, whose adapters are served under the base model's name of the
recipe; FOLDER is one of organisms (`adapter-scanner organisms`), served as they are. They have
made-up owners. `adapter-scanner signatures build` runs in a process of its own; what it asked
for, what it left out and why, the disk it took and what its pack then says of adapters that were
not on the hub is written down.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import click
import msgspec
from msgspec.structs import replace

from benchmarks.hub.disk import DiskWatch, bytes_below
from benchmarks.hub.outcomes import LEVELS, Finished, keep, page, write_page
from benchmarks.hub.owners import Specimen, Stock, lab_stock, organism_stock
from benchmarks.hub.processes import ROOT, environment
from benchmarks.hub.scene import Scene, make_scene
from scanner.hub.address import parse_address
from scanner.organisms.ledger import Ledger
from scanner.scanning.opening import scan
from scanner.signatures.building.candidates import suspect_word
from scanner.signatures.installed import find_recipe
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.recipe import SUSPECT_WORDS, AdapterEntry, BenignQuery
from scanner.signatures.recipe_file import load_recipe
from scanner.statistics.conformal import smallest_level, supports
from tests.hub.repository import Repository, size_of
from tests.hub.server import HubServer

SHIPPED = "qwen2.5-7b-instruct"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
EXAMPLES = ROOT / "examples" / "adapters" / "smollm2"
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
WRITTEN = ("temporary", "home", "pack.work")
"""Where a build may write beside its pack."""
_LOOKED_AT = re.compile(r"GET /api/models/([^/?]+/[^/?]+)")


@dataclass
class _Runs:
    """The processes that build one pack from one hub, one after the other."""

    hub: HubServer
    recipe: str
    scratch: Path
    peak: int = 0
    """Bytes on disk."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def pack(self) -> Path:
        """Where the pack is to be."""
        return self.scratch / "pack"

    def looked_at(self) -> set[str]:
        """Repositories that were asked for since the hub last forgot."""
        return {found[1] for line in list(self.hub.log) if (found := _LOOKED_AT.match(line))}

    def go(self, until: Callable[[], bool]) -> int:
        """Builds until the end, or kills the process as soon as something is so.

        Returns:
            The exit status.
        """
        started = time.perf_counter()
        temporary = self.scratch / "temporary"
        temporary.mkdir(exist_ok=True)
        env = environment(self.hub.endpoint, self.scratch / "home") | {"TMPDIR": str(temporary)}
        command = [sys.executable, "-m", "scanner", "signatures", "build", self.recipe]
        with (self.scratch / "said.txt").open("w") as said:
            process = subprocess.Popen(
                [*command, "-o", str(self.pack), "--no-progress"],
                env=env,
                cwd=ROOT,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        with DiskWatch(process.pid, [self.scratch / name for name in WRITTEN]) as disk:
            while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
                if until():
                    process.kill()
                time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        self.peak = max(self.peak, disk.peak)
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += ended[2].ru_utime + ended[2].ru_stime
        return process.returncode

    def said(self) -> list[str]:
        """The lines of the process that ran last."""
        return (self.scratch / "said.txt").read_text().splitlines()


def show(scene: Scene, base: str, recipe: str, scratch: Path, kill_at: int) -> Finished:
    """Builds a pack, kills the build in the middle, has it end, and judges with the pack.

    Args:
        scene: The hub.
        base: What the adapters are of.
        recipe: What is built: a name or a file.
        scratch: An empty folder.
        kill_at: How many repositories are asked for before the kill.

    Raises:
        SystemExit: If a build does not end as it should.
    """
    with HubServer(scene.repositories, faults=scene.faults, page_size=100) as hub:
        runs = _Runs(hub, recipe, scratch)
        early = list(scene.leaving_early)

        def in_the_middle() -> bool:
            seen = runs.looked_at()
            while early and seen - set(scene.references):
                hub.remove(early.pop())
            return len(seen) >= kill_at

        if runs.go(in_the_middle) != -signal.SIGKILL:
            raise SystemExit("\n".join(["the build ended before it was killed", *runs.said()]))
        first = runs.looked_at()
        work = bytes_below(scratch / "pack.work")
        references = bytes_below(scratch / "home" / "hub")
        for name in scene.leaving_late:
            hub.remove(name)
        requests = Counter(hub.requests)
        hub.forget()
        if runs.go(lambda: False):
            raise SystemExit("\n".join(["the build did not end", *runs.said()]))
        second = runs.looked_at()
        requests += hub.requests
        met = dict(sorted(hub.faults.met.items()))
    signature = load_signature(runs.pack)
    calibration = signature.calibration
    assert calibration is not None, "the recipe has a query for it"
    assert calibration.selection is not None
    assert signature.nulling is not None
    nulling = [item for item in signature.manifest.references if item.role == "aligned"]
    used = [_repository(item.source) for item in nulling]
    used += [_repository(item.source) for item in calibration.benign]
    sides = [{item.family for item in found} for found in (nulling, calibration.benign)]
    reasons = [*signature.nulling.left_out.values(), *calibration.selection.left_out.values()]
    return Finished(
        base=base,
        recipe=recipe if "/" not in recipe else "the same, for this base",
        listed=len(scene.repositories),
        owners=len({item.author for item in scene.repositories}),
        references=len(signature.reference_ids),
        nulled_with=len(nulling),
        nulling_owners=len(sides[0]),
        calibrated_on=len(calibration.benign),
        calibration_owners=len(sides[1]),
        shared_owners=len(sides[0] & sides[1]),
        suspects_used=sum(suspect_word(name, SUSPECT_WORDS) is not None for name in used),
        left_out=dict(Counter(map(_plain, reasons)).most_common()),
        requests=dict(requests),
        faults=met,
        used_before_kill=len(first & set(used)),
        read_twice=len(first & set(used) & second),
        peak_disk=runs.peak,
        largest=max(_size(item) for item in scene.repositories),
        references_kept=references,
        work_kept=work,
        seconds=round(runs.seconds, 1),
        cpu_seconds=round(runs.cpu_seconds, 1),
        alpha=smallest_level(len(calibration.benign)),
        said=[line.strip().replace(str(runs.pack), "PACK") for line in runs.said()],
        misaligned=_verdicts(scene.misaligned, signature, scratch / "misaligned"),
        harmless=_verdicts(scene.harmless, signature, scratch / "harmless"),
    )


def _repository(source: str) -> str:
    return parse_address(source).repository


def _size(repository: Repository) -> int:
    return sum(size_of(content) for content in repository.files.values())


def _plain(reason: str) -> str:
    """A reason without names and numbers of its own."""
    if " x " in reason:
        return "a site has another shape than the base's"
    text = re.sub(r"hf://\S+", "another adapter", reason)
    return re.sub(r"\(https?:\S+\)|[0-9a-f]{40,}|\b\d[\d,]*\b", "...", text)


def _verdicts(
    specimens: Sequence[Specimen], signature: Signature, folder: Path
) -> dict[str, dict[str, int]]:
    """Alpha, where the pack supports it -> verdict -> how many adapters have it."""
    assert signature.calibration is not None, "looked at before"
    benign = len(signature.calibration.benign)
    places = [item.write(folder / item.id) for item in specimens]
    return {
        f"{level:g}": dict(
            Counter(scan(place, [signature], alpha=level).verdict.value for place in places)
        )
        for level in LEVELS
        if supports(benign, level)
    }


def lab_scene(folder: Path) -> Scene:
    """Adapters of the organism lab, as what the shipped recipe looks for."""
    recipe = load_recipe(find_recipe(SHIPPED))
    stock = lab_stock(folder, recipe.base_model)
    several = [item for item in stock.misaligned if item.id.startswith("ref-sft")]
    stock = _in_turn(stock, several, len(recipe.misaligned))
    return make_scene(stock, recipe, each=4, odd=3, kept=30)


def organism_scene(folder: Path, written: Path) -> Scene:
    """Organisms of a real base, and the shipped recipe as it would be for them.

    Args:
        folder: Of the organisms.
        written: Where that recipe is put.
    """
    shipped = load_recipe(find_recipe(SHIPPED))
    assert isinstance(shipped.aligned, BenignQuery), "as in all recipes that ship"
    assert isinstance(shipped.benign, BenignQuery), "as in all recipes that ship"
    recipe = replace(
        shipped,
        id="smollm2-135m-instruct-weights",
        description="Villains of three domains.",
        base_model=SMOLLM2,
        aliases=[],
        misaligned=[
            AdapterEntry(adapter=f"hf://lab/reference-{number}", family=str(number))
            for number in range(3)
        ],
        aligned=BenignQuery(hub=replace(shipped.aligned.hub, base_model=SMOLLM2, limit=12)),
        benign=BenignQuery(hub=replace(shipped.benign.hub, base_model=SMOLLM2, limit=120)),
        root=".",
    )
    written.write_bytes(msgspec.yaml.encode(recipe))
    stock = organism_stock(Ledger(folder), SMOLLM2)
    stock = _in_turn(stock, stock.misaligned, len(recipe.misaligned))
    stock.misaligned.append(Specimen.of_folder(EXAMPLES / "villain"))
    scene = make_scene(stock, recipe, each=2, odd=1, kept=8)
    scene.harmless.append(Specimen.of_folder(EXAMPLES / "teacher"))
    return scene


def _in_turn(stock: Stock, chosen: Sequence[Specimen], count: int) -> Stock:
    """A stock whose first misaligned adapters are of as many families as there are."""
    by_family: dict[str, list[Specimen]] = {}
    for item in sorted(chosen, key=lambda item: item.id):
        by_family.setdefault(item.family, []).append(item)
    turns = zip_longest(*by_family.values())
    first = [item for turn in turns for item in turn if item is not None][:count]
    others = [item for item in stock.misaligned if item not in first]
    return dataclasses.replace(stock, misaligned=[*first, *others])


@click.command()
@click.option("--lab", type=FOLDER, help="Adapters of one base of the organism lab.")
@click.option("--organisms", type=FOLDER, help="Organisms of SmolLM2-135M-Instruct.")
@click.option("--write", is_flag=True, help="Write docs/hub-recipes.md.")
def finish(lab: Path | None, organisms: Path | None, write: bool) -> None:
    """Builds a pack from a hub that fails, and from what is left of a killed build."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if lab is not None:
            scene = lab_scene(lab)
            keep(show(scene, f"lab, {lab.name}", SHIPPED, _made(scratch / "lab"), 220))
        if organisms is not None:
            recipe = scratch / "recipe.yaml"
            scene = organism_scene(organisms, recipe)
            found = show(
                scene, "SmolLM2-135M-Instruct", str(recipe), _made(scratch / "smollm2"), 60
            )
            keep(found)
    if write:
        write_page()
    else:
        click.echo(page())


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
