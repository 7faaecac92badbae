"""Packs from published steering vectors, persona vectors and control vectors.

Such a file holds one residual-stream direction u per layer and nothing else. Conventions
that are met, and what is made of them:

- A stack (n, d) in .pt, .npz, .npy or .safetensors. Persona vectors have n = layers + 1 and
  index 0 is the embeddings (hidden_states of transformers): direction l, the *output of block
  l*, is index l+1. Others have index l = block l. Shapes cannot tell: it must be said.
- A GGUF control vector: tensors ``direction.N``. llama.cpp adds direction.N to the output of
  block N and has none for block 0 (src/llama-adapter.cpp), so N is the block. Files from
  llama.cpp's own generator are measured one block earlier than they are applied
  (tools/cvector-generator labels block i's output ``direction.<i+1>``): for these say that the
  first index is the embeddings.

A direction u compares only with modules that write to the residual stream, and alone it has
no sign: u^T dW x depends on the input x. With the mean input v of each module (`inputs`) the
pack is the same as from method ``activations``, D = u v^T, and can be calibrated. Without,
it shows which share of an update is written along u, and neither clears nor flags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanner.errors import MissingExtraError, SignatureError, TargetError, option
from scanner.formats.model import FloatArray, Site, TensorStore
from scanner.formats.stores.opened import sha256_of_file
from scanner.formats.stores.sniff import open_store
from scanner.geometry import Direction
from scanner.signatures.manifest import (
    FORMAT_VERSION,
    LAYER_CONVENTION,
    BaseModel,
    Manifest,
    Reference,
)
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.saving import save_pack

UNSIGNED_UNITS = "unit vectors; no dose without an input side"
SIGNED_UNITS = "dose is the sum over sites of u^T dW v, u and v of unit norm; not in doses"
UNSIGNED_LIMIT = (
    "No input side: shows where an adapter writes, not which way. Neither clears nor flags."
)
DEFAULT_MODULES = ("self_attn.o_proj", "mlp.down_proj")
"""Residual-writing modules of Llama, Qwen, Mistral, Gemma and their like."""

_CONTROL = re.compile(r"^direction\.(\d{1,4})$", re.ASCII)


@dataclass(frozen=True)
class ImportOptions:
    """How a file is to be understood."""

    base_model: str
    first_index: str | None = None
    """``embeddings`` or ``block0``: what index 0 of a stack is."""
    key: str | None = None
    """Which tensor, if the file holds several stacks."""
    pack_id: str | None = None
    inputs: Path | None = None
    """Mean inputs of the modules, keyed as ``12.mlp.down_proj``; None for an unsigned pack."""
    modules: tuple[str, ...] = DEFAULT_MODULES
    """Residual-writing modules, for an unsigned pack."""
    reverse: bool = False
    """Whether the vectors point to the aligned side."""
    licence: str = "unknown"


def import_pack(file: Path, root: Path, options: ImportOptions) -> Signature:
    """Makes a pack from a file of steering vectors.

    Args:
        file: The vectors.
        root: Directory of the pack; replaced if it holds one.
        options: How to understand the file.

    Returns:
        The pack, uncalibrated.

    Raises:
        SignatureError: If the file is not what it should be, or leaves something open.
    """
    vectors = read_vectors(file, options)
    directions = (
        _unsigned(vectors, options.modules)
        if options.inputs is None
        else _signed(vectors, _read_inputs(options.inputs), options)
    )
    shapes = {
        site.module: (len(item.u), len(item.v)) for site, item in directions.items() if item.signed
    }
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        id=options.pack_id or file.stem,
        version="1",
        base_model=BaseModel(id=options.base_model, layers=max(vectors) + 1, shapes=shapes),
        method="imported",
        rank=1,
        nulled=0,
        layer_convention=LAYER_CONVENTION,
        units=SIGNED_UNITS if options.inputs else UNSIGNED_UNITS,
        references=[Reference(id=file.name, sha256=sha256_of_file(file), role="vectors")],
        licence=options.licence,
        limitations=[] if options.inputs else [UNSIGNED_LIMIT],
        files={},
    )
    save_pack(root, manifest, directions)
    return load_signature(root)


def read_vectors(file: Path, options: ImportOptions) -> dict[int, FloatArray]:
    """Reads a file of vectors.

    Returns:
        Block -> the direction at its output, (d,); zero directions are left out.

    Raises:
        SignatureError: If the file is not what it should be, or leaves something open.
    """
    names = _read_arrays(file)
    numbered = {int(m[1]): array for name, array in names.items() if (m := _CONTROL.match(name))}
    offset = 1 if options.first_index == "embeddings" else 0
    if numbered:
        stack = dict(sorted(numbered.items()))
    else:
        if options.first_index is None:
            raise SignatureError(
                "a stack of vectors does not say what its first index is",
                where=str(file),
                todo=f"say {option('first_index', 'embeddings')} (layers + 1 vectors, as persona "
                f"vectors), or {option('first_index', 'block0')}",
            )
        stack = dict(enumerate(_one_stack(file, names, options.key)))
    found: dict[int, FloatArray] = {}
    for index, vector in stack.items():
        if vector.shape != next(iter(stack.values())).shape or vector.ndim != 1:
            raise SignatureError(f"vector {index} has shape {vector.shape}", where=str(file))
        if not np.isfinite(vector).all():
            raise SignatureError(f"NaN or Inf in vector {index}", where=str(file))
        if index >= offset and vector.any():
            found[index - offset] = -vector if options.reverse else vector
    if not found:
        raise SignatureError("every vector is zero", where=str(file))
    return found


def _read_arrays(file: Path) -> dict[str, FloatArray]:
    """Every floating-point array of a file, by name; a bare array is named ``""``."""
    try:
        if file.suffix == ".npy":
            array = np.load(file, allow_pickle=False)
            return {"": np.asarray(array, dtype=np.float32)}
        if file.suffix in (".pt", ".pth", ".bin"):
            return _read_pickle(file)
        store = open_store(file)
        return {name: store.read(name) for name in store.names() if _is_floating(store, name)}
    except TargetError as error:
        raise SignatureError(error.what, where=error.where, todo=error.todo) from None
    except (OSError, ValueError) as error:
        raise SignatureError(f"cannot be read: {error}", where=str(file)) from None


def _is_floating(store: TensorStore, name: str) -> bool:
    return store.info(name).dtype.startswith(("F", "BF"))


def _read_pickle(file: Path) -> dict[str, FloatArray]:
    """A tensor, a list of tensors (one per layer), or a dict of tensors, by torch."""
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            "a pickled file, and torch is not installed",
            where=str(file),
            todo="pip install 'adapter-scanner[torch]', or convert the file to safetensors",
        ) from None
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here, zipfile's and struct's among them
        raise ValueError(f"torch refuses the pickle ({type(error).__name__})") from None
    if isinstance(loaded, (list, tuple)) and all(torch.is_tensor(item) for item in loaded):
        loaded = torch.stack([item.flatten() for item in loaded])
    items = loaded if isinstance(loaded, dict) else {"": loaded}
    return {
        str(name): value.float().numpy()
        for name, value in items.items()
        if torch.is_tensor(value) and value.is_floating_point()
    }


def _one_stack(file: Path, arrays: Mapping[str, FloatArray], key: str | None) -> FloatArray:
    """The (n, d) array that is meant.

    Raises:
        SignatureError: If there is none, or which one is not clear.
    """
    stacks = {name: array for name, array in arrays.items() if array.ndim == 2}
    if key is not None:
        if key not in stacks:
            raise SignatureError(
                f"holds no stack {key!r}, but {sorted(stacks)}", where=str(file), todo="name one"
            )
        return stacks[key]
    if len(stacks) != 1:
        raise SignatureError(
            f"holds {len(stacks)} stacks of vectors (n, d): {sorted(stacks)}",
            where=str(file),
            todo=f"name one with {option('key')}",
        )
    return next(iter(stacks.values()))


def _read_inputs(file: Path) -> dict[Site, FloatArray]:
    """Mean module inputs by site.

    Raises:
        SignatureError: If a key names no block, or an input is no finite vector.
    """
    inputs: dict[Site, FloatArray] = {}
    for name, array in _read_arrays(file).items():
        site = Site.from_key(name)
        if site.layer is None:
            raise SignatureError(
                f"{name!r} names no block", where=str(file), todo="name it like 12.mlp.down_proj"
            )
        if array.ndim != 1 or not np.isfinite(array).all() or not array.any():
            raise SignatureError(f"{name!r} is no finite, nonzero vector", where=str(file))
        inputs[site] = array
    return inputs


def _signed(
    vectors: Mapping[int, FloatArray], inputs: Mapping[Site, FloatArray], options: ImportOptions
) -> dict[Site, Direction]:
    """The unit direction u v^T at every site with an input and a vector."""
    found = {}
    for site, v in inputs.items():
        assert site.layer is not None, "checked when the inputs were read"
        if (u := vectors.get(site.layer)) is not None:
            sizes = np.linalg.norm(u), np.linalg.norm(v)
            found[site] = Direction(
                u=(u / sizes[0])[:, np.newaxis],
                s=np.ones(1),
                v=(v / sizes[1])[:, np.newaxis],
            )
    if not found:
        raise SignatureError(
            "no module input belongs to a layer with a vector", where=str(options.inputs)
        )
    return found


def _unsigned(vectors: Mapping[int, FloatArray], modules: tuple[str, ...]) -> dict[Site, Direction]:
    """Column spaces alone, at the residual-writing modules."""
    return {
        Site(layer, module): Direction(
            u=(u / np.linalg.norm(u))[:, np.newaxis], s=np.ones(1), v=np.zeros((0, 1))
        )
        for layer, u in vectors.items()
        for module in modules
    }
