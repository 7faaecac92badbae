"""What the ledger takes on disk, and what a report of it takes."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import numpy as np

from benchmarks.hub.results import LedgerSize, read_results, write_results
from scanner.hub.query import ListedRepository, SweepQuery
from scanner.hub.snapshot import HubFile
from scanner.results import (
    CalibrationSummary,
    Comparison,
    Coverage,
    DoseUnit,
    FamilyComparison,
    NearestReference,
    ScanResult,
    Shape,
    SignatureSummary,
    SiteResult,
    Support,
    Verdict,
)
from scanner.sweep.compact import compact
from scanner.sweep.ledger import Ledger
from scanner.sweep.ledger_rows import LedgerRows
from scanner.sweep.records import FoundAdapter, Judge, Judgement, target_of
from scanner.sweep.report import population

LAYERS = 32
MODULES = tuple(f"self_attn.{name}_proj" for name in "qkvo") + tuple(
    f"mlp.{name}_proj" for name in ("gate", "up", "down")
)
PACKS = ("hostile", "reckless")
FAMILIES = 12
COPIES = 0.2
"""Share of the repositories that hold what another one holds; as in the scenario "typical"."""
_PAGE = 500
_SUMMARIES = [
    SignatureSummary(
        id=name,
        digest="0" * 64,
        base_model="meta-llama/Llama-3.1-8B-Instruct",
        method="gradients",
        calibration=CalibrationSummary(
            n=180,
            families=FAMILIES,
            cross_fitted_by="family",
            smallest_alpha=1 / 181,
            benign_doses=[0.002 * number - 0.18 for number in range(180)],
        ),
    )
    for name in PACKS
]


def made_up_result(target: str, generator: np.random.Generator) -> ScanResult:
    """The result of an adapter of an 8B model under two packs, its numbers drawn at random."""
    flagged = generator.random() < 0.05
    sites = [
        SiteResult(
            layer=layer,
            module=module,
            rank=16,
            norm=float(generator.lognormal(-1.0, 0.5)),
            dose=float(generator.normal(0.0, 3e-3)),
            cosine=float(generator.normal(0.0, 0.02)),
            overlap=float(generator.beta(1.0, 50.0)),
        )
        for layer in range(LAYERS)
        for module in MODULES
    ]
    doses = {name: float(generator.normal(0.9 if flagged else 0.0, 0.1)) for name in PACKS}
    as_high = 0 if flagged else int(generator.integers(1, 180))
    return ScanResult(
        target=target,
        verdict=Verdict.FLAGGED if flagged else Verdict.CLEAR,
        base_model="meta-llama/Llama-3.1-8B-Instruct",
        format="peft-lora",
        sha256=generator.bytes(32).hex(),
        config_sha256=generator.bytes(32).hex(),
        score=float(generator.normal()),
        p_value=(as_high + 1) / 181,
        alpha=0.01,
        comparison=Comparison(
            n=180,
            as_high=as_high,
            threshold=0.2137461,
            shape=Shape.SEVERAL_LAYERS,
            families=[
                FamilyComparison(name=f"family-{number}", n=15, as_high=as_high // FAMILIES)
                for number in range(FAMILIES)
            ],
        ),
        support=Support(inside=True),
        decided_by=PACKS[0],
        dose=doses,
        dose_unit=DoseUnit.REFERENCE,
        cosine={name: float(generator.normal(0.0, 0.05)) for name in PACKS},
        overlap={name: float(generator.beta(1.0, 20.0)) for name in PACKS},
        nearest_reference=NearestReference(id="bad-medical-advice", cosine=0.318241),
        coverage=Coverage(sites=len(sites), covered_sites=len(sites), uncovered=[]),
        sites=sites,
        reasons=["no overlap with known misalignment directions beyond that of benign adapters"],
    )


def _judged(task: Judge, generator: np.random.Generator) -> Judgement:
    target = target_of(task.repository, task.revision, task.subfolder)
    result = made_up_result(target, generator)
    return Judgement(
        key=task.key,
        verdict=result.verdict,
        base_model=result.base_model,
        score=result.score,
        dose=result.deciding_dose,
        cosine=result.deciding_cosine,
        p_value=result.p_value,
        reason=result.reasons[0],
        result=compact(result),
    )


def _found(count: int, generator: np.random.Generator) -> Iterator[FoundAdapter]:
    """What is in each repository: most often something new, else what an earlier one holds."""
    contents: list[str] = []
    for _ in range(count):
        if contents and generator.random() < COPIES:
            content = contents[int(generator.integers(len(contents)))]
        else:
            content = generator.bytes(32).hex()
            contents.append(content)
        files = [HubFile("adapter_model.safetensors", 21_000_000, content, content[:40])]
        yield FoundAdapter(subfolder="", content=content, files=files)


def fill(path: Path, count: int, seed: int = 0) -> None:
    """Writes a ledger of made-up adapters, through the same calls as a sweep's."""
    generator = np.random.default_rng(seed)
    found = _found(count, generator)
    query = SweepQuery(endpoint="https://huggingface.co", base_models=["meta-llama/Llama-3.1-8B"])
    with Ledger(path) as ledger:
        ledger.begin(query, generator.bytes(32).hex(), _SUMMARIES, None, resume=False)
        for start in range(0, count, _PAGE):
            names = [
                ListedRepository(
                    name=f"owner-{number % 997:03d}/llama-3.1-8b-lora-{number:07d}",
                    revision=generator.bytes(20).hex(),
                )
                for number in range(start, min(start + _PAGE, count))
            ]
            with ledger.batch():
                ledger.add_page(names, None, finished=start + _PAGE >= count)
                for lookup in ledger.waiting().lookups(_PAGE, set()):
                    ledger.looked_up(lookup.key, [next(found)])
                for task in ledger.waiting().judgements(_PAGE, set()):
                    ledger.judged(_judged(task, generator))


def measured(count: int) -> LedgerSize:
    """Fills a ledger and makes the population page of it."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "ledger.db"
        fill(path, count)
        started = time.process_time()
        with LedgerRows(path) as rows:
            adapters = sum(1 for _ in rows.adapters())
            population(rows)
        return LedgerSize(
            adapters=adapters,
            sites=LAYERS * len(MODULES),
            ledger_bytes=path.stat().st_size,
            summary_cpu_seconds=time.process_time() - started,
        )


@click.command("ledger")
@click.option("--count", default=10_000, show_default=True, help="Adapters.")
@click.option("--write", is_flag=True, help="Keep what was measured in results.json.")
def ledger(count: int, write: bool) -> None:
    """Measures what the ledger takes on disk."""
    found = measured(count)
    each = found.ledger_bytes / found.adapters
    sys.stdout.write(
        f"{found.adapters:,} adapters with {found.sites} sites each: "
        f"{found.ledger_bytes / 1e6:,.1f} MB, {each / 1e3:.2f} kB each, "
        f"{each * 1e6 / 1e9:.2f} GB for a million; "
        f"population page: {found.summary_cpu_seconds:.1f} s of CPU\n"
    )
    if write:
        write_results(msgspec.structs.replace(read_results(), ledger=found))
