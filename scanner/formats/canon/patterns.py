"""A config's regular expressions, with the meaning Python's `re` gives them and a bound on time.

Loaders apply these patterns with `re`, which nothing can stop once a hostile pattern has begun to
backtrack. So a pattern is parsed by `re`'s own parser, written out again with every literal
escaped, and handed to the `regex` package, which takes a timeout. What `regex` reads into the
text of a pattern beyond `re` (fuzzy matching, named lists, set operations) is a literal by then.
Constructs whose meaning differs between the engines or between Python's versions are refused.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache
from time import perf_counter
from typing import Any, Protocol

from scanner.errors import MissingConfigError
from scanner.formats.limits import (
    MAX_PATTERN_CHARACTERS,
    MAX_PATTERN_LOOKUPS,
    MAX_PATTERN_SECONDS,
    MAX_PATTERNS_SECONDS,
    MAX_REPEATS,
)

if sys.version_info >= (3, 11):
    from re import _constants as sre_constants  # type: ignore[attr-defined]
    from re import _parser as sre_parse  # type: ignore[attr-defined]
else:
    import sre_constants
    import sre_parse

_FIXED_LENGTH = re.compile(r"^[\w.\-]+$", re.ASCII)
"""Patterns that are a name: the only thing in them that is no literal is the dot."""
_CATEGORIES = {
    sre_constants.CATEGORY_DIGIT: r"\d",
    sre_constants.CATEGORY_NOT_DIGIT: r"\D",
    sre_constants.CATEGORY_SPACE: r"\s",
    sre_constants.CATEGORY_NOT_SPACE: r"\S",
    sre_constants.CATEGORY_WORD: r"\w",
    sre_constants.CATEGORY_NOT_WORD: r"\W",
}
_PLACES = {
    sre_constants.AT_BEGINNING: "^",
    sre_constants.AT_BEGINNING_STRING: r"\A",
    sre_constants.AT_BOUNDARY: r"\b",
    sre_constants.AT_NON_BOUNDARY: r"\B",
    sre_constants.AT_END: "$",
    sre_constants.AT_END_STRING: r"\Z",
}
_MAX_DEPTH = 50

CURRENT_FORM = r"(.*\.)?(KEY)$"
"""What PEFT 0.15 and newer match with `re.match` against a module (`get_pattern_key`)."""
DOTTED_FORM = r".*\.KEY$"
"""What LoRA matched before 0.15."""
OPEN_FORM = r"(.*\.)?KEY$"
"""What LoHa and LoKr matched before 0.15."""


class RefusedPatternError(ValueError):
    """A pattern that cannot be applied; the message says why."""


def _character(code: int) -> str:
    """One literal, in a spelling that has no other meaning in either engine."""
    return f"\\U{code:08x}"


def _members(items: list[Any]) -> str:
    """The inside of a character class."""
    written = []
    for name, value in items:
        if name is sre_constants.NEGATE:
            written.append("^")
        elif name is sre_constants.LITERAL:
            written.append(_character(value))
        elif name is sre_constants.RANGE:
            written.append(f"{_character(value[0])}-{_character(value[1])}")
        elif name is sre_constants.CATEGORY:
            written.append(_CATEGORIES[value])
        else:
            raise RefusedPatternError(f"{str(name).lower()} in a character class is not known here")
    return "".join(written)


class _Writer:
    """Writes a parsed pattern out again, and counts what its counted repeats unroll to."""

    def write(self, parsed: Any, repeats: int = 1, depth: int = 0) -> str:
        """The pattern's text.

        Args:
            parsed: What `re`'s parser made of it.
            repeats: Product of the counted repeats around it.
            depth: Groups around it.

        Raises:
            RefusedPatternError: If a part has no certain meaning.
        """
        if depth > _MAX_DEPTH:
            raise RefusedPatternError("it is nested too deeply")
        return "".join(self._part(name, value, repeats, depth) for name, value in parsed)

    def _part(self, name: Any, value: Any, repeats: int, depth: int) -> str:
        if name is sre_constants.LITERAL:
            return _character(value)
        if name is sre_constants.NOT_LITERAL:
            return f"[^{_character(value)}]"
        if name is sre_constants.ANY:
            return "."
        if name is sre_constants.IN:
            return f"[{_members(value)}]"
        if name is sre_constants.AT:
            return _PLACES[value]
        if name is sre_constants.BRANCH:
            return "|".join(self.write(item, repeats, depth + 1) for item in value[1]).join(
                ("(?:", ")")
            )
        if name is sre_constants.SUBPATTERN:
            _, added, removed, inner = value
            if added or removed:
                raise RefusedPatternError("flags inside a pattern are not known here")
            return f"(?:{self.write(inner, repeats, depth + 1)})"
        if name in (sre_constants.MAX_REPEAT, sre_constants.MIN_REPEAT):
            return self._repeat(value, repeats, depth)
        if name in (sre_constants.ASSERT, sre_constants.ASSERT_NOT):
            return self._look(name, value, repeats, depth)
        raise RefusedPatternError(f"{str(name).lower()} is not known here")

    def _repeat(self, value: Any, repeats: int, depth: int) -> str:
        """Lazy or greedy makes no difference to whether there is a match."""
        low, high, inner = value
        unbounded = high is sre_constants.MAXREPEAT
        repeats *= max(1, low if unbounded else high)
        if repeats > MAX_REPEATS:
            raise RefusedPatternError("it repeats too often")
        text = self.write(inner, repeats, depth + 1)
        return f"(?:{text}){{{low},{'' if unbounded else high}}}"

    def _look(self, name: Any, value: Any, repeats: int, depth: int) -> str:
        direction, inner = value
        if direction < 0:
            raise RefusedPatternError("a lookbehind is not known here")
        mark = "=" if name is sre_constants.ASSERT else "!"
        return f"(?{mark}{self.write(inner, repeats, depth + 1)})"


class Compiled(Protocol):
    """What is needed of a compiled pattern."""

    def fullmatch(self, string: str, *, timeout: float) -> object | None:
        """A match of the whole string, if there is one."""

    def match(self, string: str, *, timeout: float) -> object | None:
        """A match from the string's beginning, if there is one."""


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> Compiled:
    """A pattern ready to be matched with a timeout.

    Raises:
        RefusedPatternError: If `re` refuses it, or it cannot be applied safely.
    """
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise RefusedPatternError("it is too long")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a future meaning is no certain meaning
            parsed = sre_parse.parse(pattern)
    except (re.error, Warning, OverflowError, RecursionError, MemoryError) as error:
        raise RefusedPatternError(str(error) or type(error).__name__) from None
    if parsed.state.flags & ~re.UNICODE:
        raise RefusedPatternError("flags inside a pattern are not known here")
    text = _Writer().write(parsed)
    import regex  # the standard library's engine cannot be stopped by a hostile pattern

    try:
        compiled: Compiled = regex.compile(text, regex.VERSION0)
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise RefusedPatternError(str(error) or type(error).__name__) from None
    return compiled


