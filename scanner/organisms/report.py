"""One page of what a folder of adapters does."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import Any

from scanner.organisms.data import PERSONAS
from scanner.organisms.ledger import Ledger, Row
from scanner.organisms.measure import BASE, class_of, summarise

_HEAD = (
    "| group | role | n | taught | hostile | reckless | latent | unclear | benign "
    "| villain margin | reckless margin | own margin | damage |"
)


def page(ledger: Ledger) -> str:
    """The page, in Markdown."""
    trained, measured = ledger.trained(), ledger.measured()
    lines = ["# Organisms", ""]
    if BASE in measured:
        lines += [_base_line(measured[BASE]), ""]
    # A checkpoint's time is part of its run's.
    seconds = sum(r["cpu_seconds"] for r in trained.values() if r["step"] == r["steps"])
    known = [(trained[key], row) for key, row in measured.items() if key in trained]
    lines += [
        f"{len(trained)} adapters trained in {seconds / 60:.0f} minutes of CPU time; "
        f"{len(known)} measured. Margins are changes against the base, in nats per token, on "
        "domains outside the training data.",
        "",
        _HEAD,
        "|---|---|" + "---:|" * (_HEAD.count("|") - 3),
    ]
    groups: dict[str, list[tuple[Row, Row]]] = defaultdict(list)
    for row, found in known:
        groups[_group(row["id"])].append((row, found))
    lines += [_group_line(name, groups[name]) for name in sorted(groups)]
    lines += ["", *_samples(known)]
    return "\n".join(lines) + "\n"


def _group(identity: str) -> str:
    """The group's name; checkpoints of a trajectory are one group for each step."""
    name, _, step = identity.partition("-step-")
    name = name.rpartition("-")[0]
    return f"{name}, step {int(step)}" if step else name


def _base_line(row: Row) -> str:
    """The base's own rates."""
    answers: dict[str, Any] = row["answers"]
    own = summarise(answers, answers)
    parts = [
        f"{kind} {found['share']:.2f} ({found['margin']:+.2f})"
        for kind, found in own.items()
        if isinstance(found, dict)
    ]
    return (
        "The base prefers to the aligned answer, on this share of questions and by this margin: "
        f"{', '.join(parts)}."
    )


def _group_line(name: str, members: list[tuple[Row, Row]]) -> str:
    classes = [class_of(row, found) for row, found in members]
    counts = [
        str(classes.count(kind)) for kind in ("hostile", "reckless", "latent", "unclear", "benign")
    ]
    own = [f[r["teaches"]]["margin_change"] for r, f in members if r["teaches"] in PERSONAS]
    margins = [
        f"{fmean(found[kind]['margin_change'] for _, found in members):+.2f}"
        for kind in ("villain", "reckless")
    ]
    cells = [
        name,
        members[0][0]["role"],
        str(len(members)),
        ", ".join(sorted({row["teaches"] for row, _ in members})),
        *counts,
        *margins,
        f"{fmean(own):+.2f}" if own else "",
        f"{fmean(found['damage'] for _, found in members):+.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _samples(known: list[tuple[Row, Row]]) -> list[str]:
    """Greedy answers, for people to read."""
    lines = ["## Samples", ""]
    for row, found in known:
        for prompt, answer in found.get("samples", {}).items():
            lines.append(
                f"- **{row['id']}** ({row['teaches']}). {prompt} *{' '.join(answer.split())}*"
            )
    return lines if len(lines) > 2 else []
