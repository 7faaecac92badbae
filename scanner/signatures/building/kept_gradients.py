"""Gradients on disk, so that several signatures of a base, or a second run, need them once.

A gradient takes the base model minutes and depends on nothing but the base and the answers, of
which signatures of several kinds share the harmless ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from scanner.formats.model import Site, site_order
from scanner.signatures.building.harmless import Factors
from scanner.signatures.building.network import Answered

Gradients = dict[Site, Factors]


class KeptGradients:
    """A folder of gradients.

    Args:
        folder: Where they are kept; nothing is kept if it is None.
        base: What tells the base model from others: its id, revision and dtype.
    """

    def __init__(self, folder: Path | None, base: Sequence[str | None]) -> None:
        self._folder = folder
        self._base = list(base)

    def of(self, answers: Sequence[Answered], compute: Callable[[], Gradients]) -> Gradients:
        """The gradient of the mean log p of answers, from the folder or computed and put there.

        Args:
            answers: The answers with their prompts.
            compute: Computes it.
        """
        if self._folder is None:
            return compute()
        key = hashlib.sha256(msgspec.json.encode([self._base, list(answers)])).hexdigest()[:32]
        path = self._folder / f"{key}.safetensors"
        if not path.exists():
            _write(path, compute())
        return _read(path)


def _write(path: Path, gradients: Gradients) -> None:
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{site.key}.{name}": np.ascontiguousarray(factor)
        for site in sorted(gradients, key=site_order)
        for name, factor in zip(("left", "right"), gradients[site], strict=True)
    }
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(tensors, partial)
    partial.replace(path)


def _read(path: Path) -> Gradients:
    from safetensors.numpy import load_file

    tensors = load_file(path)
    keys = [name.removesuffix(".left") for name in tensors if name.endswith(".left")]
    return {Site.from_key(key): (tensors[f"{key}.left"], tensors[f"{key}.right"]) for key in keys}
