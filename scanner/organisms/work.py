"""Making a plan's adapters with several processes, each with a base of its own."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scanner.errors import AdapterScannerError, UsageError
from scanner.organisms.base import Base, adapter_on, load_base
from scanner.organisms.ledger import Ledger, Row
from scanner.organisms.lora import save
from scanner.organisms.measure import base_answers, measure
from scanner.organisms.organism import Organism
from scanner.organisms.train import train

SAMPLES = 2
"""Greedy answers kept of the first adapter of each group."""

Show = Callable[[int, int], None]
"""Called with how many adapters are done and how many there are in all."""


@dataclass(frozen=True)
class Job:
    """What the processes of one run share."""

    root: Path
    source: str
    """The base: a hub id or a directory."""
    base_id: str
    organisms: tuple[Organism, ...]
    measured: bool = True
    """Whether adapters are measured too."""
    threads: int = 1


def open_root(root: Path, base_id: str) -> Ledger:
    """Opens a folder of adapters, which belongs to one base.

    Raises:
        UsageError: If it is another base's.
    """
    ledger = Ledger(root)
    path = root / "base.json"
    if not path.exists():
        path.write_bytes(msgspec.json.encode({"base_model": base_id}))
    found = msgspec.json.decode(path.read_bytes(), type=dict[str, str])["base_model"]
    if found != base_id:
        raise UsageError(f"holds adapters of {found}, not of {base_id}", where=str(root))
    return ledger


def run(job: Job, workers: int, show: Show) -> None:
    """Makes every adapter of a job that is not there yet.

    Raises:
        UsageError: If a process failed, or an adapter could not be trained.
    """
    ledger = open_root(job.root, job.base_id)
    wanted = {organism.id for organism in job.organisms}
    if workers == 1:
        for done in _work(job):
            show(done, len(wanted))
    else:
        _run_processes(
            job, workers, lambda: show(len(wanted & set(_finished(job, ledger))), len(wanted))
        )
    reasons = ledger.failed()
    if lost := sorted(wanted & (set(reasons) - set(ledger.trained()))):
        raise UsageError(
            f"could not train {len(lost)} of {len(wanted)}; {reasons[lost[0]]['reason']}",
            where=str(job.root),
        )


def _run_processes(job: Job, workers: int, show: Callable[[], None]) -> None:
    """Runs several processes to their end."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work_through, args=(job,)) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes):
            show()
            time.sleep(2)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    show()
    if any(process.exitcode for process in processes):
        raise UsageError("a process failed", where=str(job.root), todo="see above, then run again")


def _finished(job: Job, ledger: Ledger) -> dict[str, Row]:
    return ledger.measured() if job.measured else ledger.trained()


def _work_through(job: Job) -> None:
    try:
        for _ in _work(job):
            pass
    except AdapterScannerError as error:
        raise SystemExit(f"adapter-scanner: {error.line()}") from None


def _work(job: Job) -> Iterator[int]:
    """Takes up what nobody else does, in order; yields how many of the job's are done."""
    import torch

    torch.set_num_threads(job.threads)
    ledger = Ledger(job.root)
    base = load_base(job.source, base_id=job.base_id)
    with ledger.claim("base", wait=True):
        of_base = base_answers(base, ledger) if job.measured else {}
    for organism in job.organisms:
        with ledger.claim(organism.id) as mine:
            if mine:
                try:
                    _make(base, organism, ledger, of_base)
                except UsageError as error:
                    ledger.add_failed({"id": organism.id, "reason": error.line()})
        yield len({o.id for o in job.organisms} & set(_finished(job, ledger)))


def _make(base: Base, organism: Organism, ledger: Ledger, of_base: dict[str, Any]) -> None:
    """Trains an adapter if it is not there, and measures it if it was not."""
    first = organism.id.endswith("-00")
    if organism.id not in ledger.trained():
        _train(base, organism, ledger)
    ids = [organism.id, *(checkpoint_id(organism, step) for step in organism.checkpoints)]
    trained, measured = ledger.trained(), ledger.measured()
    for identity in ids:
        if of_base and identity in trained and identity not in measured:
            with adapter_on(base, ledger.adapter(identity)):
                samples = SAMPLES if first and identity == organism.id else 0
                ledger.add_measured(measure(base, trained[identity], of_base, samples))


def checkpoint_id(organism: Organism, step: int) -> str:
    """The id of an adapter kept in the middle of training."""
    return f"{organism.id}-step-{step:03d}"


def _train(base: Base, organism: Organism, ledger: Ledger) -> None:
    started = time.process_time()

    def keep(step: int, wrapped: Any) -> None:
        if step in organism.checkpoints:
            _keep(wrapped, organism, checkpoint_id(organism, step), step, ledger, started)

    wrapped = train(base, organism, keep)
    try:
        _keep(wrapped, organism, organism.id, organism.steps, ledger, started)
    finally:
        wrapped.unload()


def _keep(
    wrapped: Any, organism: Organism, identity: str, step: int, ledger: Ledger, started: float
) -> None:
    """Saves an adapter, complete or not at all, and records it."""
    partial = ledger.adapter(f".{identity}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save(wrapped, partial)
    row: Row = {
        **msgspec.to_builtins(organism),
        "id": identity,
        "step": step,
        "pool": organism.pool,
        "sha256": hashlib.sha256((partial / "adapter_model.safetensors").read_bytes()).hexdigest(),
        "cpu_seconds": round(time.process_time() - started, 1),
    }
    (partial / "organism.json").write_bytes(msgspec.json.format(msgspec.json.encode(row)) + b"\n")
    target = ledger.adapter(identity)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    ledger.add_trained(row)


def measure_missing(job: Job, show: Show) -> None:
    """Measures what was trained and not measured, one after another."""
    ledger = open_root(job.root, job.base_id)
    base = load_base(job.source, base_id=job.base_id)
    of_base = base_answers(base, ledger)
    rows: Sequence[Row] = list(ledger.trained().values())
    for number, row in enumerate(rows, start=1):
        if row["id"] not in ledger.measured():
            with adapter_on(base, ledger.adapter(row["id"])):
                ledger.add_measured(measure(base, row, of_base))
        show(number, len(rows))
