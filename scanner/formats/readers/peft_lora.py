"""PEFT LoRA: `adapter_config.json` beside `lora_A` and `lora_B` tensors.

dW = s * B @ A at every targeted module. Which modules those are is read from the tensor
names, never from `target_modules`; the config only decides the scaling s and how unusual
factors are laid out (`peft_lora_layouts`). Orientation is (out, in) whatever the base stores:
factors of Conv1D layers are saved as those of Linear ones, and an embedding's update is the
map from a one-hot token to the residual stream, which is the transpose of its weight's delta.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from scanner.errors import MalformedFileError, MissingConfigError
from scanner.formats.canon import lora as canon
from scanner.formats.canon.fields import config_entry
from scanner.formats.canon.names import is_embedding
from scanner.formats.canon.rules import beside
from scanner.formats.model import Site, TensorInfo, TensorStore, Uncovered, Update
from scanner.formats.module_names import strip_wrappers, unwrapped
from scanner.formats.peft_config import PeftConfig
from scanner.formats.readers import peft_lora_layouts as layouts
from scanner.formats.readers.grouping import (
    SAVE_AGAIN,
    UNGATHERED,
    Group,
    RecentlyRead,
    group_by_module,
    in_order,
    plan_all,
    to_update,
)
from scanner.formats.readers.leftovers import reason_for
from scanner.formats.readers.notes import LIBRARY, RULE, CanonNote, FormatNote
from scanner.formats.source import Reading, Source

FORMAT = "peft-lora"

_FACTOR = re.compile(
    r"^(?P<module>.+?)\.(?P<part>lora_(?:embedding_)?[AB]|lora_diag)"
    r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?:\.weight)?$"
)
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "lora_ga", "kasa", "loftq")
_MAX_REPLICATED_LAYERS = 10_000


NOTES = (
    FormatNote(
        "PEFT LoRA",
        "B A alpha / r, with rsLoRA, rank and alpha patterns, embeddings, lm_head, Conv1D, "
        "convolutions, aLoRA, and .bin pickles (torch extra)",
        "Biases, `modules_to_save`, saved copies of base weights, trainable tokens: uncovered. "
        "Without its config: an error",
        LIBRARY,
    ),
    FormatNote(
        "PEFT LoRA, `target_parameters`",
        "One update per expert, (expert, out, in) and (expert, in, out) bases, PEFT's and "
        "Unsloth's order of columns, Tinker's three-dimensional stacks",
        "Unsloth without a `lora_B_layout` marker; PEFT 0.17 and 0.18 where nothing shows which "
        "way round they wrote",
        f"{LIBRARY} on Mixtral and gpt-oss; other orders: {RULE}",
    ),
    FormatNote(
        "PEFT LoRA, bdLoRA and QALoRA",
        "Block-diagonal factors; inputs pooled in groups (may flag, never clears)",
        "QALoRA: whether the base's layers are quantised by GPTQ, without which PEFT ignores it",
        f"bdLoRA: {LIBRARY}; QALoRA: the library's forward pass",
    ),
    FormatNote(
        "PEFT DoRA",
        "The low-rank part: may flag, never clears",
        "The magnitudes: they need the base weights",
        "update is there, and inconclusive",
    ),
    FormatNote(
        "PiSSA, OLoRA, CorDA, LoRA-GA, LoftQ, KaSA",
        "B A (KaSA: B diag A): may flag, never clears",
        "What the initialisation took out of the base. Told by the config; by the base's weights, "
        "of which packs keep a sketch; without one, by the factors",
        "KaSA: the library's own factors; the others: inconclusive",
    ),
    FormatNote(
        "PEFT LoRA, `layer_replication`",
        "Updates at the base's own layers: may flag, never clears",
        "The second update of a repeated block",
        "adapter written by PEFT",
    ),
)
CANON = (
    CanonNote(
        "PEFT LoRA",
        "`base_model.model.<module>.lora_A.weight` and `lora_B.weight`, letter by letter "
        "(`lora_embedding_A`, `lora_embedding_B` of embeddings), for modules that "
        "`target_modules`, `exclude_modules`, `modules_to_save`, `layers_to_transform` and "
        "`target_parameters` select in every version of PEFT; blocks under one path; config fields "
        "of PEFT 0.6 to 0.21 and of trainers; patterns with the meaning of Python's `re`",
        "Wrappers (`_orig_mod.`, `module.`, FSDP, checkpointing), missing prefixes and endings, "
        "modules the config does not select: PEFT ignores them. Patterns that give modules other "
        "scales than lora_alpha / r, up to one common factor of at most 1: vLLM and SGLang do not "
        "read them, PEFT before 0.15 looks them up otherwise. `init_lora_weights: false`: random "
        "factors where the file has none. alpha 0: llama.cpp takes it for a scale of 1. "
        "`use_qalora`: PEFT pools inputs of GPTQ layers only. Unknown fields with a value",
        "run: PEFT 0.21, transformers 5.24; read: PEFT 0.6 to 0.20, vLLM to 0.30, SGLang 0.5.23",
    ),
)
"""Rows of docs/formats.md on what is canonical."""


def recognises(source: Source) -> bool:
    """Whether any tensor is a LoRA factor in PEFT's naming."""
    config = source.config
    if config is not None and config.peft_type not in (None, "LORA"):
        return False
    return any(_FACTOR.match(unwrapped(name)) for name in source.store.names())


