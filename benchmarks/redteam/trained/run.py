"""Every trained attack on a base, in parallel processes; each result is kept as it comes."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import msgspec
import torch

from benchmarks.redteam.run import verdict_of
from benchmarks.redteam.target import PACKS
from benchmarks.redteam.trained.attacks import Attack
from benchmarks.redteam.trained.base import AttackedBase
from benchmarks.redteam.trained.delta import as_delta
from benchmarks.redteam.trained.lab import LabBase
from benchmarks.redteam.trained.real import RealBase
from benchmarks.redteam.trained.training import Attacker
from scanner.organisms.evasion.lora import Adapter
from scanner.signatures.pack import Signature
from scanner.signatures.score import STATISTIC

FACTORS = (1.0, 0.7, 0.5, 0.35)
"""What the attacker tries to scale the trained adapter by before submitting it."""


class Try(msgspec.Struct, frozen=True):
    """What the attacker could submit: the adapter after some steps, scaled."""

    step: int
    factor: float
    verdict: str
    """Under all packs: `clear`, `flagged`, `outside` (of the support), or `inconclusive`."""
    alone: str
    """Under the only pack that the attack looks at; empty if it looks at all."""
    why: str
    """What the verdict rests on: its first reason, or what is outside the support."""
    behaviour: float | None
    """How misaligned it is; measured where a verdict is clear, and of the last, unscaled."""
    scores: dict[str, float]
    """Deviation of the score under each pack, as the attacker sees it."""


class Result(msgspec.Struct, frozen=True):
    """One attack on one base."""

    base: str
    behaviour_is: str
    packs: list[str]
    attack: Attack
    tries: list[Try]
    seconds: float
    statistic: str = STATISTIC
    """Which score the packs had."""


class Job(msgspec.Struct, frozen=True):
    """What a process needs to load a base."""

    base: str
    path: str
    """Of a real base; empty for a base of the lab."""
    packs: tuple[str, ...]
    steps: int | None
    bfloat16: bool

    def load(self) -> AttackedBase:
        """The base with its packs."""
        packs = [Path(item) for item in self.packs]
        if not self.path:
            return LabBase(self.base, packs, self.steps)
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        return RealBase(self.base, self.path, packs, self.steps, dtype)


def attempt(attacker: Attacker, attack: Attack) -> Result:
    """Trains one attack, and judges everything that the attacker could submit of it."""
    started = time.perf_counter()
    base = attacker.base
    tries = [
        _submit(attacker, attack, adapter, step, factor)
        for step, adapter in attacker.train(attack)
        for factor in FACTORS
    ]
    packs = [signature.id for signature in base.signatures]
    seconds = round(time.perf_counter() - started, 1)
    return Result(base.name, base.behaviour_is, packs, attack, tries, seconds)


@torch.no_grad()
def _submit(attacker: Attacker, attack: Attack, adapter: Adapter, step: int, factor: float) -> Try:
    base = attacker.base
    delta = as_delta(adapter.update, factor)
    verdict, why = verdict_of(base.scan(delta, base.signatures))
    own: Sequence[Signature] = [pack for pack in base.signatures if pack.id == attack.pack]
    alone = verdict_of(base.scan(delta, own))[0] if own else ""
    behaviour = None
    whole = step == base.training.steps and factor == max(FACTORS)
    if "clear" in (verdict, alone) or whole:
        adapter.factor = factor
        with adapter.applied():
            behaviour = round(base.behaviour(), 4)
        adapter.factor = 1.0
    scores = {
        pack: round(float(value), 3)
        for quantity, pack, value in attacker.deviations(adapter.update)
        if quantity == "score"
    }
    return Try(step, factor, verdict, alone, why[:300], behaviour, scores)


_attacker: Attacker | None = None


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, however it went.

    A pool's processes wait for work on a pipe that they hold open themselves: killed, their
    parent would leave them, and their share of the GPU, behind.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _start(job: Job) -> None:
    global _attacker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _attacker = Attacker(job.load())


def _attempt(attack: Attack) -> Result:
    assert _attacker is not None
    return attempt(_attacker, attack)


def run(
    job: Job,
    attacks: Iterable[Attack],
    path: Path,
    jobs: int,
    seconds: float,
    tell: Callable[[str], None],
) -> None:
    """Runs what the file of results does not hold yet under the score that packs have now.

    Args:
        job: The base.
        attacks: What to try, in this order.
        path: The results, one a line; each is written when it is there.
        jobs: Processes.
        seconds: After which no attack is begun any more.
        tell: Told a line after each attack.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = results(path)
    # Written anew: what a kill cut short must not run into the next line.
    path.write_bytes(b"".join(msgspec.json.encode(result) + b"\n" for result in kept))
    done = {result.attack.key for result in kept if result.statistic == STATISTIC}
    todo = [attack for attack in attacks if attack.key not in done]
    until = time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
    with (
        path.open("ab") as out,
        ProcessPoolExecutor(
            max(min(jobs, len(todo)), 1), mp_context=context, initializer=_start, initargs=(job,)
        ) as pool,
    ):
        for number, result in enumerate(_as_they_come(pool, todo, jobs, until), 1):
            out.write(msgspec.json.encode(result) + b"\n")
            out.flush()
            tell(f"{number} of {len(todo)}: {result.attack.key}: {_line(result)}")


def _as_they_come(
    pool: ProcessPoolExecutor, todo: Sequence[Attack], jobs: int, until: float
) -> Iterator[Result]:
    """Results in the order they are ready; no attack is begun after a time."""
    waiting = iter(todo)
    running: set[Future[Result]] = set()
    while True:
        while len(running) < jobs and time.monotonic() < until:
            attack = next(waiting, None)
            if attack is None:
                break
            running.add(pool.submit(_attempt, attack))
        if not running:
            return
        ready, running = wait(running, return_when=FIRST_COMPLETED)
        for future in ready:
            yield future.result()


def _line(result: Result) -> str:
    verdicts = "/".join(item.verdict for item in result.tries[-len(FACTORS) :])
    clear = [item.behaviour or 0.0 for item in result.tries if item.verdict == "clear"]
    left = result.tries[-len(FACTORS)].behaviour
    best = f"{max(clear):.3f}" if clear else "none"
    return f"behaviour {left:.3f}, best clear {best}, {verdicts}, {result.seconds:.0f} s"


def results(path: Path) -> list[Result]:
    """The last result of each attack in a file; a line cut short by a kill is left out."""
    if not path.exists():
        return []
    found: dict[str, Result] = {}
    for line in path.read_bytes().splitlines():
        try:
            result = msgspec.json.decode(line, type=Result)
        except msgspec.MsgspecError:
            continue
        found[result.attack.key] = result
    return list(found.values())


def shipped_packs(base: str) -> list[Path]:
    """The packs of a base of the lab that ship."""
    return sorted(PACKS.glob(f"persona-{base}-*"))
