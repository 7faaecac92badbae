"""A file of steering vectors -> its arrays by name, and what it holds in words.

Dicts within dicts and lists become one level, their keys joined by ``/``. What a name or a
shape means is said in `scanner.signatures.building.vectors`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanner.errors import MissingExtraError, SignatureError, TargetError
from scanner.formats.model import FloatArray, TensorStore
from scanner.formats.stores.sniff import open_store

_PICKLED = (".pt", ".pth", ".bin", ".pkl", ".pickle")
_DEEPEST = 8
_SHOWN = 8
_LONGEST_NOTE = 60
_GLOBAL = re.compile(r"\bGLOBAL ([\w.]{1,80})")


@dataclass(frozen=True)
class Held:
    """What a file holds."""

    arrays: dict[str, FloatArray]
    """Floating-point arrays by name; a bare array is named ``""``."""
    others: dict[str, str]
    """What else there is, in a few words."""

    @property
    def words(self) -> str:
        """The same as a list: names, shapes, and values that may say what they mean."""
        named = [f"{name or 'an array'} {array.shape}" for name, array in self.arrays.items()]
        named += [f"{name} {what}" for name, what in self.others.items()]
        if not named:
            return "nothing"
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        return ", ".join(named[:_SHOWN]) + more


def read_arrays(file: Path) -> Held:
    """Everything in a file.

    Raises:
        SignatureError: If it cannot be read.
        MissingExtraError: If it is pickled and torch is not installed.
    """
    try:
        if file.suffix == ".npy":
            return _gathered(np.load(file, allow_pickle=False))
        if file.suffix in _PICKLED:
            return _gathered(_unpickled(file))
        return _stored(open_store(file))
    except TargetError as error:
        if isinstance(error, MissingExtraError):
            raise
        raise SignatureError(error.what, where=error.where, todo=error.todo) from None
    except (OSError, ValueError) as error:
        raise SignatureError(f"cannot be read: {error}", where=str(file)) from None


def _stored(store: TensorStore) -> Held:
    held = Held({}, {})
    for name in store.names():
        info = store.info(name)
        if info.dtype.startswith(("F", "BF")):
            held.arrays[name] = store.read(name)
        else:
            held.others[name] = f"({info.dtype})"
    return held


def _unpickled(file: Path) -> Any:
    """What a pickle holds, by torch's restricted unpickler: tensors, arrays, plain containers."""
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            "a pickled file, and torch is not installed",
            where=str(file),
            todo="pip install 'adapter-scanner[torch]', or convert the file to safetensors",
        ) from None
    try:
        with torch.serialization.safe_globals(_array_makers()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here, zipfile's and struct's among them
        wanted = _GLOBAL.search(str(error))
        why = f"it holds a {wanted[1]}" if wanted else type(error).__name__
        raise ValueError(
            f"torch refuses the pickle ({why}); save its vectors as safetensors, or a repeng "
            "ControlVector with its export_gguf"
        ) from None


def _array_makers() -> list[Any]:
    """What numpy pickles arrays of numbers with; none of it runs anything from the file."""
    import _codecs
    from importlib import import_module

    home = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
    multiarray = import_module(f"{home}.multiarray")
    kinds = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")}
    makers = [
        (getattr(multiarray, name), f"{package}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for package in ("numpy.core", "numpy._core")
    ]
    return [np.ndarray, np.dtype, _codecs.encode, *kinds, *makers]


def _gathered(loaded: Any) -> Held:
    held = Held({}, {})
    for name, value in _leaves(loaded, "", 0):
        array = _array(value)
        if array is None:
            held.others[name or "the file"] = _note(value)
        else:
            held.arrays[name] = array
    return held


def _leaves(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Everything that is no container, with the keys that lead to it.

    Raises:
        ValueError: If containers are nested deeper than any file of vectors.
    """
    if isinstance(value, Mapping):
        items: Iterator[tuple[Any, Any]] = iter(value.items())
    elif isinstance(value, (list, tuple)):
        items = iter(enumerate(value))
    else:
        yield name, value
        return
    if depth == _DEEPEST:
        raise ValueError(f"its dicts are nested deeper than {_DEEPEST}")
    for key, inner in items:
        yield from _leaves(inner, f"{name}/{key}" if name else str(key), depth + 1)


def _array(value: Any) -> FloatArray | None:
    """A tensor or an array of floating-point numbers with at least one axis; None if it is none."""
    if hasattr(value, "is_floating_point") and hasattr(value, "detach"):  # a torch tensor
        if not value.is_floating_point() or value.ndim == 0:
            return None
        value = value.detach().float().numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim == 0:
        return None
    return np.asarray(value, dtype=np.float32)


def _note(value: Any) -> str:
    if isinstance(value, (bool, int, float, str)):
        return f"= {value!r}"[:_LONGEST_NOTE]
    shape = getattr(value, "shape", None)
    return f"({type(value).__name__}{f' {tuple(shape)}' if shape is not None else ''})"
