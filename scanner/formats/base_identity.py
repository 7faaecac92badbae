"""Which base model an adapter belongs to: its name, and the shapes that go with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from scanner.formats.model import Update

_BITS = r"(?<!\d\.)[2-8][-_]?bits?"
_GROUP = r"(?:[-_]g?(?:32|64|128)g?)"
_GGUF_TYPE = (
    r"(?:ud[-_])?(?:i?q[1-8]_(?:[01]|k|nl|xxs|xs|s|m|l)(?:_(?:xxs|xs|s|m|l|xl))?"
    r"|q4_0_\d_\d|tq[12]_0|q[2-8]|f16|f32|bf16|mxfp4_moe)"
)
_PACKAGING = (
    # bits by themselves: MLX, bitsandbytes, Qwen's Int4 and Int8
    rf"(?:{_BITS}|int[248]){_GROUP}?",
    rf"(?:bnb|bitsandbytes)(?:[-_]?(?:{_BITS}|int8|nf4|fp4))?",
    r"nf4|unsloth",
    # MLX: mlx-community, LM Studio
    r"mlx",
    r"dwq(?:[-_](?:v\d|\d{4}(?:\d\d){0,2}))?",
    # GPTQ, AWQ and their kin, with bits and group size on either side
    rf"(?:gptq(?:model)?|awq|hqq|eetq|quanto|torchao|auto[-_]?round|marlin)"
    rf"(?:[-_]?(?:{_BITS}|int[248]))?{_GROUP}?(?:[-_]actorder(?:[-_](?:true|false))?)?",
    r"aqlm(?:[-_]pv)?[-_][1-4]bit[-_]\dx\d{1,2}",
    r"exl[23](?:[-_]\d(?:\.\d+)?bpw)?(?:[-_]h[68])?|(?<!\d\.)\d(?:\.\d+)?bpw(?:[-_]h[68])?",
    # compressed-tensors, ModelOpt
    r"(?:un|de)?quantized",
    rf"w[2-8]a(?:4|8|16)(?:{_GROUP}|[-_](?:int8|fp8|asym|sym|dynamic|static))*",
    r"fp8(?:[-_](?:dynamic|static|block|kv|e4m3|e5m2|torchao))?|fp4",
    r"nvfp4(?:a16)?|mxfp[468](?:a16|a8)?|qat",
    # GGUF
    rf"(?:i1[-.])?(?:gguf|ggml|{_GGUF_TYPE})",
    # whole precision, repackaged
    r"bf16|fp16|fp32|float16|bfloat16|sharded|safetensors|hf",
)
"""What the names of repackaged models end in. Only what leaves the model the same but for
rounding stands here: words such as ``instruct``, ``chat``, ``merged``, ``abliterated`` or
``distill`` name another model."""

_SUFFIX = re.compile(rf"[-_.:@](?:{'|'.join(_PACKAGING)})$")
_REVISION = re.compile(r"main|master|[0-9a-f]{7,64}")
"""A revision that stands for the repository itself. Other branches and tags (``step3000``)
are other weights."""
_HUB_FOLDER = re.compile(r"models--(?:[^/]+?--)?(.+)")
_KAGGLE_FRAMEWORKS = frozenset(
    {"transformers", "pytorch", "gguf", "keras", "jax", "flax", "safetensors", "other"}
)
_SPLIT_GGUF = re.compile(r"(?:-\d{5}-of-\d{5})?\.gguf$")
_NAMES_NOTHING = re.compile(
    r"\d+|[0-9a-f]{7,64}|(?:checkpoint|ckpt|epoch|step|iter|global_step)[-_]?\d*"
    r"|(?:final|best|last|latest|merged|base|ggml|pytorch|hf)(?:[-_](?:model|checkpoint))?"
    r"|model|original|snapshots?|main|master|default|weights|output"
)
"""Folders that many models are kept in."""

_LONGEST_NAME = 255
"""Characters; neither a hub nor a file system has longer names."""


def normalise_base_name(name: str | None) -> str | None:
    r"""What identifies a base model in what an adapter calls it: an id of a hub, or a path.

    ``unsloth/Llama-3.2-1B-Instruct-bnb-4bit``, ``C:\models\llama-3.2-1b-instruct`` and
    ``.../models--meta-llama--Llama-3.2-1B-Instruct/snapshots/0e9e39f2...`` all give
    ``llama-3.2-1b-instruct``. Owners are dropped because mirrors keep the model's name;
    that two models of one name are the same is checked again by their shapes.

    Whatever is not known to be mere packaging is kept, so that of two names that differ in
    anything else the results differ too. A path whose last folder says nothing
    (``out/checkpoint-500``) is kept whole.

    Returns:
        The normalised name, or None if the name says nothing.
    """
    path = re.sub(r"\s*[/\\]\s*", "/", (name or "").strip().lower())
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or parts[-1] == "..":
        return None
    if path.startswith("/"):
        parts.insert(0, "")
    base = _unpackaged(_model_in(parts))
    return "/".join(parts) if _NAMES_NOTHING.fullmatch(base) else base


def _model_in(parts: Sequence[str]) -> str:
    """The component of a path that names the model, as the caches of the hubs lay it out.

    Sources: huggingface_hub.file_download.repo_folder_name; modelscope's snapshot_download,
    which writes ``___`` for a dot; kagglehub's cache, ``owner/model/framework/variation/1``.
    """
    last = parts[-1]
    for index, part in enumerate(parts):
        if folder := _HUB_FOLDER.fullmatch(part):
            rest = parts[index + 1 :]
            if rest and rest[0] == "snapshots":
                rest = rest[2:] if len(rest) > 1 and _REVISION.fullmatch(rest[1]) else rest
            if rest and last.endswith(".gguf"):
                return last
            return "/".join((folder[1], *rest))
    if parts[0] == "https:" and parts[-2:-1] == ["tree"] and _REVISION.fullmatch(last):
        return parts[-3]
    if last.isdecimal() and (version_of := _kaggle_model(parts[:-1])):
        return version_of
    return last.replace("___", ".")


def _kaggle_model(parts: Sequence[str]) -> str | None:
    """The model a numbered version of Kaggle's belongs to; None if it is no path of Kaggle's.

    Args:
        parts: The path without the version: a place where Kaggle's models are kept, or a handle,
            ``owner/model/framework/variation``.
    """
    downloaded = "kagglehub" in parts or ("kaggle", "input") in pairwise(parts[:-1])
    is_handle = len(parts) == 4 and parts[0] != ""
    if len(parts) > 2 and parts[-2] in _KAGGLE_FRAMEWORKS and (downloaded or is_handle):
        model, _, variation = parts[-3:]
        if variation == "default":
            return model
        return variation if variation.startswith(model) else f"{model}-{variation}"
    return parts[-1] if downloaded else None


def _unpackaged(base: str) -> str:
    """A model's name without revision, quantisation and file type."""
    if len(base) > _LONGEST_NAME:
        return base
    head, _, revision = base.rpartition("@")
    if head and _REVISION.fullmatch(revision):
        base = head
    base = _SPLIT_GGUF.sub("", base)
    while (match := _SUFFIX.search(base)) and match.start():
        base = base[: match.start()]
    return re.sub(r"^meta-llama-(?=3)", "llama-", base)


