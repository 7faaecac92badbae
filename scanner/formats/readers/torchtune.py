"""torchtune: `layers.N.attn.q_proj.lora_a.weight` (r, in), `.lora_b.weight` (out, r).

alpha is in the adapter_config.json that torchtune writes beside them. Rows of q and k of
Llama-like models are in Meta's order (`torchtune/models/convert_weights.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from scanner.errors import MalformedFileError, MissingConfigError
from scanner.formats.architectures import TORCHTUNE
from scanner.formats.model import Factors, Site, TensorStore, Uncovered, Update
from scanner.formats.peft_config import PeftConfig
from scanner.formats.readers.grouping import (
    Group,
    Plan,
    group_by_module,
    in_order,
    plan_all,
    to_update,
)
from scanner.formats.readers.leftovers import reason_for
from scanner.formats.readers.notes import FormatNote
from scanner.formats.readers.rope import check_heads, head_dimension, unpaired
from scanner.formats.source import Reading, Source

FORMAT = "torchtune-lora"

_FACTOR = re.compile(r"^(?P<module>.+?)\.(?P<part>lora_[ab])\.weight$")
_LAYER = re.compile(r"^(?:decoder\.)?layers\.(\d{1,6})\.(.+)$", re.ASCII)
_META_ORDER = ("llama", "mistral", "stories", "gemma")
_OWN_ORDER = ("qwen", "phi")
"""Parts of base names: whose q and k torchtune keeps in Meta's order, and whose it does not."""


NOTES = (
    FormatNote(
        "torchtune",
        "alpha / r B A, rows of q and k brought back from Meta's order",
        "q and k of bases whose order is unknown. Without its config: an error",
        "tensors that torchtune's own conversion turns back into PEFT's",
    ),
)
"""Rows of docs/formats.md."""


def recognises(source: Source) -> bool:
    """Whether any tensor is a factor in torchtune's naming."""
    return any(_FACTOR.match(name) for name in source.store.names())


def read(source: Source) -> Reading:
    """Reads a torchtune adapter.

    Raises:
        MissingConfigError: If there is no config, so that alpha is unknown.
    """
    config = source.config
    if config is None:
        raise MissingConfigError(
            "adapter_config.json is missing beside the weights",
            where=source.where,
            todo="put it there: scaling and base model are in it",
        )
    groups, others, twice = group_by_module(
        source.store, source.store.names(), _FACTOR, lambda module: module
    )
    updates, faults = plan_all(groups, partial(_updates, source.store, config))
    rest = [Uncovered(name, reason_for(name)) for name in others]
    ordered, uncovered = in_order(updates, [*twice, *faults, *rest])
    return Reading(FORMAT, config.base_model, ordered, uncovered)


def _site(module: str) -> Site:
    layer = _LAYER.match(module)
    path = layer[2] if layer else module
    if path not in TORCHTUNE:
        raise MalformedFileError("a module of unknown name")
    return Site(int(layer[1]) if layer else None, TORCHTUNE[path])


def _head(module: str, d_out: int, d_in: int, base_model: str | None) -> int | None:
    """Size of a head if the rows are in Meta's order, None if they are in the base's own.

    Raises:
        MalformedFileError: If it cannot be told.
    """
    if not module.endswith(("attn.q_proj", "attn.k_proj")):
        return None
    name = (base_model or "").lower()
    if any(part in name for part in _OWN_ORDER):
        return None
    if not any(part in name for part in _META_ORDER):
        raise MalformedFileError("the order of its rows depends on the base, which is not known")
    head = head_dimension(d_in, base_model)
    check_heads(d_out, head)
    return head


def _updates(store: TensorStore, config: PeftConfig, group: Group) -> Sequence[Update]:
    rank, d_in = group.shape("lora_a", 2)
    d_out, _ = group.shape("lora_b", 2)
    group.require(group.shape("lora_b") == (d_out, rank))
    if config.rank is not None and config.rank != rank:
        raise MalformedFileError(
            f"the config says rank {config.rank}, the tensors have rank {rank}: scaling unknown"
        )
    site = _site(group.module)
    head = _head(group.module, d_out, d_in, config.base_model)
    a, b = group.parts["lora_a"], group.parts["lora_b"]

    def load() -> Factors:
        stored = store.read(b)
        return (stored if head is None else unpaired(stored, head)), store.read(a)

    scaling = config.scaling(group.module, rank)
    return [to_update(group, Plan(rank, d_out, d_in, scaling, load), site)]
