"""Whether a file has tensors for every module that its config selects, as far as it can tell.

Where the loader's fresh layers do something, a module that the file lacks gets random weights.
The base is not at hand: within the file each block has to hold the same modules, and each name in
`target_modules` some. How many blocks the base has is for whoever has a pack of it to check
(`Adapter.fills_blocks`).
"""

from __future__ import annotations

from scanner.formats.canon.targets import Targets
from scanner.formats.module_names import site_of

FILLED = "the file lacks it, and PEFT fills it at random"


def lacking(targets: Targets, modules: frozenset[str]) -> str | None:
    """A module that the config selects and the file lacks, if one can be told.

    Args:
        targets: What the config selects.
        modules: Every module the file holds tensors of.
    """
    return lacking_module(modules) or targets.unused_name(modules)


def lacking_module(modules: frozenset[str]) -> str | None:
    """A module that one block lacks and others have, if blocks 0 to the last differ.

    What all of the last blocks lack stays unseen here.
    """
    located = {module: site_of(module) for module in modules}
    layers = [site.layer for site in located.values() if site.layer is not None]
    if not layers or max(layers) > len(modules):
        return f"layers.{min(set(range(len(modules) + 1)) - set(layers))}" if layers else None
    present = {(site.layer, site.module) for site in located.values()}
    for module, site in located.items():
        if site.layer is None:
            continue
        for layer in range(max(layers) + 1):
            if (layer, site.module) not in present:
                return module.replace(f".{site.layer}.", f".{layer}.", 1)
    return None
