"""What a person who trains is told: one line for every change, and one at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scanner.reports.terminal import Screen, printable
from scanner.reports.training_record import TrainingScan
from scanner.reports.wording import ONE_DOSE
from scanner.results import ScanResult, Verdict

_NAME = "adapter-scan"
_ADVICE = "look at the data it learns from; what to do: docs/training.md"
_SHOWN_REASONS = 1


def change_line(
    scan: TrainingScan, before: TrainingScan | None, *, stops: bool, screen: Screen
) -> str | None:
    """What a look at an adapter changes, as one line.

    Args:
        scan: The look.
        before: The one before it, if there was any.
        stops: Whether training ends if the run is flagged.
        screen: Where it is written.

    Returns:
        None if nothing changed.
    """
    where = f"step {scan.step}: adapter {printable(repr(scan.adapter))}"
    was_flagged = before is not None and before.run_flagged
    if scan.run_flagged and not was_flagged:
        ending = "training stops; " if stops else ""
        return _warning(f"{where} is flagged: {evidence_words(scan)}; {ending}{_ADVICE}", screen)
    verdict = scan.result.verdict
    if before is not None and verdict is before.result.verdict:
        return None
    if verdict is Verdict.FLAGGED:
        again = " again" if was_flagged else ""
        not_yet = "" if scan.run_flagged else "; not the run yet, which is looked at many times"
        return note(f"{where} scans as flagged{again}: {evidence_words(scan)}{not_yet}", screen)
    if before is not None and before.flagged:
        return note(f"{where} no longer scans as flagged: {_verdict_words(scan.result)}", screen)
    if verdict in (Verdict.INCONCLUSIVE, Verdict.ERROR):
        return note(f"{where} was not judged: {_verdict_words(scan.result)}", screen)
    return None


def start_line(adapter: str, problem: str, screen: Screen) -> str:
    """What is wrong already before the training."""
    return note(f"adapter {printable(repr(adapter))}: {printable(problem)}", screen)


def summary_line(scans: Sequence[TrainingScan], page: Path | None, screen: Screen) -> str:
    """One adapter's run in a line.

    Args:
        scans: Its looks, at least one.
        page: Where the page about it is, if there is one.
        screen: Where it is written.
    """
    last, first = scans[-1], next((scan for scan in scans if scan.run_flagged), None)
    counted = "1 scan" if len(scans) == 1 else f"{len(scans)} scans"
    name = printable(repr(last.adapter))
    flagged = "never flagged" if first is None else f"flagged from step {first.step} on"
    evidence = evidence_words(last)
    text = f"{counted} of adapter {name}: {flagged}; at the end {last.result.verdict.value}"
    text += f" ({evidence})" if evidence else ""
    if page is not None:
        text += f". Over the steps: {printable(str(page))}"
    return note(text, screen) if first is None else _warning(text, screen)


def evidence_words(scan: TrainingScan) -> str:
    """Dose and p-values of one look."""
    result = scan.result
    parts = []
    dose, unit = result.deciding_dose, result.dose_unit
    if dose is not None:
        meaning = f", where 1 is {ONE_DOSE[unit]}" if unit in ONE_DOSE else ""
        parts.append(f"a dose of {dose:.2f}{meaning}")
    if result.p_value is not None:
        parts.append(f"p = {result.p_value:.4f}")
    if scan.run_p_value is not None:
        parts.append(f"p of the whole run = {scan.run_p_value:.4f}")
    return "; ".join(parts)


def _verdict_words(result: ScanResult) -> str:
    reasons = "; ".join(result.reasons[:_SHOWN_REASONS])
    return printable(f"{result.verdict.value}: {reasons}" if reasons else result.verdict.value)


def _warning(text: str, screen: Screen) -> str:
    return f"{screen.style(f'{_NAME} WARNING', 'bold', 'red')} {text}"


def note(text: str, screen: Screen) -> str:
    """A line that is no warning."""
    return f"{screen.style(_NAME, 'bold')} {text}"
