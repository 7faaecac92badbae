"""Three ways to judge every adapter of a hub, each in a process of its own.

    python -m benchmarks.hub.ways sweep|download|by-hand PACK SCRATCH

Prints seconds from the first request to the last verdict, imports not counted, and how many
adapters there were. All ways list the hub first. The sweep reads its default number of adapters
at once; the others work on eight repositories at once, in each of which snapshot_download fetches
up to eight files at once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.speed.inputs import LLAMA_8B

AT_ONCE = 8


def repositories() -> list[str]:
    """What the hub lists of the base model's adapters."""
    from huggingface_hub import HfApi

    return [item.id for item in HfApi().list_models(filter=f"base_model:adapter:{LLAMA_8B.name}")]


def each(judge: Callable[[str], object]) -> int:
    """Does something for every repository."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return len(list(pool.map(judge, repositories())))


def sweep(pack: Path, scratch: Path) -> Callable[[], int]:
    """This program: ``hub scan``."""
    from huggingface_hub import constants

    from scanner.hub.records import SweepQuery
    from scanner.hub.running import SweepSettings, run_sweep
    from scanner.signatures.pack import load_signature

    query = SweepQuery(endpoint=constants.ENDPOINT, base_models=[LLAMA_8B.name])
    settings = SweepSettings(query, [load_signature(pack)], scratch / "ledger.db")

    def run() -> int:
        progress = run_sweep(settings, lambda _: None)
        if progress.verdicts.get("clear", 0) + progress.verdicts.get("flagged", 0) == 0:
            raise SystemExit(f"nothing was judged: {progress.verdicts}")
        return progress.finished

    return run


def download(pack: Path, scratch: Path) -> Callable[[], int]:
    """Everything downloaded, then scanned by this program."""
    from huggingface_hub import snapshot_download

    from scanner import scan
    from scanner.signatures.pack import load_signature

    signatures = [load_signature(pack)]

    def judge(repository: str) -> object:
        folder = snapshot_download(repository, cache_dir=scratch / "cache")
        return scan(folder, signatures, jobs=1)

    return lambda: each(judge)


def by_hand(pack: Path, scratch: Path) -> Callable[[], int]:
    """What one writes in an afternoon: snapshot_download, PEFT's loader, an SVD per module.

    The SVD is the economical one, of the factors; that of the dense product of one 14336 x 4096
    module takes longer than all of this.
    """
    del pack
    import torch
    from huggingface_hub import snapshot_download
    from peft import LoraConfig
    from peft.utils import load_peft_weights

    def judge(repository: str) -> object:
        folder = snapshot_download(repository, cache_dir=scratch / "cache")
        config = LoraConfig.from_pretrained(folder)
        tensors = load_peft_weights(folder, device="cpu")
        spectra = {}
        for name, a in tensors.items():
            if "lora_A" not in name:
                continue
            b = tensors[name.replace("lora_A", "lora_B")].float()
            scaling = config.lora_alpha / config.r
            (q_b, r_b), (q_a, r_a) = torch.linalg.qr(b), torch.linalg.qr(a.float().T)
            u, s, vh = torch.linalg.svd(scaling * r_b @ r_a.T)
            spectra[name] = (q_b @ u, s, vh @ q_a.T)
        return spectra.keys()

    return lambda: each(judge)


WAYS = {"sweep": sweep, "download": download, "by-hand": by_hand}


def main() -> None:
    """Runs one way."""
    run = WAYS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    started, used = time.perf_counter(), time.process_time()
    adapters = run()
    seconds, used = time.perf_counter() - started, time.process_time() - used
    ledger = Path(sys.argv[3]) / "ledger.db"
    told = {
        "seconds": seconds,
        "cpu_seconds": used,
        "adapters": adapters,
        "ledger_bytes": ledger.stat().st_size if ledger.exists() else 0,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
