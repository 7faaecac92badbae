"""`adapter_config.json`: what of it decides a LoRA adapter's delta."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from scanner.errors import AdapterScannerError, MissingConfigError
from scanner.formats.jsonfile import parse_object
from scanner.formats.limits import (
    MAX_CONFIG_BYTES,
    MAX_PATTERN_SECONDS,
    MAX_PATTERNS_SECONDS,
    MAX_REPEATS,
)
from scanner.formats.regular import open_regular
from scanner.formats.stores.header import refuse_lfs_pointer

CONFIG_NAME = "adapter_config.json"

_COUNTED = re.compile(r"\{[^}]*?(\d+)\s*\}", re.ASCII)
_PLAIN_NAME = re.compile(r"^[\w-]+$", re.ASCII)


def _repeats(pattern: str) -> int:
    """How often a pattern's counted repeats multiply its parts, were they all nested."""
    product = 1
    for count in _COUNTED.findall(pattern):
        product *= max(1, int(count[-6:]))
    return product


class PatternMatcher:
    """Applies a config's patterns, for a bounded time over all modules.

    Args:
        where: The config, for errors.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._left = MAX_PATTERNS_SECONDS

    def first_match(self, patterns: Mapping[str, float], module: str) -> float | None:
        """The value of the first pattern that selects a module; None if none does.

        Raises:
            MissingConfigError: If a pattern is none, or they take too long.
        """
        started = perf_counter()
        deadline = started + self._left
        try:
            for pattern, value in patterns.items():
                if perf_counter() >= deadline:
                    raise self._failure(pattern, "it takes too long")
                if self._matches(pattern, module):
                    return value
        finally:
            self._left -= perf_counter() - started
        return None

    def _matches(self, pattern: str, module: str) -> bool:
        """Whether a pattern selects a module, as `peft.utils.other.get_pattern_key` decides."""
        if _PLAIN_NAME.match(pattern):
            return module == pattern or module.endswith("." + pattern)
        if _repeats(pattern) > MAX_REPEATS:
            raise self._failure(pattern, "it repeats too often")
        import regex  # the standard library's engine cannot be stopped by a hostile pattern

        try:
            found = regex.match(rf"(.*\.)?({pattern})$", module, timeout=MAX_PATTERN_SECONDS)
        except TimeoutError:
            self._left = 0.0
            raise self._failure(pattern, "it takes too long") from None
        except (regex.error, OverflowError, RecursionError, MemoryError) as error:
            raise self._failure(pattern, str(error)) from None
        return found is not None

    def _failure(self, pattern: str, why: str) -> MissingConfigError:
        return MissingConfigError(
            f"the pattern {pattern[:80]!r} cannot be applied ({why})", where=self._where
        )


@dataclass(frozen=True)
class PeftConfig:
    """The fields of an adapter_config.json that a reader needs, validated."""

    peft_type: str | None
    """Upper case; None if the file does not say."""
    base_model: str | None
    rank: int | None
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    raw: Mapping[str, Any]
    """Every field of the file, as written."""
    where: str
    patterns: PatternMatcher

    def scaling(self, module: str, rank: int, key: str = "lora_alpha") -> float:
        """The factor in front of B @ A for one module.

        alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Kalajdzievski 2023,
        arXiv 2312.03732); patterns first, as `peft.utils.other.get_pattern_key` does.

        Args:
            module: Module path in the base model, e.g. ``model.layers.0.mlp.up_proj``.
            rank: The rank the tensors have.
            key: What the PEFT type calls alpha.

        Raises:
            MissingConfigError: If alpha is not known.
        """
        alpha = self.patterns.first_match(self.alpha_pattern, module)
        if alpha is None:
            alpha = self.need(key)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    def need(self, key: str) -> float:
        """A number of the config.

        Raises:
            MissingConfigError: If it is missing or no usable number.
        """
        value = _number(self.raw, key, self.where)
        if value is None:
            raise MissingConfigError(f"{key} is missing", where=self.where)
        return value

    def need_whole(self, key: str) -> int:
        """A positive whole number of the config. Raises what `need` raises."""
        return _rank(self.need(key), key, self.where) or 1

    def declared_rank(self, module: str) -> int | None:
        """The rank the config gives one module; None if it gives none."""
        rank = self.patterns.first_match(self.rank_pattern, module)
        return self.rank if rank is None else int(rank)


def _number(raw: Mapping[str, Any], key: str, where: str) -> float | None:
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MissingConfigError(f"{key} is {str(value)[:40]!r}, not a number", where=where)
    if not math.isfinite(value) or abs(value) > 1e9:
        raise MissingConfigError(f"{key} is {value}, not a usable number", where=where)
    return float(value)


def _rank(value: float | None, key: str, where: str) -> int | None:
    if value is None:
        return None
    if value != int(value) or value < 1:
        raise MissingConfigError(f"{key} is {value:g}, not a positive whole number", where=where)
    return int(value)


def _pattern(raw: Mapping[str, Any], key: str, where: str) -> dict[str, float]:
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MissingConfigError(f"{key} is not an object", where=where)
    result = {}
    for name in value:
        number = _number(value, name, f"{where}: {key}")
        if number is None:
            raise MissingConfigError(f"{key} gives null for {name[:80]!r}", where=where)
        result[name] = number
    return result


def _flag(raw: Mapping[str, Any], key: str, where: str) -> bool:
    value = raw.get(key)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise MissingConfigError(f"{key} is {str(value)[:40]!r}, not true or false", where=where)


def _text(raw: Mapping[str, Any], key: str, where: str) -> str | None:
    value = raw.get(key)
    if value is None or isinstance(value, str):
        return value or None
    raise MissingConfigError(f"{key} is {str(value)[:40]!r}, not a string", where=where)


def _lora_rank(raw: Mapping[str, Any], peft_type: str | None, where: str) -> int | None:
    value = _number(raw, "r", where)
    if value == 0 and peft_type not in (None, "LORA"):
        return None  # OFT says so where it gives a block size instead
    return _rank(value, "r", where)


def parse_config(raw: Mapping[str, Any], where: str) -> PeftConfig:
    """Validates a decoded config.

    Raises:
        MissingConfigError: If a field that decides the delta has an unusable value.
    """
    _number(raw, "lora_alpha", where)  # refused here: the file is at fault, not a tensor
    peft_type = _text(raw, "peft_type", where)
    peft_type = peft_type.upper() if peft_type else None
    # AdaLoRA keeps masks of surviving ranks under this name; its tensors have them applied.
    patterned = {} if peft_type == "ADALORA" else _pattern(raw, "rank_pattern", where)
    ranks = {
        name: _rank(value, f"rank_pattern[{name[:80]!r}]", where) or 1
        for name, value in patterned.items()
    }
    return PeftConfig(
        peft_type=peft_type,
        base_model=_text(raw, "base_model_name_or_path", where),
        rank=_lora_rank(raw, peft_type, where),
        use_rslora=_flag(raw, "use_rslora", where),
        rank_pattern=ranks,
        alpha_pattern=_pattern(raw, "alpha_pattern", where),
        raw=raw,
        where=where,
        patterns=PatternMatcher(where),
    )


def read_config(path: Path) -> tuple[PeftConfig, bytes]:
    """Reads and validates an adapter_config.json.

    Returns:
        The config and the file's bytes.

    Raises:
        LfsPointerError: If a git-lfs pointer stands in its place.
        MissingConfigError: If it is missing, not JSON, or has unusable values.
    """
    where = str(path)
    try:
        with open_regular(path) as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise MissingConfigError(
            f"cannot be read: {error.strerror or error}",
            where=where,
            todo="an adapter needs its config beside the weights: scaling and base model are in it",
        ) from None
    return config_from_bytes(data, where), data


def config_from_bytes(data: bytes, where: str) -> PeftConfig:
    """Validates an adapter_config.json wherever it came from.

    Raises:
        LfsPointerError: If it is a git-lfs pointer.
        MissingConfigError: If it is too large, not JSON, or has unusable values.
    """
    refuse_lfs_pointer(data[:1024], where)
    if len(data) > MAX_CONFIG_BYTES:
        raise MissingConfigError(f"over {MAX_CONFIG_BYTES:,} bytes", where=where)
    try:
        return parse_config(parse_object(data, where), where)
    except MissingConfigError:
        raise
    except AdapterScannerError as error:
        raise MissingConfigError(error.what, where=where, todo="mend the file") from None
