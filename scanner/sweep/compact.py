"""A result as the ledger keeps it: a fifteenth of its JSON, and the same result when it is read.

What only pictures of a single result need, the scores and doses of the benign adapters and the
references, is left out: it is the packs', and the same for thousands of adapters.

An adapter of an 8B model has 224 sites, and its result is nearly all digits and keys of theirs.
So sites are kept as columns. A name or a layer repeats what stands before it. A number is kept to
`DIGITS` significant digits (it is shown with three at most, and nothing is computed from it), as
its digits and its power of ten, byte by byte, since the upper bytes repeat too. The whole is
deflated.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from scanner.results import Comparison, ScanResult, SiteResult

DIGITS = 4
"""Significant digits of the numbers of a site. Those of the adapter are kept whole."""

_LEVEL = 9
_EXACT = ("layer", "module", "rank")
_NUMBERS = ("norm", "dose", "cosine", "overlap")
_UNKNOWN = -(2**15)
"""Stands for a number that is not known: no number of four digits is as low."""


class _Compact(msgspec.Struct, array_like=True):
    """What is deflated."""

    result: bytes
    """The result without its sites, as JSON."""
    exact: list[list[Any]]
    """A column for each of `_EXACT`."""
    digits: list[bytes]
    """A column for each of `_NUMBERS`: numbers without their decimal points, in planes."""
    powers: list[bytes]
    """The power of ten that each of these is multiplied by, in planes."""


def compact(result: ScanResult) -> bytes:
    """Packs a result."""
    numbers = [_in_digits(getattr(site, name) for site in result.sites) for name in _NUMBERS]
    packed = _Compact(
        result=msgspec.json.encode(
            msgspec.structs.replace(result, sites=[], comparison=_decisive(result.comparison))
        ),
        exact=[[getattr(site, name) for site in result.sites] for name in _EXACT],
        digits=[_planes(digits) for digits, _ in numbers],
        powers=[_planes(powers) for _, powers in numbers],
    )
    return zlib.compress(msgspec.msgpack.encode(packed), _LEVEL)


def _decisive(comparison: Comparison | None) -> Comparison | None:
    """A comparison without what only a picture of it needs."""
    if comparison is None:
        return None
    return msgspec.structs.replace(comparison, benign_scores=[], benign_doses=[], references=[])


def expand(packed: bytes, *, with_sites: bool = True) -> ScanResult:
    """Reads a result that `compact` has packed.

    Args:
        packed: The result.
        with_sites: Whether its sites are wanted, which are most of the work.
    """
    found = msgspec.msgpack.decode(zlib.decompress(packed), type=_Compact)
    result = msgspec.json.decode(found.result, type=ScanResult)
    if not with_sites:
        return result
    numbers = [
        _in_full(_whole(digits), _whole(powers))
        for digits, powers in zip(found.digits, found.powers, strict=True)
    ]
    names = (*_EXACT, *_NUMBERS)
    rows = zip(*found.exact, *numbers, strict=True)
    sites = [SiteResult(**dict(zip(names, row, strict=True))) for row in rows]
    return msgspec.structs.replace(result, sites=sites)


def _in_digits(values: Iterable[float | None]) -> tuple[list[int], list[int]]:
    """Numbers as whole numbers of at most `DIGITS` digits, and their powers of ten."""
    digits, powers = [], []
    for value in values:
        if value is None or not math.isfinite(value):
            digits.append(_UNKNOWN)
            powers.append(0)
            continue
        mantissa, _, power = f"{value:.{DIGITS - 1}e}".partition("e")
        digits.append(int(mantissa.replace(".", "")))
        powers.append(int(power) - DIGITS + 1)
    return digits, powers


def _in_full(digits: Sequence[int], powers: Sequence[int]) -> list[float | None]:
    return [
        None if number == _UNKNOWN else float(f"{number}e{power}")
        for number, power in zip(digits, powers, strict=True)
    ]


def _planes(numbers: Sequence[int]) -> bytes:
    """16-bit numbers as all their lower bytes, then all their upper ones."""
    pairs: npt.NDArray[np.uint8] = np.array(numbers, "<i2").view(np.uint8).reshape(-1, 2)
    return pairs.T.tobytes()


def _whole(planes: bytes) -> list[int]:
    pairs = np.frombuffer(planes, np.uint8).reshape(2, -1).T
    numbers: list[int] = np.ascontiguousarray(pairs).view("<i2").reshape(-1).tolist()
    return numbers
