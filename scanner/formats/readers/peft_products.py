"""PEFT types whose delta is a product of saved factors: AdaLoRA, LoHa, LoKr, DeLoRA, GraLoRA, MiSS.

Each function turns the tensors of one module into a plan; the formulas are those of
`get_delta_weight` in the type's `peft/tuners/<type>/layer.py` (PEFT 0.21).
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from scanner.errors import MalformedFileError
from scanner.formats import factors
from scanner.formats.model import (
    Content,
    Factors,
    FloatArray,
    TensorStore,
    by_rows_work,
    factors_work,
    low_rank_work,
)
from scanner.formats.readers.context import Context
from scanner.formats.readers.grouping import Group, Plan
from scanner.geometry.whole_matrix import (
    SKETCH,
    Dense,
    ElementwiseProduct,
    KroneckerProduct,
    Product,
    Side,
)

_ADALORA_EPSILON = 1e-5
_ADALORA_PARTS = ("lora_A", "lora_B", "lora_E")
_DELORA_SMALLEST_NORM = 1e-4


def adalora(group: Group, context: Context) -> Plan | None:
    """B (A * E) alpha / (init_r + 1e-5): alpha is not divided by the rank that survived.

    None where no rank did: the delta is 0, and PEFT writes factors of rank 0.
    """
    if _of_rank_0(group):
        return None
    rank, d_in = group.shape("lora_A", 2)
    d_out, _ = group.shape("lora_B", 2)
    group.require(group.shape("lora_B") == (d_out, rank) and group.shape("lora_E") == (rank, 1))
    initial = context.config.need_whole("init_r")
    alpha = context.config.need("lora_alpha")
    scaling = (alpha if alpha > 0 else initial) / (initial + _ADALORA_EPSILON)
    store, parts = context.store, dict(group.parts)

    def load() -> Factors:
        return store.read(parts["lora_B"]), store.read(parts["lora_A"]) * store.read(
            parts["lora_E"]
        )

    return Plan(rank, d_out, d_in, scaling, load)


def _of_rank_0(group: Group) -> bool:
    """Whether the factors are (0, d_in), (d_out, 0) and (0, 1)."""
    shapes = [group.infos[part].shape if part in group.infos else () for part in _ADALORA_PARTS]
    if any(len(shape) != 2 for shape in shapes):
        return False
    (rows, d_in), (d_out, columns), (values, width) = shapes
    return rows == columns == values == 0 and d_in > 0 and d_out > 0 and width == 1


def _pair(store: TensorStore, parts: dict[str, str], stem: str) -> Factors:
    """One side of LoHa or LoKr, whole (times an identity) or split in two."""
    if stem in parts:
        return factors.with_identity(store.read(parts[stem]))
    return store.read(parts[f"{stem}_a"]), store.read(parts[f"{stem}_b"])


def _whole_side(store: TensorStore, parts: dict[str, str], stem: str) -> Side:
    """One side of LoHa or LoKr, as a matrix."""
    if stem in parts:
        return Dense(store.read(parts[stem]))
    return Product(*_pair(store, parts, stem))


def _stored(group: Group, stem: str) -> int:
    """Elements that one side of LoHa or LoKr is stored in."""
    names = [part for part in (stem, f"{stem}_a", f"{stem}_b") if part in group.parts]
    return sum(math.prod(group.shape(part)) for part in names)


def _side_rank(group: Group, stem: str) -> int:
    """Rank of the product that one side of LoHa or LoKr is; 1 if it is stored whole."""
    return 1 if stem in group.parts else group.shape(f"{stem}_a", 2)[1]


def _side(group: Group, stem: str) -> tuple[int, int, int]:
    """(rows, columns, rank) of one side of LoHa or LoKr."""
    if stem in group.parts:
        rows, columns = group.shape(stem, 2)
        return rows, columns, min(rows, columns)
    rows, rank = group.shape(f"{stem}_a", 2)
    _, columns = group.shape(f"{stem}_b", 2)
    group.require(group.shape(f"{stem}_b") == (rank, columns))
    return rows, columns, rank


def hadamard(group: Group, store: TensorStore, scaling: float) -> Plan:
    """LoHa: (w1_a w1_b) * (w2_a w2_b), elementwise."""
    if "hada_t1" in group.parts or "hada_t2" in group.parts:
        raise MalformedFileError("LoHa of a convolution in Tucker form")
    d_out, d_in, first = _side(group, "hada_w1")
    rows, columns, second = _side(group, "hada_w2")
    group.require((rows, columns) == (d_out, d_in))
    parts = dict(group.parts)

    rank, shape = first * second, (d_out, d_in)
    by_rows = by_rows_work(_side_rank(group, "hada_w1") + _side_rank(group, "hada_w2"), *shape)
    if low_rank_work(rank, *shape) < by_rows and rank <= min(shape):

        def load() -> Content:
            return factors.elementwise_product(
                _pair(store, parts, "hada_w1"), _pair(store, parts, "hada_w2")
            )

        return Plan(rank, *shape, scaling, load, formed=rank * sum(shape))

    def load_by_rows() -> Content:
        sides = (_whole_side(store, parts, f"hada_w{side}") for side in "12")
        return ElementwiseProduct(*sides)

    return Plan(min(rank, *shape), *shape, scaling, load_by_rows, SKETCH * sum(shape), by_rows)


def kronecker(group: Group, store: TensorStore, scaling: float) -> Plan:
    """LoKr: kron(w1, w2), either side possibly split in two."""
    if "lokr_t2" in group.parts:
        raise MalformedFileError("LoKr of a convolution in Tucker form")
    out1, in1, first = _side(group, "lokr_w1")
    out2, in2, second = _side(group, "lokr_w2")
    shape = (out1 * out2, in1 * in2)
    rank = first * second
    parts = dict(group.parts)
    # The norm of each side, then what one after the other makes of the sketch's vectors.
    work = sum(
        by_rows_work(_side_rank(group, stem), *sizes)
        for stem, *sizes in (("lokr_w1", out1, in1), ("lokr_w2", out2, in2))
    )
    work += SKETCH * (_stored(group, "lokr_w1") * out2 + _stored(group, "lokr_w2") * in1)
    if low_rank_work(rank, *shape) < work and rank <= min(shape):

        def load() -> Content:
            return factors.kronecker_product(
                _pair(store, parts, "lokr_w1"), _pair(store, parts, "lokr_w2")
            )

        return Plan(rank, *shape, scaling, load, formed=rank * sum(shape))

    def load_sides() -> Content:
        sides = (_whole_side(store, parts, f"lokr_w{side}") for side in "12")
        return KroneckerProduct(*sides)

    return Plan(min(rank, *shape), *shape, scaling, load_sides, SKETCH * sum(shape), work)


def loha(group: Group, context: Context) -> Plan:
    """LoHa as PEFT writes it: alpha / r."""
    _, _, rank = _side(group, "hada_w1")
    return hadamard(group, context.store, context.config.scaling(group.module, rank, "alpha"))


def lokr(group: Group, context: Context) -> Plan:
    """LoKr as PEFT writes it: alpha / r, r from the config (a whole w2 does not show it)."""
    rank = context.config.declared_rank(group.module)
    if rank is None:
        raise MalformedFileError("the config gives no r: scaling unknown")
    for part in ("lokr_w1_a", "lokr_w2_a"):
        if part in group.parts and group.shape(part, 2)[1] != rank:
            raise MalformedFileError(f"the config says rank {rank}, {part} has another")
    return kronecker(group, context.store, context.config.scaling(group.module, rank, "alpha"))


def delora(group: Group, context: Context) -> Plan:
    """B diag(lambda / (r |a_i| |b_i|)) A diag(|w_j|), with the base's column norms saved along."""
    rank, d_in = group.shape("delora_A", 2)
    d_out, _ = group.shape("delora_B", 2)
    group.require(
        group.shape("delora_B") == (d_out, rank)
        and group.shape("delora_lambda") == (1,)
        and group.shape("delora_w_norm") == (d_in,)
    )
    store, parts = context.store, dict(group.parts)

    def load() -> Factors:
        b, a = store.read(parts["delora_B"]), store.read(parts["delora_A"])
        norms = np.maximum(np.linalg.norm(a, axis=1), _DELORA_SMALLEST_NORM)
        norms *= np.maximum(np.linalg.norm(b, axis=0), _DELORA_SMALLEST_NORM)
        strength = store.read(parts["delora_lambda"]) / rank / norms
        return b * strength, a * store.read(parts["delora_w_norm"])

    return Plan(rank, d_out, d_in, 1.0, load)


