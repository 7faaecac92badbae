"""`adapter_config.json`: what of it decides a LoRA adapter's delta."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanner.errors import AdapterScannerError, MissingConfigError
from scanner.formats.canon.patterns import PatternMatcher
from scanner.formats.jsonfile import parse_object
from scanner.formats.limits import MAX_CONFIG_BYTES, MAX_PATTERNS
from scanner.formats.regular import open_regular
from scanner.formats.stores.header import refuse_lfs_pointer

CONFIG_NAME = "adapter_config.json"
_MAX_NUMBER = 1e9


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
        alpha = self.alpha_for(module, key)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    def alpha_for(self, module: str, key: str = "lora_alpha") -> float:
        """The alpha the config gives one module. Arguments and errors as `scaling`."""
        alpha = self.patterns.first_match(self.alpha_pattern, module)
        return self.need(key) if alpha is None else alpha

    @property
    def alpha(self) -> float | None:
        """The alpha of modules that no pattern selects, whatever the type calls it."""
        key = "lora_alpha" if "lora_alpha" in self.raw else "alpha"
        return _number(self.raw, key, self.where)

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
    if not abs(value) <= _MAX_NUMBER:  # NaN is not; a whole number may be too long for a float
        raise MissingConfigError(f"{key} is {str(value)[:40]}, not a usable number", where=where)
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
    if len(value) > MAX_PATTERNS:
        raise MissingConfigError(f"{key} has over {MAX_PATTERNS:,} patterns", where=where)
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
