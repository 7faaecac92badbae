"""PEFT types whose modules share tensors, or place saved numbers by a rule.

VeRA, PVeRA and RandLoRA scale shared random matrices, VB-LoRA mixes vectors of a shared
bank; C3A, SHiRA and FourierFT spread few numbers over a whole matrix. The formulas are
those of `get_delta_weight` in `peft/tuners/<type>/layer.py` (PEFT 0.21).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from scanner.adapters import factors
from scanner.adapters.model import Factors, FloatArray, IntegerArray, TensorStore
from scanner.adapters.readers.context import Context
from scanner.adapters.readers.grouping import Group, Plan
from scanner.errors import MalformedFileError, MissingExtraError

_FULL_RANK_LIMIT = 2**28
"""Entries of a matrix that is built whole, 1 GB in float32."""


def _whole(d_out: int, d_in: int) -> int:
    """The rank of a matrix without low-rank structure.

    Raises:
        MalformedFileError: If it is too large to build.
    """
    if d_out * d_in > _FULL_RANK_LIMIT:
        raise MalformedFileError(f"the delta is a full {d_out:,} x {d_in:,} matrix: too large")
    return min(d_out, d_in)


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

    return Plan(rank, d_out, d_in, 1.0, load)


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
    return Plan(min(rank * bases, d_out, d_in), d_out, d_in, scaling, load)


def _load_randlora(context: Context, parts: dict[str, str], d_out: int, d_in: int) -> Factors:
    weights = context.store.read(parts["randlora_lambda"])  # (r, bases)
    gamma = context.store.read(parts["randlora_gamma"])  # (bases, smaller)
    rank, bases = weights.shape
    smaller, larger = min(d_out, d_in), max(d_out, d_in)
    shared = context.shared_tensor("randlora_A")[:, :1, :smaller]  # (r, 1, smaller)
    a = (shared * weights[:, :, None] * gamma[None]).reshape(rank * bases, smaller)
    tall = context.shared_tensor("randlora_B")[:larger, :bases]  # (larger, bases, r)
    b = tall.reshape(larger, rank * bases)  # PEFT flattens B base by base and A rank by rank
    return factors.at_most_full_rank(*((b, a) if smaller == d_in else (a.T, b.T)))


def vblora(group: Group, context: Context) -> Plan:
    """Rows of A and B mixed from a vector bank by their top-k logits (Li et al., 2405.15179)."""
    vectors, length = context.shared_shape("vblora_vector_bank", 2)
    topk = context.config.need_whole("topk")
    saved = "_topk_indices" if "vblora_logits_A_topk_indices" in group.parts else ""
    rank, tiles_in, width = group.shape(f"vblora_logits_A{saved}", 3)
    tiles_out, rank_b, width_b = group.shape(f"vblora_logits_B{saved}", 3)
    group.require(rank == rank_b and width == width_b == (topk if saved else vectors))
    group.require(0 < topk <= vectors)
    load = partial(_load_vblora, context, dict(group.parts), topk, bool(saved))
    return Plan(rank, tiles_out * length, tiles_in * length, 1.0, load)


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
    """Softmax weights of the k largest logits and which vectors they belong to."""
    if saved:
        first = store.read(parts[f"{name}_topk_weights"])
        weights = np.concatenate([first, 1 - first.sum(-1, keepdims=True)], axis=-1)
        return weights, store.integers(parts[f"{name}_topk_indices"])
    logits = store.read(parts[name])
    index = np.argsort(-logits, axis=-1, kind="stable")[..., :topk]
    chosen = np.take_along_axis(logits, index, axis=-1)
    weights = np.exp(chosen - chosen.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True), index


def c3a(group: Group, context: Context) -> Plan:
    """A block-circulant matrix divided by d_in."""
    rows, columns, size = group.shape("c3a_kernel", 3)
    d_out, d_in = rows * size, columns * size
    rank = _whole(d_out, d_in)
    store, name = context.store, group.parts["c3a_kernel"]

    def load() -> Factors:
        return factors.dense(factors.circulant_blocks(store.read(name)))

    return Plan(rank, d_out, d_in, 1 / d_in, load)


def shira(group: Group, context: Context) -> Plan:
    """Few changed entries of a whole matrix (Bhardwaj et al., 2406.13175).

    The file does not hold the shape, but r (d_out + d_in) numbers: where the largest row
    and column index add up to it, they are the last ones.
    """
    (count,) = group.shape("shira_weight", 1)
    group.require(group.shape("shira_indices") == (2, count))
    index = _indices(context.store, group.parts["shira_indices"])
    if index.min() < 0:
        raise MalformedFileError("a negative index")
    d_out, d_in = (int(largest) + 1 for largest in index.max(axis=1))
    known = context.shapes_of(group.module)
    if known is not None:
        group.require(d_out <= known[0] and d_in <= known[1])
        d_out, d_in = known
    elif (d_out + d_in) * context.config.need_whole("r") != count:
        raise MalformedFileError("the base's dimensions are needed and not in the file")
    rank = _whole(d_out, d_in)
    store, parts = context.store, dict(group.parts)

    def load() -> Factors:
        rows, columns = _indices(store, parts["shira_indices"])
        values = store.read(parts["shira_weight"])
        return factors.dense(factors.scattered(rows, columns, values, (d_out, d_in)))

    return Plan(rank, d_out, d_in, 1.0, load)


def _indices(store: TensorStore, name: str) -> IntegerArray:
    """Whole numbers, which PEFT saves as float32 on Windows."""
    if store.info(name).dtype == "F32":
        return store.read(name).astype(np.int64)
    return store.integers(name)


def fourierft(group: Group, context: Context) -> Plan:
    """Real part of an inverse Fourier transform of few coefficients (Gao et al., 2405.03003).

    Their places follow from a seed, through torch's generator, and from the base's shape.
    """
    (count,) = group.shape("fourierft_spectrum", 1)
    d_out, d_in = context.height(group.module), context.width(group.module)
    rank = _whole(d_out, d_in)
    group.require(count <= d_out * d_in)
    seed = int(context.config.need("random_loc_seed"))
    store, name = context.store, group.parts["fourierft_spectrum"]

    def load() -> Factors:
        places = _random_places(seed, d_out * d_in, count)
        rows, columns = places // d_in, places % d_in
        spectrum = factors.scattered(rows, columns, store.read(name), (d_out, d_in))
        return factors.dense(np.fft.ifft2(spectrum).real.astype(np.float32))

    return Plan(rank, d_out, d_in, context.config.need("scaling"), load)


def _random_places(seed: int, total: int, count: int) -> IntegerArray:
    """The first numbers of torch's random permutation.

    Raises:
        MissingExtraError: If torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            "the places of the coefficients follow from torch's generator, and torch is missing",
            todo="pip install 'adapter-scanner[torch]'",
        ) from None
    generator = torch.Generator().manual_seed(seed)
    places: IntegerArray = torch.randperm(total, generator=generator)[:count].numpy()
    return places
