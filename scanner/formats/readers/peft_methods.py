"""PEFT types other than LoRA, from one table.

A type is here if its delta follows from the file, or if what is missing can be named. All
others are `unsupported`, by name where the reason is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from scanner.formats.canon import methods as canon
from scanner.formats.canon.rules import beside
from scanner.formats.model import Uncovered, Update
from scanner.formats.module_names import strip_wrappers
from scanner.formats.readers import peft_products, peft_shared, peft_sparse
from scanner.formats.readers.context import Context
from scanner.formats.readers.grouping import (
    Group,
    Plan,
    group_by_module,
    in_order,
    plan_all,
    to_update,
)
from scanner.formats.readers.leftovers import reason_for
from scanner.formats.readers.notes import LIBRARY, CanonNote, FormatNote
from scanner.formats.source import Reading, Source


class Method(NamedTuple):
    """How one PEFT type is read."""

    parts: str
    """Regular expression of the parts a module has."""
    plan: Callable[[Group, Context], Plan | None]
    """None is a delta of 0."""
    shared: str = ""
    """Regular expression of the parts all modules share."""
    output: str = ""
    """For types that do not store d_in: a part of which one dimension is the module's d_out."""
    output_axis: int = 0
    widest: tuple[str, int] = ("", 0)
    """For such types: a shared part, and which of its dimensions is the largest d_in of all
    modules."""


METHODS: dict[str, Method] = {
    "ADALORA": Method(r"lora_[ABE]", peft_products.adalora),
    "LOHA": Method(r"hada_(?:w[12]_[ab]|t[12])", peft_products.loha),
    "LOKR": Method(r"lokr_(?:w[12](?:_[ab])?|t2)", peft_products.lokr),
    "DELORA": Method(r"delora_(?:[AB]|lambda|w_norm)", peft_products.delora),
    "GRALORA": Method(r"gralora_[AB](?:_general)?", peft_products.gralora),
    "MISS": Method(r"miss_block", peft_products.miss, output="miss_block", output_axis=1),
    "VERA": Method(
        r"vera_lambda_[bd]",
        peft_shared.vera,
        shared=r"vera_[AB]",
        output="vera_lambda_b",
        widest=("vera_A", 1),
    ),
    "PVERA": Method(
        r"pvera_lambda_[bd]",
        peft_shared.pvera,
        shared=r"pvera_[AB]",
        output="pvera_lambda_b",
        widest=("pvera_A", 1),
    ),
    "RANDLORA": Method(r"randlora_(?:lambda|gamma)", peft_shared.randlora, shared=r"randlora_[AB]"),
    "VBLORA": Method(
        r"vblora_logits_[AB](?:_topk_(?:indices|weights))?",
        peft_shared.vblora,
        shared=r"vblora_vector_bank",
    ),
    "C3A": Method(r"c3a_kernel", peft_sparse.c3a),
    "SHIRA": Method(r"shira_(?:weight|indices)", peft_sparse.shira),
    "FOURIERFT": Method(r"fourierft_spectrum", peft_sparse.fourierft),
    "WAVEFT": Method(r"waveft_spectrum", peft_sparse.waveft),
    "SUPERTUNING": Method(r"supertuning_(?:values|indices|lora_[AB])", peft_sparse.supertuning),
    "UNILORA": Method(
        r"unilora_(?:indices|scales)_[AB]", peft_shared.unilora, shared=r"unilora_theta_d"
    ),
}
"""peft_type -> how it is read."""

_ALONE = "no module's own tensors beside it; without them its part in any delta is not known"


NOTES = (
    FormatNote(
        "PEFT AdaLoRA, LoHa, LoKr, DeLoRA, GraLoRA, VB-LoRA, C3A",
        "The whole delta, exactly",
        "LoHa and LoKr of convolutions in Tucker form",
        LIBRARY,
    ),
    FormatNote(
        "PEFT VeRA, PVeRA",
        "The whole delta, where the shared projections are saved",
        "`save_projection: false`; inputs whose width nothing in the file tells. VeRA may flag and "
        "never clears: PEFT up to 0.13 draws the projections anew from a seed",
        LIBRARY,
    ),
    FormatNote(
        "PEFT MiSS, SHiRA",
        "The whole delta, where the base's dimensions follow from the file",
        'MiSS "bat"; dimensions that neither follow nor stand in a pack for the base. SHiRA may '
        "flag and never clears: transformers draws the places anew from a seed",
        LIBRARY,
    ),
    FormatNote(
        "PEFT RandLoRA, FourierFT, WaveFT",
        "The whole delta, given the base's shapes: from the pack made for the base, or "
        "`open_adapter(path, shapes)`",
        "Without them nothing; RandLoRA's saved copies of its bases are uncovered; wavelets other "
        "than Haar's",
        LIBRARY,
    ),
    FormatNote(
        "PEFT Uni-LoRA, Super-Tuning",
        "The whole delta, where the indices are saved (Super-Tuning without a rank: and the base's "
        "shapes are known)",
        "`save_indices: false`: the indices follow from the base's modules",
        LIBRARY,
    ),
)
"""Rows of docs/formats.md."""

