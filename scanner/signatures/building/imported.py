"""Packs from published steering vectors, persona vectors and control vectors.

Such a file holds one residual-stream direction u per layer and nothing else;
`scanner.signatures.building.vectors` reads it.

A direction u compares only with modules that write to the residual stream, and alone it has
no sign: u^T dW x depends on the input x. With the mean input v of each module (`inputs`) the
pack is the same as from method ``activations``, D = u v^T, and can be calibrated. Without,
it shows which share of an update is written along u, and neither clears nor flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scanner.errors import SignatureError
from scanner.formats.model import FloatArray, Site
from scanner.formats.stores.opened import sha256_of_file
from scanner.geometry import Direction
from scanner.signatures.building.vector_files import read_arrays
from scanner.signatures.building.vectors import VectorOptions, read_vectors
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


@dataclass(frozen=True)
class ImportOptions:
    """How a file is to be understood."""

    base_model: str
    vectors: VectorOptions = field(default_factory=VectorOptions)
    """How the file of vectors is to be understood."""
    pack_id: str | None = None
    inputs: Path | None = None
    """Mean inputs of the modules, keyed as ``12.mlp.down_proj``; None for an unsigned pack."""
    modules: tuple[str, ...] = DEFAULT_MODULES
    """Residual-writing modules, for an unsigned pack."""
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
    vectors = read_vectors(file, options.vectors)
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


def _read_inputs(file: Path) -> dict[Site, FloatArray]:
    """Mean module inputs by site.

    Raises:
        SignatureError: If a key names no block, or an input is no finite vector.
    """
    inputs: dict[Site, FloatArray] = {}
    for name, array in read_arrays(file).arrays.items():
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