def read(source: Source) -> Reading:
    """Reads a PEFT LoRA adapter.

    Raises:
        MissingConfigError: If there is no config, so that the scaling is unknown.
        MalformedFileError: If the file holds several adapters at once.
    """
    config = source.config
    if config is None:
        raise MissingConfigError(
            "adapter_config.json is missing beside the weights",
            where=source.where,
            todo="put it there: scaling and base model are in it",
        )
    names = source.store.names()
    _refuse_several_adapters(names, source.where)
    groups, others, twice = group_by_module(source.store, names, _FACTOR, strip_wrappers)
    layout = layouts.ParameterLayout(
        RecentlyRead(source.store), config, layouts.residual_width(groups)
    )
    updates, faults = plan_all(groups, partial(_updates, source.store, config, layout))
    replicated = _replicated_layers(config)
    if replicated:
        updates = [_at_base_layer(update, replicated) for update in updates]
    rest = [Uncovered(name, reason_for(name)) for name in others]
    known = [*twice, *faults, *rest, *_reasons_in_config(config)]
    ordered, uncovered = in_order(updates, beside(known, canon.departures(config, groups)))
    fills = canon.fills_at_random(config)
    return Reading(FORMAT, config.base_model, ordered, uncovered, fills_blocks=fills)


def _refuse_several_adapters(names: Sequence[str], where: str) -> None:
    matches = (_FACTOR.match(unwrapped(name)) for name in names)
    adapters = {match["adapter"] or "" for match in matches if match}
    if len(adapters) > 1:
        raise MalformedFileError(
            f"holds several adapters ({', '.join(sorted(repr(name) for name in adapters))})",
            where=where,
            todo="save each one by itself",
        )


def _reasons_in_config(config: PeftConfig) -> Iterator[Uncovered]:
    """What the config says about the delta that the tensors alone do not show."""
    init = config.raw.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_BASE_CHANGING_INITS):
        yield config_entry(
            "init_lora_weights",
            f"initialised by {init[:40]}, which changes the base: the delta is not B @ A",
        )


def _replicated_layers(config: PeftConfig) -> list[int]:
    """Adapter layer -> base layer under `layer_replication`; empty if it is not used.

    Raises:
        MissingConfigError: If the field is not a list of ranges.
    """
    ranges = config.raw.get("layer_replication")
    if not ranges:
        return []
    layers: list[int] = []
    for item in ranges if isinstance(ranges, list) else [None]:
        if (
            not isinstance(item, list)
            or len(item) != 2
            or not all(type(end) is int and 0 <= end <= _MAX_REPLICATED_LAYERS for end in item)
            or len(layers) > _MAX_REPLICATED_LAYERS
        ):
            raise MissingConfigError(
                "layer_replication is not a list of ranges", where=config.where
            )
        layers += range(*item)
    return layers


def _at_base_layer(update: Update, layers: Sequence[int]) -> Update:
    layer = update.layer
    if layer is None or layer >= len(layers):
        return update
    return replace(update, site=Site(layers[layer], update.module))


def _matrix_shape(info: TensorInfo, part: str) -> tuple[int, int]:
    """A factor's shape as a matrix; convolution kernels are flattened from axis 1.

    Raises:
        MalformedFileError: If it is no matrix, or empty.
    """
    shape = info.shape
    if len(shape) in (3, 4, 5) and (part == "A" or set(shape[2:]) == {1}):
        size = 1
        for dimension in shape[1:]:
            size *= dimension
        shape = (shape[0], size)
    if len(shape) != 2 or 0 in shape:
        what = "is empty, " if 0 in shape else "is no matrix, "
        raise MalformedFileError(
            f"lora_{part} {what}{list(info.shape)} {UNGATHERED}", todo=SAVE_AGAIN
        )
    return (shape[0], shape[1])


def _updates(
    store: TensorStore, config: PeftConfig, layout: layouts.ParameterLayout, group: Group
) -> Sequence[Update]:
    """The updates of one module: one, or one per expert.

    Raises:
        TargetError: If the factors do not make any.
    """
    a, b = _factor_parts(group)
    info_a, info_b = group.infos[a], group.infos[b]
    if layouts.is_stack_of_experts(info_a, info_b):
        return layouts.stacked_experts(group, a, b, layout.recent, config)
    if parameter := layouts.targeted_parameter(group.module, config):
        return layouts.parameter_experts(group, parameter, layout)
    rank, d_in = _matrix_shape(info_a, "A")
    d_out, rank_b = _matrix_shape(info_b, "B")
    if plan := layouts.unusual(group, store, config):
        return [to_update(group, plan)]
    if rank != rank_b:
        raise MalformedFileError(
            f"shapes do not fit: lora_A {list(info_a.shape)}, lora_B {list(info_b.shape)}",
            todo=SAVE_AGAIN,
        )
    declared = config.declared_rank(group.module)
    if declared is not None and declared != rank:
        raise MalformedFileError(
            f"the config says rank {declared}, the tensors have rank {rank}: scaling unknown",
            todo="mend the config",
        )
    plan = layouts.plain(store, group, (d_out, rank, d_in), (b, a))
    return [to_update(group, plan._replace(scaling=config.scaling(group.module, rank)))]


def _factor_parts(group: Group) -> tuple[str, str]:
    """Names of the A and the B part.

    Raises:
        MalformedFileError: If one is missing.
    """
    embedding = "lora_A" not in group.parts or is_embedding(group.module)
    stem = "lora_embedding_" if embedding and "lora_embedding_A" in group.parts else "lora_"
    for side in "AB":
        if stem + side not in group.parts:
            raise MalformedFileError(f"no lora_{side} beside it", todo=SAVE_AGAIN)
    return f"{stem}A", f"{stem}B"