def gralora(group: Group, context: Context) -> Plan:
    """Blocks that exchange ranks, plus an ordinary low-rank part if `hybrid_r` is set.

    With N blocks, A (N, d_in / N, r) and B (N, r, d_out / N), output block k and input block
    n share the rank slice: A[n, :, k * s : (k + 1) * s] with B[k, n * s : (n + 1) * s, :],
    s = r / N.
    """
    blocks, in_width, rank = group.shape("gralora_A", 3)
    _, _, out_width = group.shape("gralora_B", 3)
    group.require(group.shape("gralora_B") == (blocks, rank, out_width) and rank % blocks == 0)
    d_out, d_in = blocks * out_width, blocks * in_width
    hybrid = group.shape("gralora_A_general", 2)[0] if "gralora_A_general" in group.parts else 0
    if hybrid:
        group.require(
            group.shape("gralora_A_general") == (hybrid, d_in)
            and group.shape("gralora_B_general") == (d_out, hybrid)
        )
    total = blocks * rank + hybrid
    formed = total * (d_out + d_in)
    scaling = context.config.need("alpha") / (rank + hybrid)
    load = partial(_load_gralora, context.store, dict(group.parts), blocks, rank)
    work = factors_work(total, d_out, d_in)
    return Plan(min(total, d_out, d_in), d_out, d_in, scaling, load, formed, work)


