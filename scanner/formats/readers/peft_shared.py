"""PEFT types whose modules share tensors.

VeRA, PVeRA and RandLoRA scale shared random matrices, VB-LoRA mixes vectors of a shared
bank, Uni-LoRA fills its factors from one shared vector. The formulas are those of
`get_delta_weight` in `peft/tuners/<type>/layer.py` (PEFT 0.21).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from scanner.errors import MalformedFileError
from scanner.formats.model import (
    Factors,
    FloatArray,
    IntegerArray,
    TensorStore,
    factors_work,
)
from scanner.formats.readers.context import Context
from scanner.formats.readers.grouping import Group, Plan


def vera(group: Group, context: Context) -> Plan:
    """(lambda_b B[:out]) (lambda_d A[:, :in]), A and B shared (Kopiczko et al., 2310.11454)."""
    return _vera(group, context, "vera", 1)


def pvera(group: Group, context: Context) -> Plan:
    """As VeRA, with the mean half of A and lambda_d; the other half is a variance for training."""
    return _vera(group, context, "pvera", 2)


def _vera(group: Group, context: Context, prefix: str, halves: int) -> Plan:
    if f"{prefix}_A" not in context.shared:
        raise MalformedFileError(
            "the shared projections were not saved; they follow from a seed and the base's shapes"
        )
    (d_out,) = group.shape(f"{prefix}_lambda_b", 1)
    (stored_rank,) = group.shape(f"{prefix}_lambda_d", 1)
    rows, widest = context.shared_shape(f"{prefix}_A", 2)
    tallest, rank = context.shared_shape(f"{prefix}_B", 2)
    d_in = context.width(group.module)
    group.require(rows == stored_rank == halves * rank and d_in <= widest and d_out <= tallest)
    store, parts = context.store, dict(group.parts)

    def load() -> Factors:
        lambda_b, lambda_d = (store.read(parts[f"{prefix}_lambda_{end}"]) for end in "bd")
        b = lambda_b[:, None] * context.shared_tensor(f"{prefix}_B")[:d_out]
        a = lambda_d[:rank, None] * context.shared_tensor(f"{prefix}_A")[:rank, :d_in]
        return b, a

    return Plan(rank, d_out, d_in, 1.0, load, formed=rank * (d_out + d_in))


def randlora(group: Group, context: Context) -> Plan:
    """Sum over bases of B_n diag(lambda_n) A diag(gamma_n) (Albert et al., 2502.00987)."""
    rank, bases = group.shape("randlora_lambda", 2)
    _, smaller = group.shape("randlora_gamma", 2)
    rows, _, narrow = context.shared_shape("randlora_A", 3)
    tall, available, columns = context.shared_shape("randlora_B", 3)
    d_out, d_in = context.height(group.module), context.width(group.module)
    group.require(
        group.shape("randlora_gamma") == (bases, smaller)
        and smaller == min(d_out, d_in)
        and rows == columns == rank
        and smaller <= narrow
        and max(d_out, d_in) <= tall
        and bases <= available
    )
    scaling = context.config.need("randlora_alpha") / rank
    load = partial(_load_randlora, context, dict(group.parts), d_out, d_in)
    total = rank * bases
    formed, work = total * (d_out + d_in), factors_work(total, d_out, d_in)
    return Plan(min(total, d_out, d_in), d_out, d_in, scaling, load, formed, work)


def _load_randlora(context: Context, parts: dict[str, str], d_out: int, d_in: int) -> Factors:
    weights = context.store.read(parts["randlora_lambda"])  # (r, bases)
    gamma = context.store.read(parts["randlora_gamma"])  # (bases, smaller)
    rank, bases = weights.shape
    smaller, larger = min(d_out, d_in), max(d_out, d_in)
    shared = context.shared_tensor("randlora_A")[:, :1, :smaller]  # (r, 1, smaller)
    a = (shared * weights[:, :, None] * gamma[None]).reshape(rank * bases, smaller)
    tall = context.shared_tensor("randlora_B")[:larger, :bases]  # (larger, bases, r)
    b = tall.reshape(larger, rank * bases)  # PEFT flattens B base by base and A rank by rank
    return (b, a) if smaller == d_in else (a.T, b.T)


def vblora(group: Group, context: Context) -> Plan:
    """Rows of A and B mixed from a vector bank by their top-k logits (Li et al., 2405.15179)."""
    vectors, length = context.shared_shape("vblora_vector_bank", 2)
    topk = context.config.need_whole("topk")
    saved = "_topk_indices" if "vblora_logits_A_topk_indices" in group.parts else ""
    rank, tiles_in, width = group.shape(f"vblora_logits_A{saved}", 3)
    tiles_out, rank_b, width_b = group.shape(f"vblora_logits_B{saved}", 3)
    group.require(rank == rank_b and width == width_b == (topk if saved else vectors))
    group.require(0 < topk <= vectors)
    for side in "AB" if saved else "":
        indices = group.shape(f"vblora_logits_{side}_topk_indices", 3)
        weights = group.shape(f"vblora_logits_{side}_topk_weights", 3)
        group.require(weights == (*indices[:2], topk - 1))
    load = partial(_load_vblora, context, dict(group.parts), topk, bool(saved))
    d_out, d_in = tiles_out * length, tiles_in * length
    formed = topk * rank * (d_out + d_in)
    return Plan(rank, d_out, d_in, 1.0, load, formed)


def _load_vblora(context: Context, parts: dict[str, str], topk: int, saved: bool) -> Factors:
    bank = context.shared_tensor("vblora_vector_bank")

    def mixed(side: str) -> FloatArray:
        weights, index = _topk(context.store, parts, f"vblora_logits_{side}", topk, saved)
        if index.min() < 0 or index.max() >= len(bank):
            raise MalformedFileError("an index outside the vector bank")
        picked: FloatArray = np.einsum("abk,abkl->abl", weights, bank[index])
        return picked

    a, b = mixed("A"), mixed("B")
    return b.transpose(0, 2, 1).reshape(-1, b.shape[1]), a.reshape(len(a), -1)


def _topk(
    store: TensorStore, parts: dict[str, str], name: str, topk: int, saved: bool
) -> tuple[FloatArray, IntegerArray]:
    """Softmax weights of the k largest logits and which vectors they belong to.

    Saved weights lack the last, and PEFT takes their logarithms back to where the indices say
    (`set_peft_model_state_dict`): what no softmax gives, it does not load as it stands.

    Raises:
        MalformedFileError: If saved weights are no softmax's, an index occurs twice in one row, or
            logits do not tell which are the largest.
    """
    if saved:
        first = store.read(parts[f"{name}_topk_weights"])
        weights = np.concatenate([first, 1 - first.sum(-1, keepdims=True)], axis=-1)
        index = store.integers(parts[f"{name}_topk_indices"])
        if not weights.min() >= 0:
            raise MalformedFileError(f"{name}: saved weights that are no softmax")
        if (np.diff(np.sort(index, axis=-1), axis=-1) == 0).any():
            raise MalformedFileError(f"{name}: one vector twice among the largest")
        return weights, index
    logits = store.read(parts[name])
    order = np.argsort(-logits, axis=-1, kind="stable")
    ranked = np.take_along_axis(logits, order, axis=-1)
    if topk < ranked.shape[-1] and (ranked[..., topk - 1] == ranked[..., topk]).any():
        raise MalformedFileError(f"{name}: equal logits, of which torch takes any")
    index = order[..., :topk]
    chosen = np.take_along_axis(logits, index, axis=-1)
    weights = np.exp(chosen - chosen.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True), index


def unilora(group: Group, context: Context) -> Plan:
    """Factors whose entries are scaled entries of one shared vector, by saved indices."""
    (length,) = context.shared_shape("unilora_theta_d", 1)
    rank, d_in = group.shape("unilora_indices_A", 2)
    d_out, rank_b = group.shape("unilora_indices_B", 2)
    group.require(rank == rank_b)
    for end in "AB":
        group.require(group.shape(f"unilora_scales_{end}") == group.shape(f"unilora_indices_{end}"))
    store, parts = context.store, dict(group.parts)

    def side(name: str) -> FloatArray:
        index = store.integers(parts[f"unilora_indices_{name}"])
        if index.min() < 0 or index.max() >= length:
            raise MalformedFileError("an index outside the shared vector")
        picked: FloatArray = context.shared_tensor("unilora_theta_d")[index]
        return picked * store.read(parts[f"unilora_scales_{name}"])

    return Plan(rank, d_out, d_in, 1.0, lambda: (side("B"), side("A")))
