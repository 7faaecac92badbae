"""Module paths of base models -> sites.

A path such as ``model.layers.3.self_attn.o_proj`` names block 3, module
``self_attn.o_proj``. Which prefixes may stand before the numbered block is data; anything
else that stands there (``vision_tower.encoder``) stays in the module name, so that it can
never be mistaken for the language model's own block.
"""

from __future__ import annotations

import re

from scanner.formats.model import Site

WRAPPER_PREFIXES = ("base_model.model.", "base_model.", "module.", "_orig_mod.")
"""Put in front by PEFT, data parallelism and torch.compile; they name nothing."""

LANGUAGE_MODEL_PREFIXES = (
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "model.decoder.",
    "model.model.",
    "model.",
    "transformer.",
    "gpt_neox.",
    "backbone.",
    "bert.encoder.",
    "roberta.encoder.",
    "xlm_roberta.encoder.",
    "electra.encoder.",
    "deberta.encoder.",
    "distilbert.transformer.",
    "transformer.encoder.",
)
"""Paths of a trunk that has one stack of blocks (or, of two, the decoder). The longest that
fits is taken: ``model.`` would eat the others."""

OTHER_STACKS = {
    "model.encoder.": "encoder.",
    "encoder.": "encoder.",
    "decoder.": "decoder.",
}
"""Path of one of several stacks of blocks (T5, BART, Whisper) -> what is put before the
module's name, so that block 3 of one is never taken for block 3 of another."""

BLOCK_CONTAINERS = ("layers", "h", "blocks", "block", "layer")
"""Names of the list that holds the numbered blocks."""

_BLOCK = re.compile(rf"^(?:{'|'.join(BLOCK_CONTAINERS)})\.(\d{{1,6}})\.(.+)$", re.ASCII)


def strip_wrappers(path: str) -> str:
    """Removes what wrappers put in front of the base model's own module path."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in WRAPPER_PREFIXES:
            if path.startswith(prefix):
                path = path[len(prefix) :]
                stripped = True
                break
    return path


def site_of(path: str) -> Site:
    """The site a module path names.

    Args:
        path: Module path inside the base model, wrappers removed, e.g.
            ``model.layers.3.self_attn.o_proj``, ``transformer.h.0.attn.c_attn``, ``lm_head``.
    """
    path = path.replace(".base_layer", "")
    for prefix, stack in OTHER_STACKS.items():
        if path.startswith(prefix) and (match := _BLOCK.match(path[len(prefix) :])):
            return Site(int(match[1]), stack + match[2])
    prefix = max((p for p in LANGUAGE_MODEL_PREFIXES if path.startswith(p)), key=len, default="")
    trunk = path[len(prefix) :]
    if match := _BLOCK.match(trunk):
        return Site(int(match[1]), match[2])
    return Site(None, trunk)
