"""Strict JSON from untrusted files: no duplicate keys, no NaN, bounded depth and numbers.

The depth bound is the interpreter's own recursion limit, which its JSON scanner honours.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from scanner.errors import LimitExceededError, MalformedFileError

_MOST_DIGITS = 300
"""Of an integer: a larger one may be beyond every float, and costs more than linear time."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members; no key may occur twice, since parsers differ on which counts.

    Raises:
        ValueError: With the first key that occurs a second time.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"the key {twice[:80]!r} occurs twice")
    return members


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits):,} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"a number larger than any float ({digits[:20]})")
    return value


def parse_object(raw: bytes, where: str) -> dict[str, Any]:
    """Parses one JSON object.

    Args:
        raw: The file's bytes.
        where: What to call the file in errors.

    Raises:
        MalformedFileError: If it is not UTF-8, not JSON, has a duplicate key or a number that no
            float can hold, or is no object.
        LimitExceededError: If it is nested deeper than the interpreter recurses.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedFileError(f"not UTF-8 at byte {error.start}", where=where) from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_int=_integer,
            parse_float=_float,
        )
    except json.JSONDecodeError as error:
        raise MalformedFileError(
            f"invalid JSON at line {error.lineno} column {error.colno}: {error.msg.lower()}",
            where=where,
        ) from None
    except RecursionError:
        raise LimitExceededError("JSON nested too deeply", where=where) from None
    except ValueError as error:
        raise MalformedFileError(f"invalid JSON: {error}", where=where) from None
    if not isinstance(value, dict):
        raise MalformedFileError(
            f"a JSON object was expected, found {type(value).__name__}", where=where
        )
    return value
