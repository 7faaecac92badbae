"""Arrays of a file -> one residual-stream direction per block.

What files hold, and what is made of it:

- A stack (n, d), or vectors by layer: a dict with keys such as ``12``, ``layer_12``,
  ``model.layers.12`` or ``blocks.12.hook_resid_post``, which may lie within other dicts. Persona
  vectors have n = layers + 1 and index 0 is the embeddings (hidden_states of transformers):
  direction l, the *output of block l*, is index l+1. Others have index l = block l. Neither
  shapes nor numbers tell: it must be said, unless the names are those of the blocks themselves.
- Stacks (positions, layers, d), as difference-in-means directions are kept: one position counts.
- A single vector (d,): its layer must be said.
- A GGUF control vector (llama.cpp's, repeng's): tensors ``direction.N``. llama.cpp adds
  direction.N to the output of block N and has none for block 0 (src/llama-adapter.cpp), so N is
  the block. Files from llama.cpp's own generator are measured one block earlier than they are
  applied (tools/cvector-generator labels block i's output ``direction.<i+1>``): for these say
  that the first index is the embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanner.errors import SignatureError, option
from scanner.formats.model import FloatArray
from scanner.signatures.building.vector_files import Held, read_arrays

_LAYER = re.compile(
    r"(?P<before>(?:.*?(?:layers?|blocks?|hidden_states?|direction|(?:^|(?<=[._\- ]))[hl])"
    r"[._\- ]?)?)(?P<number>[0-9]{1,4})(?P<after>(?:[._\- ][^0-9]*)?)",
    re.ASCII | re.IGNORECASE,
)
"""The last part of a name that numbers a layer: the number alone, or after a word for one."""
_CONTROL = "direction.#"
_BLOCK_OUTPUTS = re.compile(r"(?:^|\.)(?:layers|blocks|h)\.#(?:\.hook_resid_post)?$")
_BLOCK_INPUTS = re.compile(r"hook_resid_pre$")
_MOST_ALIKE = 6


@dataclass(frozen=True)
class VectorOptions:
    """How a file of vectors is to be understood."""

    first_index: str | None = None
    """``embeddings`` or ``block0``: what index 0 is."""
    key: str | None = None
    """Which of several arrays, or which dict of them."""
    layer: int | None = None
    """The block at whose output a single vector lies."""
    position: int | None = None
    """Which of several token positions; negative ones count from the last."""
    reverse: bool = False
    """Whether the vectors point to the aligned side."""


@dataclass(frozen=True)
class _Candidate:
    """Arrays that may be meant: by index of the layer, each (d,) or (positions, d)."""

    name: str
    by_index: dict[int, FloatArray]
    pattern: str = ""
    """The name of each with ``#`` for its number; empty for a stack."""
    single: bool = False
    """Whether it is one vector, whose layer nothing says."""


def read_vectors(file: Path, options: VectorOptions) -> dict[int, FloatArray]:
    """Reads a file of vectors.

    Returns:
        Block -> the direction at its output, (d,); zero directions are left out.

    Raises:
        SignatureError: If the file is not what it should be, or leaves something open; it says
            what the file holds.
        MissingExtraError: If it is pickled and torch is not installed.
    """
    held = read_arrays(file)
    chosen = _chosen(file, held, options)
    stack = {
        index: _at_position(file, held, index, array, options.position)
        for index, array in sorted(chosen.by_index.items())
    }
    if chosen.single:
        if options.layer is None:
            raise _open(file, "a single vector does not say its layer", held, option("layer", 12))
        return _checked(file, {options.layer: stack[0]}, 0, options)
    if options.layer is not None:
        raise _open(file, "vectors of several layers", held, "nothing of a layer")
    return _checked(file, stack, _offset(file, held, chosen, options), options)


def _offset(file: Path, held: Held, chosen: _Candidate, options: VectorOptions) -> int:
    """How much larger an index is than the block it belongs to.

    Raises:
        SignatureError: If neither the names nor the caller say it.
    """
    said = {"embeddings": 1, "block0": 0, None: None}[options.first_index]
    last = chosen.pattern.rpartition("/")[2]
    if said is not None:
        return said
    if last == _CONTROL or _BLOCK_OUTPUTS.search(last):
        return 0
    if _BLOCK_INPUTS.search(last):
        return 1
    raise _open(
        file,
        "a stack of vectors does not say what its first index is",
        held,
        f"{option('first_index', 'embeddings')} (layers + 1 vectors, as persona vectors), or "
        f"{option('first_index', 'block0')}",
    )