CANON = (
    CanonNote(
        "PEFT's other types",
        "As for LoRA, with the parts that the type makes for this config and no others, under "
        "PEFT's own names (shared tensors: `base_model.<part>`)",
        "Parts that PEFT's layers do not have (a whole side of LoKr beside a split one). Switches "
        "that make PEFT draw anew what the file holds (`save_projection`, `save_indices`). LoKr "
        "with alpha below r or alphas of its own: PEFT 0.6 to 0.13 does not scale it. Types whose "
        "fresh layers do something (FourierFT, C3A, VB-LoRA, Uni-LoRA, `init_weights: false`): a "
        "block that lacks a module which others have",
        "run: PEFT 0.21; read: PEFT 0.6 to 0.20",
    ),
)
"""Rows of docs/formats.md on what is canonical."""


def recognises(source: Source) -> bool:
    """Whether the config names one of the types in the table."""
    return source.config is not None and source.config.peft_type in METHODS


def read(source: Source) -> Reading:
    """Reads an adapter of one of the types in the table."""
    config = source.config
    assert config is not None, "recognised without a config"
    assert config.peft_type is not None, "recognised without a type"
    method = METHODS[config.peft_type]
    shared, names, uncovered = _shared(source, method)
    pattern = re.compile(
        rf"^(?P<module>.+?)\.(?P<part>{method.parts})(?:\.(?!weight$)[^.]+)?(?:\.weight)?$"
    )
    groups, others, twice = group_by_module(source.store, names, pattern, strip_wrappers)
    context = Context(source.store, config, shared, source.shapes)
    _learn(context, groups, method)

    def updates_of(group: Group) -> Sequence[Update]:
        plan = method.plan(group, context)
        return [] if plan is None else [to_update(group, plan)]

    updates, faults = plan_all(groups, updates_of)
    rest = [Uncovered(name, reason_for(name)) for name in others]
    if not groups:
        rest += [Uncovered(name, _ALONE) for name in shared.values()]
    known = [*uncovered, *twice, *faults, *rest]
    departing = canon.departures(config, groups, shared)
    ordered, uncovered_all = in_order(updates, beside(known, departing))
    return Reading(
        f"peft-{config.peft_type.lower()}",
        config.base_model,
        ordered,
        uncovered_all,
        fills_blocks=canon.fills_at_random(config),
    )


def _shared(source: Source, method: Method) -> tuple[dict[str, str], list[str], list[Uncovered]]:
    """Part -> shared tensor, the names of all other tensors, and surplus shared ones.

    RandLoRA saves copies of the shared tensors under every module. They should be the same;
    as nothing makes sure of it, they end up among the uncovered ones.
    """
    if not method.shared:
        return {}, list(source.store.names()), []
    pattern = re.compile(rf"^base_model\.(?P<part>{method.shared})(?:\.[^.]+)?$")
    shared: dict[str, str] = {}
    others: list[str] = []
    surplus: list[Uncovered] = []
    for name in source.store.names():
        match = pattern.match(name)
        if match is None:
            others.append(name)
        elif match["part"] in shared:
            surplus.append(Uncovered(name, f"a second {match['part']}"))
        else:
            shared[match["part"]] = name
    return shared, others, surplus


def _learn(context: Context, groups: Sequence[Group], method: Method) -> None:
    """Tells the context the sizes of vectors that follow from the stored shapes."""
    if not method.output:
        return
    outputs = {
        group.module: info.shape[method.output_axis]
        for group in groups
        if (info := group.infos.get(method.output)) and len(info.shape) > method.output_axis
    }
    context.learn_outputs(outputs)
    part, axis = method.widest
    if part in context.shared:
        shape = context.store.info(context.shared[part]).shape
        if len(shape) > axis:
            context.learn_widest_input(outputs, shape[axis])
