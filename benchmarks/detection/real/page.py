"""The page: goals on top, then tables and pictures, as Markdown."""

from __future__ import annotations

from pathlib import Path

from benchmarks.detection.real import figures, goals, short, tables, text
from benchmarks.detection.real.run import Result
from benchmarks.detection.tables import notes, rankings, table
from scanner.organisms.measure import HOSTILE_RISE, RECKLESS_RISE


def write(path: Path, command: str, result: Result) -> None:
    """Writes the page and its pictures.

    Args:
        path: The Markdown file; pictures go to `figures/` beside it.
        command: What was run.
        result: What was found.
    """
    folder, stem = path.parent / "figures", path.stem
    figures.dose(result, folder / f"{stem}-dose.svg")
    figures.early_warning(result, folder / f"{stem}-early-warning.svg")
    path.write_text(render(result, command, stem), encoding="utf-8")


def render(result: Result, command: str, stem: str) -> str:
    """The page's text.

    Args:
        result: What was found.
        command: What was run.
        stem: What the pictures' names begin with.
    """
    goal_rows = goals.rows(goals.check(result))
    parts = [
        text.INTRODUCTION.format(base=result.cases.base_model, command=command),
        text.SHORT,
        short.block(result),
        "## Goals\n",
        table(["goal", "figure", "", "what stands behind a miss"], goal_rows, text=4),
        "\n## Hostile adapters",
        text.HOSTILE,
        tables.powers(result.powers),
        "\n## What was taught and what came of it",
        text.TAUGHT.format(pack=result.first_pack),
        tables.groups(result.groups),
        "\nTogether:\n",
        tables.shares(list(result.shares.values())),
        *_odd_ones(result),
        "\n## Harmless personas never seen",
        text.UNSEEN,
        tables.unseen(result.unseen),
        *_dose(result, stem),
        *_early(result, stem),
        *_others(result),
        *_adapters(result),
        text.UNKNOWN,
    ]
    return "\n".join(parts).rstrip() + "\n"


def _odd_ones(result: Result) -> list[str]:
    shown = tables.odd_ones(result)
    return [text.ODD, shown] if shown else []


def _dose(result: Result, stem: str) -> list[str]:
    return [
        "\n## Dose and behaviour",
        text.DOSE,
        tables.correlations(result.correlations),
        f"\n![Dose against the rise of the hostile margin](figures/{stem}-dose.svg)",
        text.BY_GROUP.format(pack=result.first_pack),
        tables.by_group(result.by_group),
    ]


def _early(result: Result, stem: str) -> list[str]:
    if not result.runs:
        return []
    return [
        "\n## Early warning",
        text.EARLY,
        tables.lead(result.runs, HOSTILE_RISE),
        "",
        tables.runs(result.runs, result.main),
        f"\n![Training runs](figures/{stem}-early-warning.svg)",
    ]


def _others(result: Result) -> list[str]:
    parts = ["\n## Other scores"]
    if result.theirs:
        parts += [text.THEIRS, rankings(result.theirs), "", notes(result.theirs)]
    return [*parts, text.OURS, rankings(result.ours)]


def _adapters(result: Result) -> list[str]:
    cases = result.cases
    minutes = f"{cases.cpu_seconds / 60:.0f}"
    return [
        "\n## The adapters and the packs",
        text.CLASSES.format(hostile=HOSTILE_RISE, reckless=RECKLESS_RISE),
        tables.adapters(cases),
        text.COST.format(n=len(cases.all), minutes=minutes, left_out=len(cases.unmeasured)),
        tables.packs(result.signatures),
    ]
