"""How a notebook shows the objects of the public interface.

Those objects live in rooms that know nothing of reports. Whoever puts the house together
(`scanner/__init__.py`) says which function draws which of them; it is imported when a notebook
asks for a picture.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_DRAWN_BY: dict[str, str] = {}


def register(kind: str, function: str) -> None:
    """Says what draws a kind of object.

    Args:
        kind: A name that the object's class gives to `drawn`.
        function: ``module:function``; takes the object and returns HTML.
    """
    _DRAWN_BY[kind] = function


def drawn(kind: str, value: object) -> str | None:
    """An object as HTML; None if nothing draws its kind, so that a notebook shows its text."""
    if kind not in _DRAWN_BY:
        return None
    module, _, function = _DRAWN_BY[kind].partition(":")
    draw: Any = getattr(import_module(module), function)
    return str(draw(value))
