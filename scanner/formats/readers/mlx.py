"""MLX: `lora_a` (in, r) and `lora_b` (r, out), dW = scale * lora_b^T lora_a^T.

The scale is not divided by the rank (`mlx_lm/tuner/lora.py`). Old adapters are .npz files
without a config; their scale is then the old default, which cannot be made sure of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from scanner.errors import MissingConfigError
from scanner.formats.canon import mlx as canon
from scanner.formats.canon.rules import beside
from scanner.formats.model import Factors, TensorStore, Uncovered, Update
from scanner.formats.module_names import strip_wrappers
from scanner.formats.peft_config import PeftConfig
from scanner.formats.readers.grouping import (
    Group,
    Plan,
    RecentlyRead,
    group_by_module,
    in_order,
    plan_all,
    to_update,
)
from scanner.formats.readers.leftovers import reason_for
from scanner.formats.readers.notes import RULE, CanonNote, FormatNote
from scanner.formats.readers.peft_lora_layouts import expert_site
from scanner.formats.source import Reading, Source

FORMAT = "mlx-lora"

_FACTOR = re.compile(r"^(?P<module>.+?)\.(?P<part>lora_[ab])$")
_DEFAULT_SCALE = 20.0
_MAX_EXPERTS = 4096


NOTES = (
    FormatNote(
        "MLX (`adapters.safetensors`, `*_adapters.safetensors`, `adapters.npz`)",
        "scale b^T a^T, one update per expert",
        "DoRA and full fine-tuning; without a config the scale is taken to be 20 and the verdict "
        "cannot be clear",
        f"{RULE}; an adapter of mlx-lm's own tests",
    ),
)
"""Rows of docs/formats.md."""

CANON = (
    CanonNote(
        "MLX",
        "`<module>.lora_a` and `lora_b`, for modules that `lora_parameters.keys` names (all, "
        "without it) in the last `num_layers` blocks, counted from the depth of the pack's base",
        "Other modules and names: mlx-lm before 0.32 ignores them. `alpha` above `rank` beside "
        "`scale`: mlx-lm of spring 2024 multiplied by their ratio",
        "read: mlx-lm 0.31 and 0.32",
    ),
)
"""Rows of docs/formats.md on what is canonical."""


def recognises(source: Source) -> bool:
    """Whether any tensor is a factor in MLX's naming."""
    return any(_FACTOR.match(name) for name in source.store.names())


def read(source: Source) -> Reading:
    """Reads an MLX adapter.

    Raises:
        MissingConfigError: If the config holds an unusable scale.
    """
    scale, doubts = _scale(source.config)
    groups, others, twice = group_by_module(
        source.store, source.store.names(), _FACTOR, strip_wrappers
    )
    recent = RecentlyRead(source.store)
    updates, faults = plan_all(groups, partial(_updates, source.store, recent, scale))
    rest = [Uncovered(name, reason_for(name)) for name in others]
    known = [*twice, *faults, *rest, *doubts]
    raw = source.config.raw if source.config else None
    departing = canon.departures(raw, groups) if raw is not None else []
    ordered, uncovered = in_order(updates, beside(known, departing))
    last_blocks = canon.last_blocks(raw) if raw is not None else None
    return Reading(FORMAT, _base_model(source.config), ordered, uncovered, last_blocks)


def _scale(config: PeftConfig | None) -> tuple[float, list[Uncovered]]:
    """The scale in front of the product, and why it cannot be trusted, if so."""
    if config is None:
        reason = f"no config: its scale is taken to be {_DEFAULT_SCALE:g}, MLX's old default"
        return _DEFAULT_SCALE, [Uncovered("adapter_config.json", reason)]
    parameters = config.raw.get("lora_parameters")
    if not isinstance(parameters, dict):
        raise MissingConfigError("lora_parameters is missing", where=config.where)
    value: Any = parameters.get("scale")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e9:
        raise MissingConfigError(
            f"lora_parameters.scale is {str(value)[:40]!r}, not a number", where=config.where
        )
    doubts = []
    kind = config.raw.get("fine_tune_type", "lora")
    if kind != "lora":
        what = f"fine_tune_type {str(kind)[:40]!r}: the delta is not B @ A alone"
        doubts.append(Uncovered("adapter_config.json: fine_tune_type", what))
    return float(value), doubts


def _base_model(config: PeftConfig | None) -> str | None:
    if config is None:
        return None
    model = config.raw.get("model")
    return model if isinstance(model, str) else config.base_model


def _updates(
    store: TensorStore, recent: RecentlyRead, scale: float, group: Group
) -> Sequence[Update]:
    a, b = group.shape("lora_a"), group.shape("lora_b")
    name_a, name_b = group.parts["lora_a"], group.parts["lora_b"]
    if len(a) == 3:
        experts, rank, d_in = a
        group.require(len(b) == 3 and b[0] == experts <= _MAX_EXPERTS and b[2] == rank)

        def load_expert(expert: int) -> Factors:
            return recent.read(name_b)[expert], recent.read(name_a)[expert]

        return [
            to_update(
                group,
                Plan(rank, b[1], d_in, scale, partial(load_expert, expert)),
                expert_site(group.module, expert),
            )
            for expert in range(experts)
        ]
    group.require(len(a) == len(b) == 2 and a[1] == b[0])

    def load() -> Factors:
        return store.read(name_b).T, store.read(name_a).T

    return [to_update(group, Plan(a[1], b[1], a[0], scale, load))]