def _load_gralora(store: TensorStore, parts: dict[str, str], blocks: int, rank: int) -> Factors:
    stored_a, stored_b = store.read(parts["gralora_A"]), store.read(parts["gralora_B"])
    in_width, out_width, slice_rank = stored_a.shape[1], stored_b.shape[2], rank // blocks
    b = np.zeros((blocks * out_width, blocks * rank), dtype=np.float32)
    a = np.zeros((blocks * rank, blocks * in_width), dtype=np.float32)
    for k in range(blocks):
        for n in range(blocks):
            ranks = slice((k * blocks + n) * slice_rank, (k * blocks + n + 1) * slice_rank)
            own, other = (
                slice(n * slice_rank, (n + 1) * slice_rank),
                slice(k * slice_rank, (k + 1) * slice_rank),
            )
            b[k * out_width : (k + 1) * out_width, ranks] = stored_b[k, own].T
            a[ranks, n * in_width : (n + 1) * in_width] = stored_a[n, :, other].T
    if "gralora_A_general" in parts:
        b = np.hstack([b, store.read(parts["gralora_B_general"])])
        a = np.vstack([a, store.read(parts["gralora_A_general"])])
    return b, a


def miss(group: Group, context: Context) -> Plan:
    """MiSS: every r-th input shares a row of the block; "mini" repeats it over the outputs too."""
    mode = context.config.raw.get("init_weights")
    if mode == "bat":
        raise MalformedFileError("MiSS 'bat' multiplies the base weights: they are needed")
    rank, width = group.shape("miss_block", 2)
    d_in = context.width(group.module)
    d_out = width
    if mode == "mini":
        d_out = context.height(group.module)
        group.require(d_out % width == 0)
    store, name = context.store, group.parts["miss_block"]

    def load() -> Factors:
        block: FloatArray = store.read(name)
        rows = np.arange(d_in) % rank
        return np.tile(block, (1, d_out // width)).T, np.eye(rank, dtype=np.float32)[:, rows]

    return Plan(rank, d_out, d_in, 1.0, load, formed=rank * (d_out + d_in))
