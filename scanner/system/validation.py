"""What a validator refuses -> the values that it would take."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import inspect

_STEP = re.compile(r"\.([\w-]+)|\[(?:\d+|\.\.\.)\]")
_INVALID = re.compile(r"Invalid enum value (.+)")


def with_allowed(error: msgspec.ValidationError, kind: Any) -> str:
    """A validator's message; where a value is none of a few, it names the few.

    Args:
        error: The validator's error.
        kind: The type that was validated against.
    """
    what, at, place = str(error).partition(" - at `")
    invalid = _INVALID.fullmatch(what)
    allowed = allowed_values(kind, place.rstrip("`")) if invalid else ()
    if invalid is None or not allowed:
        return str(error)
    return f"{invalid[1]} is not one of {', '.join(map(str, allowed))}{at}{place}"


def allowed_values(kind: Any, place: str) -> tuple[Any, ...]:
    """The values that a validator's path (``$.rules[...].mode``) may have; none if any may."""
    types = _options(inspect.type_info(kind))
    for step in _STEP.finditer(place):
        types = [inner for item in types for inner in _inside(item, step[1])]
    return tuple(
        value for item in types if isinstance(item, inspect.LiteralType) for value in item.values
    )


def _inside(item: inspect.Type, name: str | None) -> list[inspect.Type]:
    """What lies in a field, or in the items of a collection."""
    if name is None:
        inner = getattr(item, "item_type", None) or getattr(item, "value_type", None)
        return _options(inner) if inner is not None else []
    if isinstance(item, inspect.StructType):
        return [
            found
            for field in item.fields
            if field.encode_name == name
            for found in _options(field.type)
        ]
    return _options(item.value_type) if isinstance(item, inspect.DictType) else []


def _options(item: inspect.Type) -> list[inspect.Type]:
    """The alternatives of a union; a type by itself otherwise."""
    if isinstance(item, inspect.Metadata):
        return _options(item.type)
    if isinstance(item, inspect.UnionType):
        return [found for option in item.types for found in _options(option)]
    return [item]
