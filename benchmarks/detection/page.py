"""The pages of one run as Markdown: one that a person reads, and one with every table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.detection import figures, goals, summary, tables
from benchmarks.detection.run import BaseResult, Choices
from benchmarks.detection.text import (
    CALIBRATION,
    CHOICE,
    CROSS_METHOD,
    DEFINITIONS,
    DOMAINS,
    DOSE,
    EARLY,
    INNOCENT,
    INTRODUCTION,
    NEEDED,
    READINGS,
    THEIRS,
    UNSEEN,
    VARIANTS,
)

COMBINATIONS_SHOWN = 8


def write(path: Path, command: str, results: Sequence[BaseResult], shipped_rule: str = "") -> None:
    """Writes the two pages and their figures.

    Args:
        path: The page to read; its tables go to a page beside it whose name ends in `-tables`,
            figures to `figures/`.
        command: What was run.
        results: One per base.
        shipped_rule: What `rule.section` says of the packs that ship; nothing to leave it out.
    """
    folder = path.parent / "figures"
    stem = path.stem
    figures.roc(results, folder / f"{stem}-roc.svg")
    figures.dose(results, folder / f"{stem}-dose.svg")
    runs = [(result.population.name, run) for result in results for run in result.runs]
    figures.early_warning(runs, folder / f"{stem}-early-warning.svg")
    parts = [
        INTRODUCTION.format(command=command, summary=path.name),
        "## Goals\n",
        tables.table(
            ["base", "goal", "figure", ""],
            goals.rows([goal for result in results for goal in goals.check(result)]),
            text=4,
        ),
        "\n## The adapters\n",
        tables.populations([result.population for result in results]),
        DEFINITIONS,
        _per_base(
            "## Choices made without the test split",
            CHOICE,
            results,
            lambda r: _choices(r.choices),
        ),
        _ranking(results),
        _per_base(
            "## Calibrated flags", CALIBRATION, results, lambda r: tables.operating(r.operating)
        ),
        _per_base(
            "### By what the score is made of",
            READINGS,
            results,
            lambda r: tables.readings(r.readings),
        ),
        f"\n{shipped_rule}" if shipped_rule else "",
        _per_base("### By domain", DOMAINS, results, lambda r: tables.domains(r.domains)),
        _per_base(
            "## Across training methods",
            CROSS_METHOD,
            results,
            lambda r: tables.across(r.across, r.ours[0].name),
        ),
        _per_base(
            "## Harmless personas never seen", UNSEEN, results, lambda r: tables.unseen(r.unseen)
        ),
        _per_base(
            "## Safety training and good answers",
            INNOCENT,
            results,
            lambda r: tables.innocents(r.innocents),
        ),
        _per_base("## Dose", DOSE, results, lambda r: tables.doses(r.doses)),
        _early(results),
        _needed(results),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = tables_page(path)
    beside.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    path.write_text(summary.page(command, results, stem, beside.name), encoding="utf-8")


def tables_page(path: Path) -> Path:
    """Where the tables behind a page are."""
    return path.with_name(f"{path.stem}-tables.md")


def _per_base(
    title: str, text: str, results: Sequence[BaseResult], show: Callable[[BaseResult], str]
) -> str:
    parts = [f"\n{title}\n", text]
    for result in results:
        parts += [f"\n**{result.population.name}**\n", show(result)]
    return "\n".join(parts)


def _choices(choices: Choices) -> str:
    chosen = "\n".join(
        f"- {detector.name}: {tables.describe(detector)}" for detector in choices.detectors
    )
    shown = tables.choices(choices.examined, choices.combinations, COMBINATIONS_SHOWN)
    return f"{chosen}\n\n{shown}"


def _ranking(results: Sequence[BaseResult]) -> str:
    parts = ["\n## Ranking"]
    for result in results:
        parts += [f"\n**{result.population.name}: ours**\n", tables.rankings(result.ours)]
        parts += ["\n**what others do**\n", tables.rankings(result.theirs)]
    parts += ["", THEIRS, "", tables.notes(results[0].theirs), "\n### Other statistics\n", VARIANTS]
    for result in results:
        parts += [f"\n**{result.population.name}**\n", tables.rankings(result.variants)]
    return "\n".join(parts)


def _early(results: Sequence[BaseResult]) -> str:
    if not any(result.runs for result in results):
        return ""
    parts = ["\n## Early warning\n", EARLY]
    for result in results:
        if result.runs:
            alpha = f"{result.run_alpha:g}"
            parts += [f"\n**{result.population.name}**, alpha {alpha}\n", tables.runs(result.runs)]
    return "\n".join(parts)


def _needed(results: Sequence[BaseResult]) -> str:
    parts = ["\n## How much is needed\n", NEEDED]
    for result in results:
        parts += [f"\n**{result.population.name}**\n", tables.points(result.points)]
        parts += ["", tables.sizes(result.sizes)]
    return "\n".join(parts)
