"""Which modules PEFT makes layers for, as `peft/tuners/tuners_utils.py` decides.

PEFT takes a file's tensors only for the modules its config selects, and ignores the others
without an error. The base model is not at hand here, so the question is asked of every module
that the file holds: does the config select it, in every version of PEFT since 0.6?
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from scanner.formats.canon.names import OUTPUT_LAYERS
from scanner.formats.peft_config import PeftConfig

ALL_LINEAR = "all-linear"
_EARLIEST_PATTERNS = ("layers", "h", "block", "blocks", "layer")
"""`COMMON_LAYERS_PATTERN` of PEFT 0.6 and 0.7."""
_NAME = re.compile(r"^[\w\-]+$", re.ASCII)
_DEFAULTS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            ("q_proj", "v_proj"),
            ("query_key_value",),
            ("c_attn",),
            ("query", "value"),
            ("query_proj", "value_proj"),
            ("q", "v"),
            ("Wqkv",),
        ),
    )
)
"""Modules that PEFT's defaults include for every architecture that has them
(`TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`)."""
_OTHER_DEFAULTS = {"C3A": frozenset({"c_attn"}), "FOURIERFT": frozenset({"c_attn"})}
"""peft_type -> modules that its own defaults leave out."""

IGNORED = "PEFT ignores it: {}"


def _names(value: object) -> frozenset[str] | None:
    """A list of names; None if it is no such list."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return frozenset(value)
    return None


def _suffix_in(names: frozenset[str], module: str) -> bool:
    """Whether a module, or the end of its path from some dot on, is among the names."""
    while module not in names:
        _, dot, module = module.partition(".")
        if not dot:
            return False
    return True


class Targets:
    """The modules a config selects.

    Args:
        config: The adapter's config.
        modules: Every module the file holds tensors of.
    """

    def __init__(self, config: PeftConfig, modules: frozenset[str]) -> None:
        self._raw = config.raw
        self._patterns = config.patterns
        self._selects = self._selector(config, modules)
        self._layers = self._layer_numbers()

    def why_not(self, module: str, layer: str = "Linear") -> str | None:
        """Why PEFT makes no layer for a module; None if every version makes one.

        Args:
            module: Module path in the base model.
            layer: What the tensors are those of: ``Linear``, ``Embedding`` or ``Conv``.

        Raises:
            MissingConfigError: If a pattern of the config cannot be applied.
        """
        if self._excluded("exclude_modules", module):
            return IGNORED.format("exclude_modules names it")
        if self._saved_whole(module):
            return IGNORED.format("modules_to_save names it, and it is saved whole")
        reason = self._selects(module, layer)
        if reason is not None or self._layers is None:
            return reason
        names = _names(self._raw.get("target_modules"))
        if names is not None and module in names:  # the whole path is named
            return None if self._layers_agree(module) is True else _LAYERS_DISAGREE
        answer = self._layers_agree(module)
        if answer is None:
            return _LAYERS_DISAGREE
        return None if answer else IGNORED.format("layers_to_transform leaves its block out")

    def unused_name(self, modules: frozenset[str]) -> str | None:
        """A name of `target_modules` that selects none of the modules in the file."""
        names = _names(self._raw.get("target_modules")) or frozenset()
        used = {name for name in names if any(_suffix_in(frozenset({name}), m) for m in modules)}
        return min(names - used, default=None)

    def _excluded(self, key: str, module: str) -> bool:
        value = self._raw.get(key)
        if not value:
            return False
        if isinstance(value, str):
            return self._patterns.fullmatch(value, module)
        names = _names(value)
        return names is None or _suffix_in(names, module)

    def _saved_whole(self, module: str) -> bool:
        value = self._raw.get("modules_to_save")
        if not value:
            return False
        names = _names(value)
        if names is None:
            return True
        parts = set(module.split("."))
        return any(
            name in parts
            if _NAME.match(name)
            else self._patterns.starts_with(rf"(^|.*\.){name}($|\..*)", module)
            for name in names
        )

    def _selector(
        self, config: PeftConfig, modules: frozenset[str]
    ) -> Callable[[str, str], str | None]:
        """The rule of `target_modules`, which gives a reason for what it does not select."""
        value: Any = self._raw.get("target_modules")
        if value is None:
            if self._raw.get("target_parameters"):
                return lambda _module, _layer: IGNORED.format("target_modules is null")
            return _defaults(config, modules)
        if isinstance(value, str):
            if value.lower() == ALL_LINEAR:
                return _all_linear
            return lambda module, _layer: (
                None
                if self._patterns.fullmatch(value, module)
                else IGNORED.format("target_modules does not match it")
            )
        names = _names(value)
        if names is None:
            return lambda _module, _layer: "target_modules is no list of names"
        return lambda module, _layer: (
            None if _suffix_in(names, module) else IGNORED.format("target_modules leaves it out")
        )

    def _layer_numbers(self) -> tuple[frozenset[int], bool] | None:
        """`layers_to_transform` and whether it can be understood; None if it is not used."""
        value = self._raw.get("layers_to_transform")
        if value is None or value == []:
            return None
        numbers = [value] if type(value) is int else value
        if not isinstance(numbers, list) or not all(type(item) is int for item in numbers):
            return frozenset(), False
        return frozenset(numbers), not isinstance(self._raw.get("target_modules"), str)

    def _layers_agree(self, module: str) -> bool | None:
        """Whether `layers_to_transform` selects a module; None if versions of PEFT differ."""
        assert self._layers is not None, "asked without layers_to_transform"
        numbers, understood = self._layers
        pattern = self._raw.get("layers_pattern")
        patterns = [pattern] if isinstance(pattern, str) and pattern else pattern or []
        if not understood or _names(patterns) is None or not all(map(_NAME.match, patterns)):
            return None
        answers = {block in numbers for block in _block_numbers(module, patterns)}
        return answers.pop() if len(answers) == 1 else None


