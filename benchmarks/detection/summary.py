"""The page that a person reads: what the tables say, each on a few lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.detection import goals
from benchmarks.detection.evaluation import CrossMethod, Ranking
from benchmarks.detection.run import BaseResult
from benchmarks.detection.tables import NOTHING, interval, table
from benchmarks.detection.text import (
    AGAINST_OTHERS,
    BY_METHOD,
    DOSE_IN_SHORT,
    EARLY_IN_SHORT,
    HOW,
    IN_SHORT,
    LIMITS,
    MISSED,
    SUMMARY_INTRODUCTION,
    UNSEEN_IN_SHORT,
)


def page(command: str, results: Sequence[BaseResult], stem: str, tables: str) -> str:
    """The page.

    Args:
        command: What was run.
        results: One per base.
        stem: What the figures' names begin with.
        tables: Name of the page that holds every table.
    """
    parts = [
        SUMMARY_INTRODUCTION.format(command=command, tables=tables),
        "## In short\n",
        IN_SHORT,
        in_short(results),
        "\n## What was missed\n",
        MISSED.format(tables=tables),
        missed(results),
        HOW.format(tables=tables),
        "## Compared with what others do\n",
        AGAINST_OTHERS.format(tables=tables),
        against_others(results),
        f"\n![ROC curves](figures/{stem}-roc.svg)\n",
        "## By way of training\n",
        BY_METHOD,
        by_method(results),
        "\n## Harmless personas never seen\n",
        UNSEEN_IN_SHORT,
        unseen(results),
        *_early(results, stem),
        "\n## Dose\n",
        DOSE_IN_SHORT.format(tables=tables),
        f"![Dose against measured misalignment](figures/{stem}-dose.svg)",
        LIMITS.format(tables=tables),
    ]
    return "\n".join(parts).rstrip() + "\n"


def in_short(results: Sequence[BaseResult]) -> str:
    """One line per base."""
    rows, alpha = [], math.nan
    for result in results:
        main, population = result.ours[0], result.population
        strict = next(
            (o for o in result.operating if o.detector == main.name and o.crossfitted), None
        )
        found = goals.check(result)
        alpha = strict.alpha if strict else alpha
        rows.append(
            [
                population.name,
                str(len(population.select("test", "misaligned"))),
                str(len(population.select("test", "benign"))),
                interval(main.auroc),
                interval(main.tpr_1, 2),
                interval(strict.fpr) if strict else NOTHING,
                interval(strict.latent, 2) if strict else NOTHING,
                f"{sum(goal.met is True for goal in found)} of {len(found)}",
            ]
        )
    header = ["base", "misaligned", "benign", "AUROC", "TPR at 1% FPR", f"FPR at alpha {alpha:g}"]
    return table([*header, "latent flagged at it", "goals met"], rows)


def missed(results: Sequence[BaseResult]) -> str:
    """Every goal that was missed, as a list."""
    lines = [
        f"- {goal.base}: {goal.what}: **{goal.figure}**"
        for result in results
        for goal in goals.check(result)
        if goal.met is False
    ]
    return "\n".join(lines or ["None."])


def against_others(results: Sequence[BaseResult]) -> str:
    """AUROC of every score on every base."""
    by_base = [{name(r): r for r in (*result.ours, *result.theirs)} for result in results]
    names = dict.fromkeys(key for found in by_base for key in found)
    rows = [
        [key, *(interval(found[key].auroc) if key in found else NOTHING for found in by_base)]
        for key in names
    ]
    return table(["AUROC", *(result.population.name for result in results)], rows)


def name(ranking: Ranking) -> str:
    """What a score is called, with the paper it is from."""
    return f"{ranking.name} ({ranking.source})" if ranking.source else ranking.name


def by_method(results: Sequence[BaseResult]) -> str:
    """Flagged misaligned adapters of every way of training on every base."""
    by_base = [{made.method: made for made in result.across} for result in results]
    methods = sorted({method for found in by_base for method in found})
    rows = [[method, *(_flagged(found.get(method)) for found in by_base)] for method in methods]
    rows = [row for row in rows if set(row[1:]) != {NOTHING}]
    return table(["made by", *(result.population.name for result in results)], rows)


def _flagged(made: CrossMethod | None) -> str:
    if made is None or not made.n or math.isnan(made.flagged.value):
        return NOTHING
    return f"{round(made.flagged.value * made.n)} of {made.n}"


def unseen(results: Sequence[BaseResult]) -> str:
    """False alarms on each persona that was left out."""
    rows = [
        [result.population.name, left_out.family, interval(left_out.fpr), interval(left_out.tpr, 2)]
        for result in results
        for left_out in result.unseen
        if left_out.detector == result.ours[0].name and left_out.crossfitted
    ]
    return table(["base", "left out", "flagged of it at 0.05", "misaligned flagged"], rows, text=2)


def _early(results: Sequence[BaseResult], stem: str) -> list[str]:
    rows = []
    for result in results:
        shown = [(run, run.behaviour_step(0.5)) for run in result.runs]
        ahead = [
            step - run.flag_step
            for run, step in shown
            if step is not None and run.flag_step is not None
        ]
        if shown:
            span = f"{min(ahead)} to {max(ahead)}" if ahead else NOTHING
            reached = sum(step is not None for _, step in shown)
            before = sum(steps > 0 for steps in ahead)
            rows.append([result.population.name, *map(str, (len(shown), reached, before)), span])
    if not rows:
        return []
    header = ["base", "runs", "reached 50%", "of these flagged before", "steps ahead"]
    return [
        "\n## Early warning\n",
        EARLY_IN_SHORT,
        table(header, rows),
        f"\n![Training runs](figures/{stem}-early-warning.svg)",
    ]
