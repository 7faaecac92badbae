"""Which base model an adapter belongs to: its name, and the shapes that go with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from scanner.formats.model import Update

_QUANTISATION = re.compile(
    r"[-_.](?:unsloth|bnb[-_]?[48]bit|[48]bit|int[48]|gptq(?:[-_]int[48])?(?:[-_][48]bit)?"
    r"|awq(?:[-_][48]bit)?|fp8(?:[-_]dynamic)?|gguf|bf16|fp16|sharded|hf)$"
)


def normalise_base_name(name: str | None) -> str | None:
    r"""A base model's name with owner, quantisation and packaging removed.

    ``unsloth/Llama-3.2-1B-Instruct-bnb-4bit`` and ``C:\models\llama-3.2-1b-instruct`` both
    give ``llama-3.2-1b-instruct``. Owners are dropped because mirrors keep the model's name;
    that two models of one name are the same is checked again by their shapes.

    Returns:
        The normalised name, or None if the name says nothing.
    """
    if not name:
        return None
    base = re.split(r"[/\\]", name.strip().rstrip("/\\"))[-1].lower()
    while match := _QUANTISATION.search(base):
        base = base[: match.start()]
    return base if base not in ("", ".", "..") else None


def shape_fingerprint(updates: Iterable[Update]) -> dict[str, tuple[int, int]]:
    """Module name -> (d_out, d_in), over the blocks; what an adapter shows of its base.

    A module whose shape differs between layers is left out: it identifies nothing.
    """
    shapes: dict[str, set[tuple[int, int]]] = {}
    for update in updates:
        shapes.setdefault(update.module, set()).add((update.d_out, update.d_in))
    return {module: next(iter(found)) for module, found in shapes.items() if len(found) == 1}


def shape_conflicts(
    updates: Iterable[Update], shapes: Mapping[str, tuple[int, int]], layers: int
) -> list[str]:
    """What in an adapter cannot belong to a base of the given shapes.

    Args:
        updates: The adapter's updates.
        shapes: Module name -> (d_out, d_in) of the base.
        layers: Number of blocks of the base.

    Returns:
        One sentence per kind of conflict; empty if none. Modules the base's shapes do not
        list are no conflict.
    """
    conflicts: dict[str, str] = {}
    for update in updates:
        expected = shapes.get(update.module)
        if expected is not None and expected != (update.d_out, update.d_in):
            conflicts.setdefault(
                update.module,
                f"{update.module} is {update.d_out} x {update.d_in}, "
                f"the base has {expected[0]} x {expected[1]}",
            )
        if update.layer is not None and update.layer >= layers:
            conflicts.setdefault("layer", f"layer {update.layer}, the base has {layers} layers")
    return list(conflicts.values())
