"""Stored numbers to float32, without torch.

safetensors' numpy front end refuses bfloat16 and float8, so the bytes are widened here.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from scanner.formats.model import FloatArray, IntegerArray

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits per element of every dtype the safetensors format defines."""

FLOATING = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""The dtypes `widen` understands."""

INTEGER = {
    "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
    "U8": "<u1", "U16": "<u2", "U32": "<u4",
}  # fmt: skip
"""The dtypes `widen_integers` understands, in numpy's spelling."""


@cache
def _float8_table(exponent_bits: int, mantissa_bits: int, has_infinity: bool) -> FloatArray:
    """All 256 values of a float8 layout (Micikevicius et al. 2022, arXiv 2209.05433, table 1)."""
    bias = 2 ** (exponent_bits - 1) - 1
    top = 2**exponent_bits - 1
    table = np.empty(256, dtype=np.float32)
    for byte in range(256):
        sign = -1.0 if byte >> 7 else 1.0
        exponent = (byte >> mantissa_bits) & top
        mantissa = byte & (2**mantissa_bits - 1)
        if has_infinity and exponent == top:
            value = np.inf if mantissa == 0 else np.nan
        elif not has_infinity and (byte & 0x7F) == 0x7F:
            value = np.nan
        elif exponent == 0:
            value = mantissa * 2.0 ** (1 - bias - mantissa_bits)
        else:
            value = (1 + mantissa / 2**mantissa_bits) * 2.0 ** (exponent - bias)
        table[byte] = sign * value
    return table


def widen(raw: npt.NDArray[np.uint8], dtype: str) -> FloatArray:
    """Returns the values stored in `raw` as a flat float32 array.

    Args:
        raw: The tensor's bytes, little-endian, as a flat uint8 array.
        dtype: One of `FLOATING`.

    Raises:
        KeyError: If `dtype` is not in `FLOATING`.
    """
    if dtype == "BF16":
        # bfloat16 is the upper half of a float32.
        wide = raw.view("<u2").astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if dtype == "F32":
        return raw.view("<f4").astype(np.float32, copy=False)
    if dtype in ("F16", "F64"):
        # An overflow becomes Inf, which is reported; a NaN may be a signalling one.
        with np.errstate(over="ignore", invalid="ignore"):
            return raw.view("<f2" if dtype == "F16" else "<f8").astype(np.float32)
    if dtype == "F8_E4M3":
        return _float8_table(4, 3, has_infinity=False)[raw]
    if dtype == "F8_E5M2":
        return _float8_table(5, 2, has_infinity=True)[raw]
    raise KeyError(dtype)


def widen_integers(raw: npt.NDArray[np.uint8], dtype: str) -> IntegerArray:
    """Returns the whole numbers stored in `raw` as a flat int64 array.

    Raises:
        KeyError: If `dtype` is not in `INTEGER`.
    """
    return raw.view(INTEGER[dtype]).astype(np.int64)
