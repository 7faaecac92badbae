"""What the page says in short, and other pages repeat."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from benchmarks.detection.known import put_figures
from benchmarks.detection.metrics import Estimate
from benchmarks.detection.real.analysis import Followed
from benchmarks.detection.real.run import Result
from benchmarks.detection.real.scans import ALPHAS
from benchmarks.detection.tables import interval
from scanner.organisms.measure import HOSTILE_RISE
from scanner.results import Verdict

STRICT, LOOSE = ALPHAS
BEGIN, END = "<!-- real model: what is known -->\n", "<!-- real model: end -->\n"
"""The lines stand between these, on the page and where they are repeated."""
REAL = "real"


def block(result: Result) -> str:
    """The sentences with their figures, as a list between marks."""
    everything, shares = result.powers[0], result.shares
    reckless, benign = shares["taught reckless"], shares["benign"]
    dose = next(c for c in result.correlations if c.behaviour == "hostile")
    lines = [
        f"{_share(everything.flagged[STRICT], everything.n)} hostile adapters are flagged at "
        f"alpha {STRICT:g}{_rest(result)}; {_share(benign.flagged[STRICT], benign.n)} harmless "
        f"ones (at {LOOSE:g}: {_share(benign.flagged[LOOSE], benign.n)}); AUROC "
        f"{interval(everything.auroc)}.",
        f"{_share(reckless.flagged[STRICT], reckless.n)} adapters that were taught careless "
        "advice are flagged, whether or not their behaviour shows it.",
        f"Of harmless personas that the packs have never seen, {_personas(result)} are flagged "
        f"at alpha {LOOSE:g}.",
        f"Over all {dose.n} test adapters, dose and measured hostility have a rank correlation "
        f"of {interval(dose.rho, 2)}.",
        *map(_run, result.runs),
    ]
    return BEGIN + "".join(f"- {line}\n" for line in lines) + END


def _share(estimate: Estimate, n: int) -> str:
    if math.isnan(estimate.value):
        return f"an unknown number of {n}"
    return f"{round(estimate.value * n)} of {n}"


def _personas(result: Result) -> str:
    return ", ".join(f"{_share(u.flagged[LOOSE], u.n)} {u.family}" for u in result.unseen) or "none"


def _rest(result: Result) -> str:
    """What is said of the hostile adapters that are not flagged."""
    said = Counter(
        verdict.value
        for case in result.cases.select("test", kinds=("hostile",))
        if (verdict := result.main[case.id].verdict(STRICT)) not in (None, Verdict.FLAGGED)
    )
    if not said:
        return ""
    return f" (the others: {', '.join(f'{n} {verdict}' for verdict, n in sorted(said.items()))})"


def _run(followed: Followed) -> str:
    run, last = followed.run, int(followed.run.steps[-1])
    shown = run.behaviour_step(HOSTILE_RISE)
    flagged = (
        "is never flagged"
        if run.flag_step is None
        else f"is first flagged at step {run.flag_step} ({int(run.flagged.sum())} of "
        f"{len(run.flagged)} checkpoints)"
    )
    behaviour = f"does not show it within {last}" if shown is None else f"shows it at step {shown}"
    return f"A training run on {followed.taught} answers {flagged} and {behaviour}."


def figures(result: Result) -> dict[str, str]:
    """What may stand in the middle of a sentence (`benchmarks.detection.known`)."""
    everything, shares = result.powers[0], result.shares
    reckless, benign = shares["taught reckless"], shares["benign"]
    dose = next(c for c in result.correlations if c.behaviour == "hostile")
    return {
        "hostile": _share(everything.flagged[STRICT], everything.n),
        "benign": _share(benign.flagged[STRICT], benign.n),
        "reckless": _share(reckless.flagged[STRICT], reckless.n),
        "auroc": f"{everything.auroc.value:.3f}",
        "spearman": f"{dose.rho.value:.2f}",
    }


def put_into(path: Path, lines: str, values: dict[str, str]) -> None:
    """Replaces the lines between the marks of a page, and the figures in its sentences.

    Raises:
        ValueError: If the page has neither.
    """
    page = path.read_text("utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        page = before + lines + after
    elif f"<!-- {REAL}: " not in page:
        raise ValueError(f"{path}: no {BEGIN.strip()} and {END.strip()}, and no <!-- {REAL}: ...")
    path.write_text(put_figures(page, REAL, values), "utf-8")