def _checked(
    file: Path, stack: Mapping[int, FloatArray], offset: int, options: VectorOptions
) -> dict[int, FloatArray]:
    width = next(iter(stack.values())).shape
    found: dict[int, FloatArray] = {}
    for index, vector in stack.items():
        if vector.shape != width or vector.ndim != 1:
            raise SignatureError(f"vector {index} has shape {vector.shape}", where=str(file))
        if not np.isfinite(vector).all():
            raise SignatureError(f"NaN or Inf in vector {index}", where=str(file))
        if index >= offset and vector.any():
            found[index - offset] = -vector if options.reverse else vector
    if not found:
        raise SignatureError("every vector is zero", where=str(file))
    return found


def _open(file: Path, what: str, held: Held, say: str) -> SignatureError:
    """An error about something that a file leaves open, with what it holds."""
    return SignatureError(f"{what} (it holds {held.words})", where=str(file), todo=f"say {say}")


def _chosen(file: Path, held: Held, options: VectorOptions) -> _Candidate:
    """The arrays that are meant.

    Raises:
        SignatureError: If there are none, or which ones is not clear.
    """
    key, arrays = options.key, held.arrays
    if key is not None:
        arrays = {
            name: array
            for name, array in arrays.items()
            if name == key or name.startswith(f"{key}/")
        }
    candidates = _candidates(arrays)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        listed = [item.name for item in candidates]
        more = f" and {len(listed) - _MOST_ALIKE} more" if len(listed) > _MOST_ALIKE else ""
        raise _open(
            file,
            f"{len(candidates)} sets of vectors may be meant: "
            f"{', '.join(listed[:_MOST_ALIKE])}{more}",
            held,
            option("key", listed[0]),
        )
    what = "no vectors" if key is None else f"no vectors called {key!r}"
    raise SignatureError(
        f"holds {what}, but {held.words}",
        where=str(file),
        todo="a stack (layers, d) or (positions, layers, d), vectors by layer, or one vector",
    )


def _candidates(arrays: Mapping[str, FloatArray]) -> list[_Candidate]:
    """Everything in a file that may be a set of directions; single vectors if nothing else is."""
    groups: dict[str, dict[int, str]] = {}
    for name, array in arrays.items():
        if array.ndim <= 2 and (numbered := _numbered(name)) is not None:
            pattern, number = numbered
            groups.setdefault(pattern, {})[number] = name
    found, used = [], set[str]()
    for pattern, names in groups.items():
        members = {index: arrays[name] for index, name in names.items()}
        if len(members) == 1 and next(iter(members.values())).ndim == 2:
            continue  # a stack that happens to have a number in its name
        used.update(names.values())
        prefix = pattern.rpartition("/")[0]
        found.append(_Candidate(prefix or pattern, members, pattern))
    for name, array in arrays.items():
        if name in used or array.ndim not in (2, 3):
            continue
        layers = array if array.ndim == 2 else array.swapaxes(0, 1)
        single = array.ndim == 2 and len(array) == 1
        found.append(_Candidate(name, dict(enumerate(layers)), single=single))
    return found or [
        _Candidate(name, {0: array}, single=True)
        for name, array in arrays.items()
        if array.ndim == 1
    ]


def _numbered(name: str) -> tuple[str, int] | None:
    """A name that numbers a layer: with ``#`` for the number, and the number."""
    prefix, slash, last = name.rpartition("/")
    found = _LAYER.fullmatch(last)
    if found is None:
        return None
    return f"{prefix}{slash}{found['before']}#{found['after']}", int(found["number"])


def _at_position(
    file: Path, held: Held, index: int, array: FloatArray, position: int | None
) -> FloatArray:
    """One vector of several token positions.

    Raises:
        SignatureError: If there are several and none was said, or there is no such position.
    """
    if array.ndim == 1:
        return array
    if len(array) == 1 and position is None:
        return np.asarray(array[0])
    if position is None:
        raise _open(
            file,
            f"{len(array)} token positions for each layer",
            held,
            f"{option('position', -1)} for the last",
        )
    if not -len(array) <= position < len(array):
        raise SignatureError(
            f"layer index {index} has {len(array)} positions, not one numbered {position}",
            where=str(file),
        )
    return np.asarray(array[position])
