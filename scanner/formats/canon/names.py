"""How PEFT spells a tensor's name, and which paths a base model can have.

PEFT matches names letter by letter and ignores what it does not know. The readers understand
more: wrappers of data parallelism and torch.compile, missing prefixes and endings. Such tensors
are read, and may flag; that every loader takes them is not said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Protocol

from scanner.formats.model import TensorInfo
from scanner.formats.module_names import site_of

PREFIX = "base_model.model."
_PART = re.compile(r"^[A-Za-z_](?:[\w\-]*)$|^(?:0|[1-9]\d{0,5})$", re.ASCII)
"""One component of a module path: a name, or a number as Python writes it."""
_BLOCK = re.compile(
    r"^(?P<container>(?:.*?\.)?(?:layers|h|blocks|block|layer))\.\d+\.", re.ASCII | re.DOTALL
)
_STACKS = ("encoder.", "decoder.")
_EMBEDDINGS = frozenset(
    {
        "embed_in", "embed_positions", "embed_tokens", "position_embeddings",
        "relative_attention_bias", "shared", "tok_embeddings", "token_type_embeddings",
        "word_embedding", "word_embeddings", "wpe", "wte",
    }
)  # fmt: skip
"""Last components of modules that are `nn.Embedding` in the libraries' models."""
OUTPUT_LAYERS = frozenset({"lm_head", "embed_out", "output_layer", "score", "classifier"})
"""Last components of output layers and classification heads, PEFT's `SEQ_CLS_HEAD_NAMES` among
them."""
MAX_NAME = 512


class ModuleTensors(Protocol):
    """The tensors of one module, by the part each plays (`readers.grouping.Group`)."""

    module: str
    """Module path in the base model."""
    parts: dict[str, str]
    """Part -> tensor name."""
    infos: dict[str, TensorInfo]
    """Part -> the tensor's header entry."""


def is_embedding(module: str) -> bool:
    """Whether a module of this name is an embedding in the models PEFT adapts."""
    return module.rpartition(".")[2] in _EMBEDDINGS


def may_be_embedding(module: str) -> bool:
    """Whether a module can be an embedding: by its name, or as one of a name not known here.

    Those stand outside the numbered blocks, and so does the output layer, which is linear.
    """
    leaf = module.rpartition(".")[2]
    return is_embedding(module) or (site_of(module).layer is None and leaf not in OUTPUT_LAYERS)


def why_misspelt(group: ModuleTensors, endings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Tensors that PEFT does not write under their names, each with the reason.

    Args:
        group: The tensors of one module.
        endings: Part -> what PEFT writes after it; ``""`` where nothing is given.
    """
    for part, name in group.parts.items():
        expected = f"{PREFIX}{group.module}.{part}{endings.get(part, '')}"
        if name != expected:
            yield name, f"loaders differ on other spellings than PEFT's, {_shortened(expected)!r}"


def odd_path(module: str) -> str | None:
    """Why no base model has a module of this path, if so."""
    if len(module) > MAX_NAME:
        return "PEFT ignores it: no base model has a module path this long"
    for part in module.split("."):
        if not _PART.match(part):
            return f"PEFT ignores it: no base model spells a module {part[:40]!r}"
    return None


def _shortened(name: str) -> str:
    return name if len(name) <= 120 else f"{name[:60]}...{name[-57:]}"


def second_spellings(modules: Iterable[str]) -> dict[str, str]:
    """Modules under a second path to the same blocks, each with the reason.

    A base model holds its blocks under one path. Where a file uses two that both lead to the
    same sites (``model.layers.3`` and ``layers.3``), PEFT takes the tensors of one at most.

    Returns:
        Module -> reason.
    """
    located = sorted(
        (stack, container, module)
        for module in modules
        for stack, container in [_location(module)]
        if container is not None
    )
    reasons: dict[str, str] = {}
    for _, same_stack in groupby(located, key=lambda item: item[0]):
        by_container = [
            (container, [module for _, _, module in items])
            for container, items in groupby(same_stack, key=lambda item: item[1])
        ]
        if len(by_container) > 1:
            reasons |= _all_but_the_largest(by_container)
    return reasons | _beside_the_blocks(modules, [item[1] for item in located if item[0] == ""])


def _all_but_the_largest(by_container: Sequence[tuple[str, list[str]]]) -> dict[str, str]:
    first = max(by_container, key=lambda item: len(item[1]))
    return {
        module: f"PEFT ignores it: the base's blocks are under {first[0]!r} or under "
        f"{container!r}, not under both"
        for container, modules in by_container
        if container != first[0]
        for module in modules
    }


def _location(module: str) -> tuple[str, str | None]:
    """Which stack of blocks a module is in, and the path of that stack; None outside."""
    site = site_of(module)
    match = _BLOCK.match(module) if site.layer is not None else None
    if match is None:
        return "", None
    stack = next((stack for stack in _STACKS if site.module.startswith(stack)), "")
    return stack, match["container"]


def _beside_the_blocks(modules: Iterable[str], containers: Sequence[str]) -> dict[str, str]:
    """Embeddings and output layers that stand where the base has none.

    With its blocks in ``model.layers``, a base has ``model.embed_tokens`` and ``lm_head``, and
    neither ``embed_tokens`` nor ``model.lm_head``.
    """
    if not containers:
        return {}
    trunk = containers[0].rpartition(".")[0]
    reasons = {}
    for module in modules:
        parent, _, leaf = module.rpartition(".")
        if leaf == "lm_head" and trunk and parent == trunk:
            where = "beside its trunk, not in it"
        elif leaf == "embed_tokens" and parent != trunk:
            where = f"at {f'{trunk}.{leaf}'.lstrip('.')!r}"
        else:
            continue
        reasons[module] = f"PEFT ignores it: the base has its {leaf} {where}"
    return reasons
