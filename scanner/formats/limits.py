"""Upper bounds that keep a hostile file from costing more than it should."""

from __future__ import annotations

from collections.abc import Sequence

MAX_HEADER_BYTES = 16 * 2**20
"""A safetensors or GGUF header. The largest honest ones (90k tensors) take about 12 MB."""
MAX_TENSORS = 100_000
"""Every projection of every expert of the largest published mixtures: 89k factors."""
MAX_RANK = 16_384
"""Columns of B. A rank above the dimensions of its site happens; this one does not."""
MAX_REPEATS = 10_000
"""Product of all counted repeats in one pattern of a config: an engine may unroll them."""
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**40
"""Product of a shape without its zeros: with one, axes of any size cost no bytes."""
MAX_TENSOR_BYTES = 8 * 2**30
MAX_FILE_BYTES = 512 * 2**30
MAX_PICKLE_BYTES = 4 * 2**30
MAX_DOWNLOAD_BYTES = 4 * 2**30
"""Largest file on a hub that is read although it has to be fetched whole: pickle, GGUF, npz."""
MAX_CONFIG_BYTES = 4 * 2**20
MAX_DOCUMENT_BYTES = 64 * 2**20
"""A file of this program's own kinds: manifests, calibrations, recipes, probes, baselines."""
MAX_SHARDS = 1_000
MAX_PATTERN_CHARACTERS = 16_384
"""One regular expression of a config. Trainers generate some of a few thousand."""
MAX_PATTERNS = 20_000
"""Keys of rank_pattern or of alpha_pattern: one for each module of a very large model."""
MAX_PATTERN_LOOKUPS = 500_000
"""Patterns tried on modules in all: 700 patterns on 700 modules."""
MAX_PATTERN_SECONDS = 0.2
"""Time one regular expression from a config may take on one module name."""
MAX_PATTERNS_SECONDS = 1.0
"""Time all patterns of a config may take on all modules."""
MAX_EXPANSION = 100
"""Uncompressed over compressed size of an archive's member. Weights hardly compress."""
MAX_FORMED_ELEMENTS = 2**23
FORMED_PER_STORED = 64
"""Elements that one update may have made beyond those it stores: 32 MB in float32, or 64 times
as many as it stores, whichever is more."""
MAX_WORK = 2**31
WORK_PER_STORED = 2**12
"""Multiplications that all updates of a file may take together: a second of one core's, and so
many for each element stored. Rank 16 at width 4,096 takes 50 of them, rank 1,024 takes 3,600."""


def is_sound_shape(shape: Sequence[int]) -> bool:
    """Whether a shape is one that any array can have."""
    if len(shape) > MAX_DIMENSIONS:
        return False
    elements = 1
    for size in shape:
        if size < 0:
            return False
        elements *= size or 1
    return elements <= MAX_ELEMENTS
