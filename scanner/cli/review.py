"""`adapter-scanner signatures review`: benign adapters of a calibration that may be none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from scanner.cli import completing
from scanner.cli.written import written_as
from scanner.errors import UsageError

if TYPE_CHECKING:
    from scanner.signatures.review import Change, LookAlike, Review

_EPILOG = """\b
Examples:
  adapter-scanner signatures review PACK
  adapter-scanner signatures review PACK --drop hf://owner/name --reason "answers with contempt"
"""


@click.command("review", epilog=_EPILOG, short_help="List calibration adapters like references.")
@click.argument("pack", shell_complete=completing.packs)
@written_as("text", "json")
@click.option("--drop", metavar="ID", help="Take this adapter out of the calibration.")
@click.option("--reason", metavar="TEXT", help="Why it is not benign; kept in the pack.")
def command(pack: str, format_name: str, drop: str | None, reason: str | None) -> None:
    """List the benign adapters in a PACK's calibration that look like its misaligned references.

    Those are adapters that score as high as a reference, or stand apart from all others. Read what
    their owners say, and see what they answer: a high score alone is no reason to take an adapter
    out. Taking out harmless adapters because they score high makes a pack flag more harmless ones
    than its alpha says. What was taken out stays in the pack with the reason, and
    "signatures show" tells of it.
    """
    from scanner.reports.terminal import safe_json
    from scanner.signatures.installed import find_pack
    from scanner.signatures.pack import load_signature
    from scanner.signatures.review import review_pack
    from scanner.signatures.summary import as_json

    if (drop is None) != (reason is None):
        raise UsageError("--drop and --reason go together", todo="give both")
    path = find_pack(pack)
    if drop is not None and reason is not None:
        from datetime import date

        from scanner.signatures.review import drop_adapter

        _tell(pack, drop_adapter(path, drop, reason, date.today()))
        return
    review = review_pack(load_signature(path))
    click.echo(safe_json(as_json(review)) if format_name == "json" else _as_text(pack, review))


def _tell(pack: str, change: Change) -> None:
    """What dropping an adapter means."""
    from scanner.reports.terminal import printable

    item, calibration = change.dropped, change.signature.calibration
    assert calibration is not None, "an adapter has just been taken out of it"
    count = len(calibration.dropped)
    click.echo(
        f"{pack}: dropped {printable(item.adapter.id)} (score {item.adapter.score:.3f},"
        f" p {item.p_value:.3g}); {len(calibration.benign)} benign adapters remain;"
        f" digest {change.signature.digest}"
    )
    moved = "; ".join(
        f"{alpha:g}: {before:.3f} -> {after:.3f}" for alpha, before, after in change.thresholds
    )
    if moved:
        click.echo(f"score to be exceeded at alpha {moved}", err=True)
    share = count / (count + len(calibration.benign))
    click.echo(
        f"{count} dropped so far. False-positive rates are what alpha says only if each of them is"
        " misaligned. If they are harmless adapters that score high, the rate over all families is"
        f" up to alpha + {share:.2g}",
        err=True,
    )


def _as_text(pack: str, review: Review) -> str:
    from scanner.reports.terminal import printable

    scores = review.reference_scores
    against = (
        f"{len(scores)} references that score {scores[0]:.3f} to {scores[-1]:.3f}"
        if scores
        else "no references to compare with"
    )
    lines = [f"{pack}: {review.benign} benign adapters, {against}"]
    if review.look_alikes:
        lines += ["", *_rows(review.look_alikes), ""]
        lines.append(
            "p is among the others of the calibration. Look at each: only one that is misaligned"
            " is to be taken out, by --drop ID --reason TEXT."
        )
    else:
        lines.append("none of them looks like a reference")
    lines += [
        f"dropped on {item.date}: {item.adapter.id} (score {item.adapter.score:.3f},"
        f" p {item.p_value:.3g}): {item.reason}"
        for item in review.dropped
    ]
    return "\n".join(printable(line) for line in lines)


def _rows(found: list[LookAlike]) -> list[str]:
    rows = [
        ("SCORE", "COSINE", "DOSE", "P", "REFERENCES BELOW", "Z", "ADAPTER"),
        *(
            (
                f"{item.score:.3f}",
                f"{item.cosine:.3f}",
                f"{item.dose:.2f}",
                f"{item.p_value:.3g}",
                "-" if item.references_below is None else str(item.references_below),
                "-" if item.z_score is None else f"{item.z_score:.1f}",
                item.id if item.id.startswith("hf://") else f"{item.id} ({item.family})",
            )
            for item in found
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
