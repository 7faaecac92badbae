"""A pack and its base model's weights -> the pack with norms and sketches of them.

For packs made by a method that never has the weights at hand. They are read with the
project's own readers of safetensors: no model is run, and torch is not needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scanner.errors import SignatureError
from scanner.formats.checkpoint import is_input_first, model_config, open_model
from scanner.formats.model import Site, TensorStore
from scanner.formats.module_names import site_of, strip_wrappers
from scanner.geometry.sketch import WeightSketch, sketch_weight
from scanner.signatures.base_facts import BaseFacts
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.saving import save_base


def add_base(pack: Path, model: Path) -> Signature:
    """Writes what a pack keeps of its base model's weights, replacing what it kept.

    Args:
        pack: The pack.
        model: Directory of the base model, with its safetensors and config.json.

    Returns:
        The pack, loaded again.

    Raises:
        SignatureError: If the pack is unusable, or the model is not the pack's base: a block's
            weight is missing, has another shape, or is not finite.
        UsageError: If there is no single checkpoint at `model`.
    """
    signature = load_signature(pack)
    store = open_model(model, "MODEL")
    try:
        sketches = _sketches(signature, store, model)
    finally:
        store.close()
    manifest = signature.manifest
    known = {site: item for site in signature.sites if (item := signature.site_inputs(site))}
    signature.close()
    save_base(pack, manifest, BaseFacts(sketches, known))
    return load_signature(pack)


def _sketches(signature: Signature, store: TensorStore, model: Path) -> dict[Site, WeightSketch]:
    """Sketches of the weights at the pack's sites; weights outside the blocks may be missing."""
    kind = str(model_config(model).get("model_type"))
    shapes = signature.manifest.base_model.shapes
    found: dict[Site, WeightSketch] = {}
    for name in store.names():
        if not name.endswith(".weight") or len(store.info(name).shape) != 2:
            continue
        module = strip_wrappers(name.removesuffix(".weight"))
        site = site_of(module)
        if site not in signature.sites:
            continue
        weight = store.read(name).T if is_input_first(module, kind) else store.read(name)
        if weight.shape != tuple(shapes.get(site.module, weight.shape)):
            raise SignatureError(
                f"{name} is {weight.shape[0]} x {weight.shape[1]}, in the pack's base "
                f"{signature.manifest.base_model.id} it is {shapes[site.module]}",
                where=str(model),
            )
        if not np.all(np.isfinite(weight)):
            raise SignatureError(f"{name} holds NaN or Inf", where=str(model))
        found[site] = sketch_weight(weight)
    missing = [site for site in signature.sites - found.keys() if site.layer is not None]
    if missing:
        raise SignatureError(
            f"has no weight for {missing[0].key}, where the pack has a direction",
            where=str(model),
            todo=f"give the directory of {signature.manifest.base_model.id} in safetensors, "
            "not quantised",
        )
    return found
