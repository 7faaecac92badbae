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

_WRAPPER_INSIDE = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
"""Modules that torch.compile, FSDP and activation checkpointing put around others, anywhere."""

TEXT_ENCODERS = (
    "bert",
    "camembert",
    "canine",
    "convbert",
    "data2vec_text",
    "deberta",
    "electra",
    "ernie",
    "esm",
    "fnet",
    "ibert",
    "layoutlm",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "megatron_bert",
    "mobilebert",
    "mpnet",
    "mra",
    "nystromformer",
    "rembert",
    "roberta",
    "roberta_prelayernorm",
    "roc_bert",
    "roformer",
    "splinter",
    "tapas",
    "xlm_roberta",
    "yoso",
)
"""Families of BERT, as transformers calls the encoder under a task head
(`base_model_prefix`). Without a head the same blocks are at ``encoder.layer``."""

STACKS: dict[str, str] = {
    # one stack of blocks, or, of two, the decoder
    "layers": "",
    "h": "",
    "blocks": "",
    "block": "",
    "layer": "",
    "model.layers": "",
    "model.h": "",
    "model.blocks": "",
    "model.layer": "",
    "model.model.layers": "",
    "transformer.h": "",
    "transformer.layers": "",
    "transformer.layer": "",
    "transformer.blocks": "",
    "transformer.encoder.layers": "",  # ChatGLM, SqueezeBERT
    "gpt_neox.layers": "",
    "backbone.layers": "",
    "backbone.blocks": "",
    "rwkv.blocks": "",
    "biogpt.layers": "",
    "model.decoder.layers": "",  # OPT; BART and Whisper under a head
    "decoder.layers": "",  # the same without a head
    # BERT
    "encoder.layer": "",
    "distilbert.transformer.layer": "",
    **{f"{family}.encoder.layer": "" for family in TEXT_ENCODERS},
    # two stacks: T5, BART, Whisper
    "encoder.block": "encoder.",
    "encoder.layers": "encoder.",
    "model.encoder.layers": "encoder.",
    "transformer.encoder.block": "encoder.",
    "decoder.block": "decoder.",
    "decoder.layer": "decoder.",
    "transformer.decoder.block": "decoder.",
}
"""Path of a stack of numbered blocks inside a language model -> what is put before the names
of its modules, so that block 3 of one stack is never taken for block 3 of another."""

LANGUAGE_SUBMODULES = tuple(
    f"{outer}{inner}"
    for outer in ("", "model.", "thinker.", "thinker.model.", "vlm.", "model.vlm.")
    for inner in ("language_model.", "llm.", "text_model.")
)
"""Submodules that hold the language model of a larger one: LLaVA, Qwen-VL, Gemma 3
(``language_model``), Idefics and SmolVLM (``text_model``), MiniCPM-V (``llm``), ColPali
(``vlm``), Qwen-Omni (``thinker``, beside a ``talker`` that is another model)."""

_BARE_SUBMODULES = ("thinker.", "backbone_model.")
"""Submodules that are the language model themselves: Qwen-Omni's thinker, CSM's backbone."""


def _all_stacks() -> dict[str, str]:
    """Every path of a stack, in a language model by itself or inside a larger model.

    The text tower of CLIP and its kin, ``text_model.encoder``, is no language model.
    """
    places = ("", *LANGUAGE_SUBMODULES, *_BARE_SUBMODULES)
    return {
        f"{place}{path}": stack
        for place in places
        for path, stack in STACKS.items()
        if not (place.endswith("text_model.") and "coder" in path)
    }


_STACKS = _all_stacks()
_TRUNKS = {path.rpartition(".")[0] for path, stack in _STACKS.items() if not stack} - {""}
LANGUAGE_MODEL_PREFIXES = frozenset(
    f"{trunk}."
    for trunk in _TRUNKS
    if trunk.endswith("model.decoder") or not trunk.endswith(("encoder", "decoder"))
)
"""What stands in front of a stack, and of weights beside it such as ``embed_tokens``."""
_MOST_COMPONENTS = max(prefix.count(".") for prefix in LANGUAGE_MODEL_PREFIXES)

_BLOCK = re.compile(
    r"(?P<stack>(?:[^.]+\.){0,7}?(?:layers|layer|h|blocks|block))\.(?P<layer>0|[1-9]\d{0,5})\.(?P<module>.+)",
    re.ASCII,
)
"""The first numbered block of a path. ``layers.00`` is none: no library writes or reads it so."""


def unwrapped(name: str) -> str:
    """A tensor's name without the modules that wrappers put around others, wherever they stand."""
    wrapped = "_wrapped_module" in name or "_orig_mod" in name
    return _WRAPPER_INSIDE.sub("", name) if wrapped else name


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
    match = _BLOCK.fullmatch(path)
    if match is not None and (stack := _STACKS.get(match["stack"])) is not None:
        return Site(int(match["layer"]), stack + match["module"])
    return Site(None, _without_prefix(path))


def _without_prefix(path: str) -> str:
    """A path without the longest of `LANGUAGE_MODEL_PREFIXES` it begins with."""
    parts = path.split(".", _MOST_COMPONENTS)
    for length in range(len(parts) - 1, 0, -1):
        prefix = ".".join(parts[:length]) + "."
        if prefix in LANGUAGE_MODEL_PREFIXES:
            return path.removeprefix(prefix)
    return path