def shape_fingerprint(updates: Iterable[Update]) -> dict[str, tuple[int, int]]:
    """Module name -> (d_out, d_in), over the blocks; what an adapter shows of its base.

    A module whose shape differs between layers is left out: it identifies nothing.
    """
    shapes: dict[str, set[tuple[int, int]]] = {}
    for update in updates:
        shapes.setdefault(update.module, set()).add((update.d_out, update.d_in))
    return {module: next(iter(found)) for module, found in shapes.items() if len(found) == 1}


def shape_conflicts(
    updates: Iterable[Update], shapes: Mapping[str, tuple[int, int]], layers: int
) -> list[str]:
    """What in an adapter cannot belong to a base of the given shapes.

    Args:
        updates: The adapter's updates.
        shapes: Module name -> (d_out, d_in) of the base.
        layers: Number of blocks of the base.

    Returns:
        One sentence per kind of conflict; empty if none. Modules the base's shapes do not
        list are no conflict.
    """
    conflicts: dict[str, str] = {}
    for update in updates:
        expected = shapes.get(update.module)
        if expected is not None and expected != (update.d_out, update.d_in):
            conflicts.setdefault(
                update.module,
                f"{update.module} is {update.d_out} x {update.d_in}, "
                f"the base has {expected[0]} x {expected[1]}",
            )
        if update.layer is not None and update.layer >= layers:
            conflicts.setdefault("layer", f"layer {update.layer}, the base has {layers} layers")
    return list(conflicts.values())
