"""What a pack keeps of its base model: `base.safetensors`, written and read.

Of each weight its norm and a sketch (`<site>.norm`, `<site>.sketch`). Of each site's inputs the
leading directions and their sizes, and how large the base's answer to them is: `<site>.answer`,
and `<site>.input`, the number n of the tensors `input.<n>.vectors`, `.values` and `.mean`, because
several sites of a block read the same inputs. The last value is the mean of those not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from scanner.errors import SignatureError
from scanner.formats.model import Site, TensorStore, site_order
from scanner.geometry import Matrix, SiteInputs
from scanner.geometry.sketch import WeightSketch

Tensors = dict[str, npt.NDArray[Any]]
_KEPT = 6
"""Second moments in memory: those of one block, and one of the next."""


@dataclass(frozen=True)
class BaseFacts:
    """What is kept of a base model; nothing of it where a method works without the model."""

    weights: Mapping[Site, WeightSketch] = field(default_factory=dict)
    inputs: Mapping[Site, SiteInputs] = field(default_factory=dict)

    def at(self, sites: frozenset[Site]) -> BaseFacts:
        """The same of some sites only."""
        return BaseFacts(
            {site: item for site, item in self.weights.items() if site in sites},
            {site: item for site, item in self.inputs.items() if site in sites},
        )

    def __bool__(self) -> bool:
        """Whether anything is kept."""
        return bool(self.weights or self.inputs)

    def tensors(self) -> Tensors:
        """The tensors of the file."""
        made: Tensors = {}
        for site in sorted(self.weights, key=site_order):
            weight = self.weights[site]
            made[f"{site.key}.norm"] = np.array([weight.norm], dtype=np.float32)
            made[f"{site.key}.sketch"] = np.ascontiguousarray(weight.sketch, dtype=np.float16)
        numbers: dict[int, int] = {}
        for site in sorted(self.inputs, key=site_order):
            known = self.inputs[site]
            number = numbers.setdefault(id(known.vectors), len(numbers))
            made[f"{site.key}.answer"] = np.array([known.answer], dtype=np.float32)
            made[f"{site.key}.input"] = np.array([number], dtype=np.float32)
            made[f"input.{number}.vectors"] = np.ascontiguousarray(known.vectors, np.float16)
            made[f"input.{number}.mean"] = np.ascontiguousarray(known.mean, np.float32)
            made[f"input.{number}.values"] = np.array([*known.values, known.rest], np.float32)
        return made


@dataclass(frozen=True)
class KeptBase:
    """The file of a pack, site by site."""

    store: TensorStore
    where: str

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.store.names())

    def has_weight(self, site: Site) -> bool:
        """Whether it keeps anything of the weight at a site."""
        return {f"{site.key}.norm", f"{site.key}.sketch"} <= self._names

    def weight(self, site: Site) -> WeightSketch | None:
        """Norm and sketch of the weight at one site, if they are kept.

        Raises:
            SignatureError: If what is kept there is no norm and no sketch.
            TargetError: If the file cannot be read any more.
        """
        if not self.has_weight(site):
            return None
        norm, sketch = self.store.read(f"{site.key}.norm"), self.store.read(f"{site.key}.sketch")
        square = sketch.ndim == 2 and 0 < len(sketch) == sketch.shape[1]
        if norm.shape != (1,) or not square or not np.isfinite(norm[0] + sketch.sum()):
            raise SignatureError(f"{site.key} has no norm and sketch of a weight", where=self.where)
        return WeightSketch(float(norm[0]), sketch)

    def inputs(self, site: Site) -> SiteInputs | None:
        """What is kept of the inputs at one site, if anything is.

        Raises:
            SignatureError: If it is no second moment.
            TargetError: If the file cannot be read any more.
        """
        names = (f"{site.key}.input", f"{site.key}.answer")
        if not set(names) <= self._names:
            return None
        number, answer = (self.store.read(name) for name in names)
        numbered = number.shape == (1,) and np.isfinite(number).all()
        prefix = f"input.{int(number[0])}" if numbered else ""
        if not set(_parts(prefix)) <= self._names or answer.shape != (1,):
            raise SignatureError(f"{site.key} has no inputs that are kept", where=self.where)
        vectors, values, mean = self._moment(prefix)
        if not (np.isfinite(answer[0]) and answer[0] >= 0):
            raise SignatureError(f"{site.key} has no answer of the base", where=self.where)
        return SiteInputs(vectors, values[:-1], float(values[-1]), mean, float(answer[0]))

    @cached_property
    def _moment(self) -> Callable[[str], tuple[Matrix, ...]]:
        """Eigenvectors, eigenvalues and mean of inputs: several sites of a block read the same."""
        return lru_cache(_KEPT)(self._read_moment)

    def _read_moment(self, prefix: str) -> tuple[Matrix, ...]:
        vectors, values, mean = (
            self.store.read(name).astype(np.float64) for name in _parts(prefix)
        )
        whole = vectors.ndim == 2 and mean.shape == (len(vectors),)
        whole = whole and values.shape == (vectors.shape[1] + 1,)
        finite = all(np.isfinite(item).all() for item in (vectors, mean, values))
        if not (whole and finite and (values >= 0).all()):
            raise SignatureError(f"{prefix} is no second moment of inputs", where=self.where)
        return vectors, values, mean


def _parts(prefix: str) -> list[str]:
    """Names of the tensors of one second moment."""
    return [f"{prefix}.{name}" for name in ("vectors", "values", "mean")]
