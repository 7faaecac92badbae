"""The kinds of rule a config field can have, and what their reasons share."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from scanner.formats.model import Uncovered

MERGE = "; merge it into its base and scan that with --base-weights"
"""What to do about a delta that cannot be known without the base."""
DORA_REASON = (
    "DoRA: the delta cannot be recovered without the base weights; "
    f"only its low-rank part was looked at{MERGE}"
)


class Effect(Enum):
    """What a field does, whatever its value."""

    NONE = "no effect on the delta"
    READ = "understood exactly"


class Only(NamedTuple):
    """A field that is understood at some values only."""

    reason: str
    """Why any other value leaves the adapter uncovered."""
    values: tuple[Any, ...] = ()
    """Beside null, false and empty."""
    makes_settings: bool = False
    """Whether an empty object sets it: PEFT makes default settings of one, and uses them."""


Field: TypeAlias = Effect | Only


def is_empty(value: object) -> bool:
    """Whether a field's value says nothing: null, false, or an empty text, list or object."""
    return value is None or value is False or (isinstance(value, (str, list, dict)) and not value)


def same(value: object, allowed: object) -> bool:
    """Whether two JSON values are equal, booleans never being numbers."""
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def beside(known: Iterable[Uncovered], more: Iterable[Uncovered]) -> list[Uncovered]:
    """A list of what is uncovered, with more of it where nothing was said of the tensor yet."""
    found = list(known)
    said = {item.tensor for item in found}
    return found + [item for item in more if item.tensor not in said]
