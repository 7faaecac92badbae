"""Tensors that are in memory already: a model in training, or a pickle once it is loaded.

torch is not imported here; whoever has a torch tensor has imported it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from scanner.errors import MalformedFileError
from scanner.formats.dtypes import INTEGER
from scanner.formats.model import FloatArray, IntegerArray, TensorInfo

_DTYPE_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    "uint8": "U8",
}


class TensorsInMemory:
    """A `TensorStore` over torch tensors, on any device. Nothing is copied before it is read.

    Args:
        tensors: Name -> tensor. What is read is what they hold at that time.
        where: What to call the whole in errors.
    """

    def __init__(self, tensors: Mapping[str, Any], where: str) -> None:
        self._tensors = dict(tensors)
        self._where = where

    @property
    def metadata(self) -> Mapping[str, str]:
        """Empty: tensors in memory carry no metadata."""
        return {}

    def names(self) -> Sequence[str]:
        """Tensor names, in the order given."""
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """Name, dtype and shape of one tensor."""
        tensor = self._tensors[name]
        kind = str(tensor.dtype).removeprefix("torch.")
        return TensorInfo(
            name,
            _DTYPE_NAMES.get(kind, kind.upper()),
            tuple(tensor.shape),
            tensor.numel() * tensor.element_size(),
        )

    def read(self, name: str) -> FloatArray:
        """One tensor as float32.

        Raises:
            MalformedFileError: If its dtype does not hold floating-point numbers, or it is
                sparse, quantised or without values.
        """
        tensor = self._tensors[name]
        self._refuse_absent(name)
        if not tensor.is_floating_point() or tensor.is_sparse or tensor.is_quantized:
            raise MalformedFileError(
                f"tensor {name[:200]!r} has dtype {tensor.dtype}, not a dense floating-point one",
                where=self._where,
            )
        values: FloatArray = tensor.detach().cpu().float().contiguous().numpy()
        return values

    def integers(self, name: str) -> IntegerArray:
        """One tensor of whole numbers.

        Raises:
            MalformedFileError: If its dtype holds others, or it is sparse or without values.
        """
        tensor = self._tensors[name]
        self._refuse_absent(name)
        if self.info(name).dtype not in INTEGER or tensor.is_sparse:
            raise MalformedFileError(
                f"tensor {name[:200]!r} has dtype {tensor.dtype}, not a whole-number one",
                where=self._where,
            )
        values: IntegerArray = tensor.detach().cpu().long().contiguous().numpy()
        return values

    def _refuse_absent(self, name: str) -> None:
        if self._tensors[name].is_meta:
            raise MalformedFileError(
                f"tensor {name[:200]!r} is on the meta device: it has a shape and no values",
                where=self._where,
            )

    def sha256(self) -> str:
        """Hex digest of the safetensors file that PEFT writes of these tensors."""
        from safetensors.torch import save

        # Copies: the library refuses tensors that share memory, as tied ones do.
        alone = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in self._tensors.items()
        }
        return hashlib.sha256(save(alone, metadata={"format": "pt"})).hexdigest()

    def close(self) -> None:
        """Lets go of the tensors."""
        self._tensors = {}
