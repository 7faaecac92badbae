"""Exit statuses: what each means, and the status of a whole run."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scanner.results import Verdict
    from scanner.scanning.settings import FailOn

EXIT_FLAGGED = 1
EXIT_USAGE = 2
EXIT_INCONCLUSIVE = 3
EXIT_INTERRUPTED = 128 + 2
"""As a shell reports a program that SIGINT ended."""


def exit_status(verdicts: Collection[Verdict], fail_on: FailOn = "inconclusive") -> int:
    """0, or the status of the gravest verdict that counts.

    Args:
        verdicts: Those of a run that nobody has accepted.
        fail_on: The mildest verdict that counts; errors count as inconclusive.
    """
    from scanner.results import Verdict

    if fail_on == "never":
        return 0
    if Verdict.FLAGGED in verdicts:
        return EXIT_FLAGGED
    if fail_on == "inconclusive" and set(verdicts) & {Verdict.INCONCLUSIVE, Verdict.ERROR}:
        return EXIT_INCONCLUSIVE
    return 0
