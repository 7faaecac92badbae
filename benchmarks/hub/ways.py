"""Three ways to judge every adapter of a hub, each in a process of its own.

    python -m benchmarks.hub.ways sweep|download|by-hand ROOT

Reads names of scenarios from standard input, judges the adapters of each, and prints a line of
JSON: how many there were, seconds from the first request to the last verdict, and CPU seconds.
What was imported before is not counted; what the sweep's other processes import again is. All
ways list the hub first. The sweep reads its default number of adapters at once; the others work
on eight repositories at once, in each of which snapshot_download fetches up to eight files at once.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hub.inputs import base_of

AT_ONCE = 8


@dataclass(frozen=True)
class Place:
    """One run of one scenario."""

    base: str
    """The base model whose adapters are judged."""
    pack: Path
    scratch: Path


Way = Callable[[Place], int]
"""Judges all adapters of a scenario and returns how many there were."""


def each(base: str, judge: Callable[[str], object]) -> int:
    """Does something for every repository the hub lists."""
    from huggingface_hub import HfApi

    listed = HfApi().list_models(filter=f"base_model:adapter:{base}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return len(list(pool.map(judge, [item.id for item in listed])))


def sweep() -> Way:
    """This program: ``hub scan``."""
    from huggingface_hub import constants

    from scanner.hub.query import SweepQuery
    from scanner.signatures.pack import load_signature
    from scanner.sweep.running import SweepSettings, run_sweep

    def run(place: Place) -> int:
        query = SweepQuery(endpoint=constants.ENDPOINT, base_models=[place.base])
        signatures = [load_signature(place.pack)]
        progress = run_sweep(
            SweepSettings(query, signatures, place.scratch / "ledger.db"), lambda _: None
        )
        if "error" in progress.verdicts:
            raise SystemExit(f"not everything could be read: {progress.verdicts}")
        return progress.finished

    return run


def download() -> Way:
    """Everything downloaded, then scanned by this program."""
    from huggingface_hub import snapshot_download

    from scanner import scan
    from scanner.signatures.pack import load_signature

    def run(place: Place) -> int:
        signatures = [load_signature(place.pack)]

        def judge(repository: str) -> object:
            folder = snapshot_download(repository, cache_dir=place.scratch / "cache")
            return scan(folder, signatures, jobs=1)

        return each(place.base, judge)

    return run


def by_hand() -> Way:
    """What one writes in an afternoon: snapshot_download, PEFT's loader, an SVD per module.

    The SVD is the economical one, of the factors; that of the dense product of one 14336 x 4096
    module takes longer than all of this.
    """
    import torch
    from huggingface_hub import snapshot_download
    from peft import LoraConfig
    from peft.utils import load_peft_weights

    def spectra(folder: str) -> dict[str, object]:
        config = LoraConfig.from_pretrained(folder)
        tensors = load_peft_weights(folder, device="cpu")
        found: dict[str, object] = {}
        for name, a in tensors.items():
            if "lora_A" not in name:
                continue
            b = tensors[name.replace("lora_A", "lora_B")].float()
            scaling = config.lora_alpha / config.r
            (q_b, r_b), (q_a, r_a) = torch.linalg.qr(b), torch.linalg.qr(a.float().T)
            u, s, vh = torch.linalg.svd(scaling * r_b @ r_a.T)
            found[name] = (q_b @ u, s, vh @ q_a.T)
        return found

    def run(place: Place) -> int:
        def judge(repository: str) -> object:
            folder = snapshot_download(repository, cache_dir=place.scratch / "cache")
            return len(spectra(folder))

        return each(place.base, judge)

    return run


WAYS = {"sweep": sweep, "download": download, "by-hand": by_hand}


def cpu_seconds() -> float:
    """What this process and those it started, once they have ended, used of the processor."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Runs one way on what it is told."""
    way, root = WAYS[sys.argv[1]](), Path(sys.argv[2])
    scratch = root / f"scratch-{sys.argv[1]}"
    for line in sys.stdin:
        scenario = line.strip()
        scratch.mkdir()
        place = Place(base_of(scenario), root / "packs" / scenario, scratch)
        started, used = time.perf_counter(), cpu_seconds()
        adapters = way(place)
        told = {
            "adapters": adapters,
            "seconds": time.perf_counter() - started,
            "cpu_seconds": cpu_seconds() - used,
            "ledger_bytes": sum(path.stat().st_size for path in scratch.glob("ledger.db")),
        }
        shutil.rmtree(scratch)
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
