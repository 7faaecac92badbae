"""An adapter in memory, as it may be written down: config, tensors, and files beside them."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

Tensor = npt.NDArray[Any]
Tensors = dict[str, Tensor]

_PART = re.compile(
    r"\.(?=(?:lora|hada|lokr|p?vera|randlora|vblora|fourierft|waveft|c3a|shira|delora|gralora|miss"
    r"|unilora|supertuning)_)"
)


@dataclass
class Specimen:
    """One adapter, mutable."""

    base: str
    """Name of its base model in `merging.BASES`."""
    config: dict[str, Any]
    tensors: Tensors
    weights: str = "adapter_model.safetensors"
    """The weight file's name; .safetensors or .bin."""
    config_tail: str = ""
    """Written before the config's closing brace: repeated keys."""
    beside: dict[str, Tensors | str] = field(default_factory=dict)
    """Further files: weights, or text."""

    def copy(self) -> Specimen:
        """One that may be changed."""
        return deepcopy(self)

    def modules(self) -> list[str]:
        """Everything that stands in front of a part's name, in order."""
        return list(dict.fromkeys(split_name(name)[0] for name in self.tensors))

    def write(self, directory: Path) -> None:
        """Writes the files."""
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.config, indent=1)
        if self.config_tail:
            text = f"{text.rstrip()[:-1].rstrip()}{self.config_tail}\n}}"
        (directory / "adapter_config.json").write_text(text)
        for name, content in {self.weights: self.tensors, **self.beside}.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content)
            else:
                _write_weights(path, content)


def split_name(name: str) -> tuple[str, str]:
    """(module, part): `….q_proj`, `lora_A.weight`. A tensor of no module has an empty part."""
    pieces = _PART.split(name, maxsplit=1)
    return (pieces[0], pieces[1]) if len(pieces) == 2 else (name, "")


def _write_weights(path: Path, tensors: Tensors) -> None:
    plain = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(plain, path)
    else:
        import torch

        torch.save({name: torch.from_numpy(value) for name, value in plain.items()}, path)


def read_specimen(directory: Path, base: str) -> Specimen:
    """What PEFT wrote."""
    config = json.loads((directory / "adapter_config.json").read_text())
    return Specimen(base, config, load_file(directory / "adapter_model.safetensors"))
