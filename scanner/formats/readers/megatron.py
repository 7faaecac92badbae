"""NeMo and Megatron: `...<adapter>.linear_in.weight` (r, in), `.linear_out.weight` (out, r).

Query, key and value are one fused projection, its rows in one group per key head, unless
the adapter is a "canonical" one; gate and up are fused too. They are split into the modules
the Hugging Face model has (`megatron/bridge` and NeMo's checkpoint converters). The factor in front
is alpha / dim; alpha stands in a config that often is not beside the weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from scanner.errors import MalformedFileError
from scanner.formats.architectures import MEGATRON, MEGATRON_ADAPTERS
from scanner.formats.model import (
    Factors,
    FloatArray,
    IntegerArray,
    Site,
    TensorStore,
    Uncovered,
    Update,
)
from scanner.formats.readers.grouping import (
    Group,
    Plan,
    group_by_module,
    in_order,
    plan_all,
    to_update,
)
from scanner.formats.readers.leftovers import reason_for
from scanner.formats.readers.notes import RULE, FormatNote
from scanner.formats.readers.rope import head_dimension
from scanner.formats.source import Reading, Source

FORMAT = "megatron-lora"

_FACTOR = re.compile(r"^(?P<module>.+?)\.(?P<part>linear_(?:in|out))\.weight$")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d{1,6})\.(.+)$", re.ASCII)


@dataclass(frozen=True)
class _Known:
    """What decides how fused rows are split."""

    store: TensorStore
    alpha: float | None
    base_model: str | None
    inner: int | None
    """Width of the MLP's hidden layer, as linear_fc2 shows it."""


NOTES = (
    FormatNote(
        "NeMo and Megatron",
        "alpha / dim B A, fused projections split into the Hugging Face model's modules",
        "`.nemo` archives are not unpacked; without a config alpha is unknown and the verdict "
        "cannot be clear",
        RULE,
    ),
)
"""Rows of docs/formats.md."""


def recognises(source: Source) -> bool:
    """Whether any tensor is a factor in Megatron's naming."""
    return any(_FACTOR.match(name) for name in source.store.names())


def read(source: Source) -> Reading:
    """Reads a NeMo or Megatron adapter; without a config, all but its scale."""
    groups, others, twice = group_by_module(
        source.store, source.store.names(), _FACTOR, _megatron_name
    )
    config = source.config
    alpha = None
    doubts = []
    if config is not None:
        alpha = config.need("lora_alpha" if "lora_alpha" in config.raw else "alpha")
    else:
        reason = "no config: alpha is unknown, the scale is taken to be 1"
        doubts.append(Uncovered("adapter_config.json", reason))
    known = _Known(source.store, alpha, config.base_model if config else None, _inner(groups))
    updates, faults = plan_all(groups, partial(_updates, known))
    rest = [Uncovered(name, reason_for(name)) for name in others]
    ordered, uncovered = in_order(updates, [*twice, *faults, *rest, *doubts])
    return Reading(FORMAT, known.base_model, ordered, uncovered)


def _megatron_name(path: str) -> str:
    """``layers.N.<module>`` in Megatron core's names, from them or from NeMo's older ones."""
    match = _LAYER.search(path)
    if match is None:
        return path
    inner = match[2].removesuffix(".adapter").replace(".adapter_layer.", ".")
    for old, new in MEGATRON_ADAPTERS.items():
        inner = inner.replace(old, new)
    return f"layers.{match[1]}.{inner}"


def _inner(groups: Sequence[Group]) -> int | None:
    for group in groups:
        info = group.infos.get("linear_in")
        if group.module.endswith("mlp.linear_fc2") and info is not None and len(info.shape) == 2:
            return info.shape[1]
    return None


def _updates(known: _Known, group: Group) -> Sequence[Update]:
    match = _LAYER.search(group.module)
    if match is None or match[2] not in MEGATRON:
        raise MalformedFileError("a module of unknown name")
    rank, d_in = group.shape("linear_in", 2)
    d_out, _ = group.shape("linear_out", 2)
    group.require(group.shape("linear_out") == (d_out, rank))
    scaling = 1.0 if known.alpha is None else known.alpha / rank
    a, b = group.parts["linear_in"], group.parts["linear_out"]

    def load(rows: IntegerArray | None) -> Factors:
        stored: FloatArray = known.store.read(b)
        return (stored if rows is None else stored[rows]), known.store.read(a)

    return [
        to_update(
            group,
            Plan(rank, d_out if rows is None else len(rows), d_in, scaling, partial(load, rows)),
            Site(int(match[1]), module),
        )
        for module, rows in _split(match[2], d_out, d_in, known).items()
    ]


def _split(name: str, d_out: int, d_in: int, known: _Known) -> dict[str, IntegerArray | None]:
    """Hugging Face module -> its rows in the fused projection; None for all of them.

    Raises:
        MalformedFileError: If the rows cannot be told apart.
    """
    if name == "self_attention.linear_qkv":
        return _split_qkv(d_out, d_in, head_dimension(d_in, known.base_model))
    if name == "mlp.linear_fc1":
        if known.inner is None or d_out not in (known.inner, 2 * known.inner):
            raise MalformedFileError(
                "whether it holds a gate beside the up projection cannot be told without linear_fc2"
            )
        rows = np.arange(d_out)
        if d_out == known.inner:
            return {"mlp.up_proj": None}
        return {"mlp.gate_proj": rows[: known.inner], "mlp.up_proj": rows[known.inner :]}
    return {MEGATRON[name]: None}


def _split_qkv(d_out: int, d_in: int, head: int) -> dict[str, IntegerArray | None]:
    """Rows come in groups of the queries that share a key, that key, and its value."""
    keys = (d_out - d_in) // (2 * head)
    if keys < 1 or d_in + 2 * keys * head != d_out or d_in % (keys * head):
        raise MalformedFileError(f"{d_out} rows are no whole number of heads of {head}")
    grouped = np.arange(d_out).reshape(keys, -1, head)
    return {
        "self_attn.q_proj": grouped[:, :-2].reshape(-1),
        "self_attn.k_proj": grouped[:, -2].reshape(-1),
        "self_attn.v_proj": grouped[:, -1].reshape(-1),
    }