_LAYERS_DISAGREE = "versions of PEFT differ on whether layers_to_transform selects this module"


def _block_numbers(module: str, patterns: list[str]) -> set[int | None]:
    """The block numbers that versions of PEFT see in a path; None for one that sees none.

    0.6 and 0.7 take the first of their own patterns that ends a part of the path, 0.8 to 0.19 the
    last number, 0.20 the first, 0.21 also at the very beginning.
    """
    parts = module.split(".")
    numbered = [
        (place, int(part))
        for place, part in enumerate(parts[:-1])
        if place and part.isascii() and part.isdigit() and len(part) <= 6
    ]

    def of(names: list[str] | None, first: int) -> list[int]:
        return [
            number
            for place, number in numbered
            if place > first and (names is None or parts[place - 1] in names)
        ]

    seen: set[int | None] = set()
    seen.add(_earliest_number(parts, numbered, patterns or _EARLIEST_PATTERNS))
    if patterns:
        by_pattern = [of([name], 1) for name in patterns]
        seen.add(next((found[-1] for found in by_pattern if found), None))
        seen.add(next((found[0] for found in by_pattern if found), None))
        at_start = [of([name], 0) for name in patterns]
        seen.add(next((found[0] for found in at_start if found), None))
    else:
        every = of(None, 1)
        seen |= {every[-1], every[0]} if every else {None}
    return seen


def _earliest_number(
    parts: Sequence[str], numbered: Sequence[tuple[int, int]], names: Sequence[str]
) -> int | None:
    r"""What ``.*.{name}\.(\d+)`` of PEFT 0.6 and 0.7 finds, for the first name that is there."""
    for name in names:
        found = [
            number
            for place, number in numbered
            if parts[place - 1].endswith(name) and (place > 1 or parts[0] != name)
        ]
        if found:
            return found[-1]
    return None


def _all_linear(module: str, layer: str) -> str | None:
    if layer != "Linear":
        return IGNORED.format("target_modules is all-linear, and it is no linear layer")
    if module.rpartition(".")[2] in OUTPUT_LAYERS:
        return IGNORED.format("target_modules is all-linear, which leaves output layers out")
    return None


def _defaults(config: PeftConfig, modules: frozenset[str]) -> Callable[[str, str], str | None]:
    """The rule where `target_modules` is null: PEFT takes its defaults for the architecture."""
    leaves = {module.rpartition(".")[2] for module in modules}
    left_out = _OTHER_DEFAULTS.get(config.peft_type or "LORA", frozenset())
    if any(leaves <= known - left_out for known in _DEFAULTS):
        return lambda _module, _layer: None
    return lambda _module, _layer: (
        "target_modules is null: PEFT takes its defaults for the architecture, which may leave "
        "this module out"
    )
