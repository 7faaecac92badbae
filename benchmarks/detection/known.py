"""Figures that stand in the middle of a sentence of the README, and are put there by a command.

In the page a figure is `<!-- toy: auroc -->0.994 to 0.997<!-- end -->`: the benchmark it is of, its
name there, and between the comments, which no reader sees, what the benchmark measured last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.detection import goals
from benchmarks.detection.run import BaseResult
from benchmarks.detection.tables import number

TOY = "toy"
FIGURE = re.compile(r"<!-- (?P<of>[\w-]+): (?P<name>[\w-]+) -->[^<]*<!-- end -->")


def put_figures(text: str, of: str, figures: Mapping[str, str]) -> str:
    """A page with the figures of one benchmark as they are now.

    Raises:
        ValueError: If the page asks for a figure that the benchmark does not give.
    """

    def figure(match: re.Match[str]) -> str:
        if match["of"] != of:
            return match[0]
        if match["name"] not in figures:
            known = ", ".join(sorted(figures))
            raise ValueError(f"no figure {of}: {match['name']}; there are {known}")
        return f"<!-- {of}: {match['name']} -->{figures[match['name']]}<!-- end -->"

    return FIGURE.sub(figure, text)


def toy_figures(results: Sequence[BaseResult]) -> dict[str, str]:
    """What the README says of the toy bases."""
    main = [result.ours[0] for result in results]
    goal_list = [goal for result in results for goal in goals.check(result)]
    unseen = [
        unseen.fpr.value
        for result in results
        for unseen in result.unseen
        if unseen.detector == result.ours[0].name and unseen.crossfitted
    ]
    return {
        "auroc": _span([ranking.auroc.value for ranking in main], 3),
        "tpr": _span([100 * ranking.tpr_1.value for ranking in main], 0),
        "best-other": _span([max(t.auroc.value for t in r.theirs) for r in results], 3),
        "unseen": f"{sum(fpr <= 0.05 for fpr in unseen)} of {len(unseen)}",
        "goals": f"{sum(goal.met is True for goal in goal_list)} of {len(goal_list)}",
    }


def _span(values: Sequence[float], digits: int) -> str:
    low, high = number(min(values), digits), number(max(values), digits)
    return low if low == high else f"{low} to {high}"


def write_figures(path: Path, of: str, figures: Mapping[str, str]) -> None:
    """Puts figures into a page."""
    path.write_text(put_figures(path.read_text("utf-8"), of, figures), "utf-8")
