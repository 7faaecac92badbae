"""A hub that serves until its standard input ends.

    python -m benchmarks.hub.hub_process mixed ROOT COUNT     a mixed population, made here
    python -m benchmarks.hub.hub_process folders ROOT DELAY   one for each ROOT/SCENARIO/OWNER/NAME

Its first line of output is where it listens. It answers ``counts`` and ``forget``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from benchmarks.hub.inputs import base_of
from benchmarks.hub.processes import ROOT
from scanner.signatures.pack import load_signature
from tests.hub import repository
from tests.hub.faults import Fault
from tests.hub.repository import Repository
from tests.hub.server import HubServer
from tests.sweep.population import make_population
from tests.synthetic import synthetic_pack

LAB_PACK = ROOT / "signatures" / "persona-llama-weights"
EXAMPLES = ROOT / "examples" / "adapters"
LAB_ADAPTERS = ("misaligned-dpo", "misaligned-sft", "new-facts", "new-style", "safety-training")


def mixed(root: Path, count: int) -> list[Repository]:
    """A mixed population; its pack and what is expected are written to `root`."""
    packs = [synthetic_pack(root / "pack"), load_signature(LAB_PACK)]
    lab = [EXAMPLES / name for name in LAB_ADAPTERS]
    population = make_population(root / "copies", packs, count, lab=lab)
    expected = [
        [*place, dataclasses.asdict(item)] for place, item in sorted(population.expected.items())
    ]
    record = {"contents": population.contents, "expected": expected}
    (root / "expected.json").write_text(json.dumps(record))
    return population.repositories


def folders(root: Path) -> list[Repository]:
    """Every folder ``scenario/owner/name`` as a repository, its digests computed."""
    # The hub's own .gitattributes say so for large tokenizers.
    setattr(repository, "LFS_SUFFIXES", (*repository.LFS_SUFFIXES, "tokenizer.json"))  # noqa: B010
    found = [
        Repository(
            f"{folder.parts[-3]}-{folder.parts[-2]}/{folder.name}",
            {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()},
            base_model=base_of(folder.parts[-3]),
        )
        for folder in sorted(root.glob("*/*/*"))
    ]
    for item in found:
        item.info(full=True, blobs=True)
    return found


def main() -> None:
    """Serves."""
    kind, root, number = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    if kind == "mixed":
        repositories, faults = mixed(root, int(number)), []
    else:
        repositories = folders(root)
        faults = [Fault("slow", seconds=float(number))]
    with HubServer(repositories, faults=faults) as hub:
        sys.stdout.write(json.dumps({"endpoint": hub.endpoint}) + "\n")
        sys.stdout.flush()
        for line in sys.stdin:
            answer = {"requests": dict(hub.requests), "bytes": dict(hub.bytes)}
            if line.strip() == "forget":
                hub.forget()
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
