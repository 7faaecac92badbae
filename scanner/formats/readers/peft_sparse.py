"""PEFT types that spread few numbers over a whole matrix: in blocks, at places, by a transform.

The formulas are those of `get_delta_weight` in `peft/tuners/<type>/layer.py` (PEFT 0.21).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from scanner.errors import MalformedFileError, MissingExtraError
from scanner.formats.model import Content, IntegerArray, TensorStore, by_rows_work
from scanner.formats.readers.context import Context
from scanner.formats.readers.grouping import Group, Plan
from scanner.geometry.transforms import Fourier, inverse_haar
from scanner.geometry.whole_matrix import (
    SKETCH,
    BlockCirculant,
    Dense,
    Sparse,
)


def _whole(
    shape: tuple[int, int], scaling: float, load: Callable[[], Content], stored: int
) -> Plan:
    """The plan of a matrix whose statistics take work in proportion to what it is stored as."""
    sides = SKETCH * sum(shape)
    return Plan(min(shape), *shape, scaling, load, sides, SKETCH * stored + 32 * sides)


def c3a(group: Group, context: Context) -> Plan:
    """A block-circulant matrix divided by d_in."""
    rows, columns, size = group.shape("c3a_kernel", 3)
    shape = (rows * size, columns * size)
    store, name = context.store, group.parts["c3a_kernel"]

    def load() -> Content:
        return BlockCirculant(store.read(name))

    return _whole(shape, 1 / shape[1], load, rows * columns * size)


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
    shape = (d_out, d_in)
    store, parts = context.store, dict(group.parts)

    def load() -> Content:
        rows, columns = _indices(store, parts["shira_indices"])
        return Sparse(rows, columns, store.read(parts["shira_weight"]), shape)

    return _whole(shape, 1.0, load, count)


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
    shape = (context.height(group.module), context.width(group.module))
    group.require(count <= math.prod(shape))
    seed = int(context.config.need("random_loc_seed"))
    store, name = context.store, group.parts["fourierft_spectrum"]

    def load() -> Content:
        places = _random_places(seed, math.prod(shape), count)
        return Fourier(places // shape[1], places % shape[1], store.read(name), shape)

    return _whole(shape, context.config.need("scaling"), load, count)


@lru_cache(maxsize=8)  # the same for all modules of one shape
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
    places: IntegerArray = torch.randperm(total, generator=generator)[:count].clone().numpy()
    return places


def waveft(group: Group, context: Context) -> Plan:
    """One level of an inverse wavelet transform of few coefficients (2505.12532).

    Their places follow from a seed, as for FourierFT. Of the wavelets only Haar's, which is
    the library's default, is known here.
    """
    (count,) = group.shape("waveft_spectrum", 1)
    d_out, d_in = context.height(group.module), context.width(group.module)
    group.require(count <= d_out * d_in)
    transformed = context.config.raw.get("use_idwt", True)
    family = context.config.raw.get("wavelet_family", _HAAR[0])
    if transformed and family not in _HAAR:
        raise MalformedFileError(f"the wavelet {str(family)[:40]!r} is not known here")
    seed = int(context.config.need("random_loc_seed"))
    store, name = context.store, group.parts["waveft_spectrum"]
    shape = (d_out, d_in)

    def load() -> Content:
        places = _random_places(seed, d_out * d_in, count)
        coefficients = (places // d_in, places % d_in, store.read(name))
        return inverse_haar(*coefficients, shape) if transformed else Sparse(*coefficients, shape)

    return _whole(shape, context.config.need("scaling"), load, 4 * count)


_HAAR = ("db1", "haar")


def supertuning(group: Group, context: Context) -> Plan:
    """Few changed entries at saved places, and a LoRA beside them if there is a rank.

    The places are counted through the rows of the weight, so its shape has to be known: from
    the factors, or from the base.
    """
    (count,) = group.shape("supertuning_values", 1)
    group.require(group.shape("supertuning_indices") == (count,))
    parts, store = dict(group.parts), context.store
    rank, scaling = 0, 0.0
    if "supertuning_lora_A" in parts:
        rank, d_in = group.shape("supertuning_lora_A", 2)
        d_out, rank_b = group.shape("supertuning_lora_B", 2)
        group.require(rank == rank_b)
        scaling = context.config.scaling(group.module, rank)
    else:
        d_out, d_in = context.height(group.module), context.width(group.module)
    shape = (d_out, d_in)

    def load() -> Content:
        places = _indices(store, parts["supertuning_indices"])
        if places.min() < 0 or places.max() >= d_out * d_in:
            raise MalformedFileError("an index outside the weight")
        values = store.read(parts["supertuning_values"])
        changed = Sparse(places // d_in, places % d_in, values, shape)
        if not rank:
            return changed
        b, a = (store.read(parts[f"supertuning_lora_{side}"]) for side in "BA")
        return Dense(changed.formed() + np.float32(scaling) * (b @ a))

    if not rank:
        return _whole(shape, 1.0, load, count)
    work = by_rows_work(rank, *shape)
    return Plan(min(shape), *shape, 1.0, load, math.prod(shape), work)
