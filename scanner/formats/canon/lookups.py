"""How versions of PEFT look a module up in `rank_pattern` and `alpha_pattern`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

from scanner.formats.canon.patterns import DOTTED_FORM, OPEN_FORM
from scanner.formats.peft_config import PeftConfig


class Lookup(NamedTuple):
    """What some versions of PEFT find for a module."""

    versions: str
    rank: float | None
    alpha: float | None
    """As `rank`, None where neither a pattern nor the config gives one."""


Fallback = Callable[[str], str]


def older_lora(config: PeftConfig, module: str) -> Iterator[Lookup]:
    """What PEFT before 0.15 finds (`LoraModel._create_and_replace`).

    Raises:
        MissingConfigError: If a pattern cannot be applied.
    """
    yield _in_one(config, module, DOTTED_FORM, lambda path: path, "0.6 to 0.13")
    rank = config.patterns.first_match(config.rank_pattern, module, DOTTED_FORM)
    alpha = config.patterns.first_match(config.alpha_pattern, module, DOTTED_FORM)
    yield _lookup("0.14", config, rank, alpha)


def older_lycoris(config: PeftConfig, module: str) -> Iterator[Lookup]:
    """As `older_lora`, for LoHa and LoKr (`LoHaModel._create_and_replace`)."""
    yield _in_one(config, module, OPEN_FORM, lambda path: path.rpartition(".")[2], "0.6 to 0.14")


def _in_one(
    config: PeftConfig, module: str, form: str, fallback: Fallback, versions: str
) -> Lookup:
    """The first key of both tables that matches, looked up in each."""
    keys = chain(config.rank_pattern, config.alpha_pattern)
    key = config.patterns.first_key(keys, module, form)
    key = fallback(module) if key is None else key
    return _lookup(versions, config, config.rank_pattern.get(key), config.alpha_pattern.get(key))


def _lookup(versions: str, config: PeftConfig, rank: float | None, alpha: float | None) -> Lookup:
    return Lookup(
        versions,
        config.rank if rank is None else rank,
        config.alpha if alpha is None else alpha,
    )
