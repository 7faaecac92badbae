"""What a misspelt name may have meant."""

from __future__ import annotations

from collections.abc import Iterable

_LIKE = 0.6
"""Share of characters in common from which two names are alike; difflib's own default."""


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names that are spelled most alike, upper and lower case alike, the nearest first.

    Args:
        name: What was written.
        known: What there is.
        most: How many at most.
    """
    from difflib import SequenceMatcher  # only who errs waits for it

    wanted = name.lower()
    scored = [
        (SequenceMatcher(None, wanted, other.lower()).ratio(), other)
        for other in dict.fromkeys(known)
    ]
    alike = sorted((-ratio, other) for ratio, other in scored if ratio >= _LIKE)
    return [other for _, other in alike[:most]]