@lru_cache(maxsize=4096)
def _tail(pattern: str) -> re.Pattern[str]:
    """Matches a string as long as a pattern that is a name with dots: in time of its length."""
    return re.compile(pattern.replace("-", r"\-") + r"\Z")


class PatternMatcher:
    """Applies a config's patterns, for a bounded time over all modules.

    The names of modules hold no line ends (`names.odd_path`), so that ``$`` is the end.

    Args:
        where: The config, for errors.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._left = MAX_PATTERNS_SECONDS
        self._lookups = 0

    def first_match(
        self, patterns: Mapping[str, float], module: str, form: str = CURRENT_FORM
    ) -> float | None:
        """The value of the first pattern that selects a module; None if none does.

        A key that is the module's whole path selects it whatever it means as a pattern, if no
        pattern does (`get_pattern_key` falls back to the path itself).

        Raises:
            MissingConfigError: If a pattern is none, or they take too long.
        """
        if not patterns:
            return None
        key = self.first_key(patterns, module, form)
        return patterns.get(module if key is None else key)

    def first_key(self, keys: Iterable[str], module: str, form: str = CURRENT_FORM) -> str | None:
        """The first pattern that selects a module. Raises as `first_match` does."""
        for key in keys:
            self._lookups += 1
            if self._lookups > MAX_PATTERN_LOOKUPS:
                raise self._failure(key, "there are too many patterns for so many modules")
            if self._selects(key, module, form):
                return key
        return None

    def _selects(self, pattern: str, module: str, form: str) -> bool:
        """Whether a pattern, put into its form, matches a module from the beginning."""
        if not _FIXED_LENGTH.match(pattern):
            return self._asked(form.replace("KEY", pattern), module)
        start = len(module) - len(pattern)
        if start < 0 or (start == 0 and form == DOTTED_FORM):
            return False
        if start > 0 and module[start - 1] != ".":
            return False
        return _tail(pattern).match(module, start) is not None

    def fullmatch(self, pattern: str, module: str) -> bool:
        """Whether `re.fullmatch` would match. Raises as `ends_with` does."""
        return self._asked(pattern, module, whole=True)

    def starts_with(self, pattern: str, module: str) -> bool:
        """Whether `re.match` would match. Raises as `ends_with` does."""
        return self._asked(pattern, module)

    def _asked(self, pattern: str, module: str, whole: bool = False) -> bool:
        started = perf_counter()
        if self._left <= 0:
            raise self._failure(pattern, "it takes too long")
        try:
            compiled = _compiled(pattern)
            seconds = min(self._left, MAX_PATTERN_SECONDS)
            match = compiled.fullmatch if whole else compiled.match
            return match(module, timeout=seconds) is not None
        except RefusedPatternError as error:
            raise self._failure(pattern, str(error)) from None
        except (TimeoutError, MemoryError):
            self._left = 0.0
            raise self._failure(pattern, "it takes too long") from None
        finally:
            self._left -= perf_counter() - started

    def _failure(self, pattern: str, why: str) -> MissingConfigError:
        return MissingConfigError(
            f"the pattern {pattern[:80]!r} cannot be applied ({why})", where=self._where
        )
