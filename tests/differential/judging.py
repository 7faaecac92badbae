"""Whether a reading that leaves nothing uncovered is what a loader loads."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scanner import open_adapter
from scanner.errors import TargetError, UsageError
from scanner.formats.model import Adapter, Site
from scanner.formats.module_names import site_of
from scanner.formats.opening import Shapes
from tests.differential.loader_models import IN_BLOCK
from tests.differential.loaders import Loader, Modelled
from tests.differential.merging import Array, Changes, base_model, matrices
from tests.differential.mutations import Case
from tests.differential.specimen import Specimen
from tests.formats.oracle import LAYERS

TOLERANCE = 1e-4
"""Largest difference of two deltas, as a share of the larger one's norm."""
_OTHER_CLASSES = (
    "layers.",
    "language_model.",
    "model.language_model.",
    ("model.model.", "model.lm_head"),
    "model.decoder.",
    "model.h.",
    "transformer.layers.",
)
"""What stands before the blocks in other classes than the tiny bases."""
_PEFT_PREFIX = "base_model.model."
_TOLERANCE_OF_HALVES = 2e-3
"""The same where a file holds float16: PEFT 0.13 multiplies VeRA's shared parts as they are."""
_ROUNDING = 1e-13
"""Norm of what float64 loses when a base is subtracted from merged weights."""


class Disagreement(NamedTuple):
    """A loader adds something else than what was read as the whole of the adapter."""

    loader: str
    where: str
    """Site, and how it differs."""


class Judgement(NamedTuple):
    """What came of one adapter."""

    covered: bool
    """Whether the reading left nothing uncovered; nothing is compared otherwise."""
    loaded: tuple[str, ...]
    """The loaders that loaded it."""
    disagreements: tuple[Disagreement, ...]


_NOT_COVERED = Judgement(False, (), ())


def judge(case: Case, loaders: Sequence[Loader]) -> Judgement:
    """Writes an adapter, reads it, and loads it if the reading is without gaps."""
    specimen = case.build()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "adapter"
        specimen.write(directory)
        shapes = IN_BLOCK if specimen.base == "llama" else None
        try:
            read = _read(directory, shapes, specimen.base)
        except (TargetError, UsageError):  # a usage error: several adapters lie there
            return _NOT_COVERED
        except Exception as error:  # no file may raise anything else
            raised = Disagreement("the scanner itself", f"{type(error).__name__}: {error}")
            return Judgement(False, (), (raised,))
        if read is None:
            return _NOT_COVERED
        loaded: list[str] = []
        found: list[Disagreement] = []
        halves = any(tensor.dtype == np.float16 for tensor in specimen.tensors.values())
        tolerance = _TOLERANCE_OF_HALVES if halves else TOLERANCE
        other_class = _of_another_class(specimen)
        for loader in loaders:
            changes = loader.load(directory, specimen.base)
            if other_class and not (changes and isinstance(loader, Modelled)):
                continue
            if changes is not None:
                loaded.append(loader.name)
                places = differences(read, changes, tolerance)
                found += [Disagreement(loader.name, where) for where in places]
        return Judgement(True, tuple(loaded), tuple(found))


def _of_another_class(specimen: Specimen) -> bool:
    """Whether all names speak of the blocks of another class of base, say with a vision tower.

    Libraries then load nothing into this base, which is not the adapter's (and leave parts that
    start at random as they started). Programs that look for parts of names may load it.
    """
    own = {path for path, _ in base_model(specimen.base).named_modules()}
    paths = [module.removeprefix(_PEFT_PREFIX) for module in specimen.modules() if "." in module]
    return not own.intersection(paths) and any(
        all(path.startswith(prefix) for path in paths) for prefix in _OTHER_CLASSES
    )


def _could_be_judged(adapter: Adapter, read: Mapping[Site, Array], base: str) -> bool:
    """Whether the best pack of this base would have a direction for every update.

    As `detection.evidence`: a site without one, an update of another shape, values that are not
    finite, and what only the base's depth tells leave an adapter without `clear`.
    """
    sites = _sites(base)
    layers = {update.layer for update in adapter.updates if update.layer is not None}
    if adapter.fills_blocks and layers != set(range(LAYERS)):
        return False
    if adapter.last_blocks is not None and any(
        layer < LAYERS - adapter.last_blocks for layer in layers
    ):
        return False
    return all(
        sites.get(update.site) == (update.d_out, update.d_in) for update in adapter.updates
    ) and all(np.isfinite(delta).all() for delta in read.values())


@functools.cache
def _sites(base: str) -> dict[Site, tuple[int, ...]]:
    """Every matrix of a base, with its shape."""
    return {site_of(path): shape for path, shape in matrices(base).items()}


def _read(directory: Path, shapes: Shapes | None, base: str) -> dict[Site, Array] | None:
    """The deltas of an adapter that could be clear; None if something keeps it from that."""
    with open_adapter(directory, shapes) as adapter:
        if adapter.uncovered:
            return None
        read = _deltas(adapter)
        return read if _could_be_judged(adapter, read, base) else None


def _deltas(adapter: Adapter) -> dict[Site, Array]:
    deltas = {update.site: update.delta().astype(np.float64) for update in adapter.updates}
    return {site: delta for site, delta in deltas.items() if not np.linalg.norm(delta) <= _ROUNDING}


def differences(
    read: dict[Site, Array], loaded: Changes, tolerance: float = TOLERANCE
) -> list[str]:
    """Sites at which a reading and a loader differ, with how.

    One positive factor common to all sites, not above 1, is no difference: verdicts do not
    depend on it.
    """
    expected = {
        site_of(path): delta
        for path, delta in loaded.items()
        if not np.linalg.norm(delta) <= _ROUNDING  # NaN is a change
    }
    factor = _common_factor(read, expected)
    found = [f"{site.key}: read, not loaded" for site in read.keys() - expected.keys()]
    found += [f"{site.key}: loaded, not read" for site in expected.keys() - read.keys()]
    for site in sorted(read.keys() & expected.keys(), key=str):
        if read[site].shape != expected[site].shape:
            found.append(f"{site.key}: shape {read[site].shape}, loaded {expected[site].shape}")
            continue
        judged = factor * read[site]
        error = np.linalg.norm(judged - expected[site])
        size = max(np.linalg.norm(judged), np.linalg.norm(expected[site]))
        if not error <= tolerance * size + _ROUNDING:
            found.append(f"{site.key}: relative difference {error / size:.1e}")
    return sorted(found)


def _common_factor(read: dict[Site, Array], expected: dict[Site, Array]) -> float:
    """The factor in (0, 1] that brings what was read nearest to what was loaded; else 1."""
    both = [
        (read[site], expected[site])
        for site in read.keys() & expected.keys()
        if read[site].shape == expected[site].shape
    ]
    size = sum(float(np.vdot(judged, judged)) for judged, _ in both)
    product = sum(float(np.vdot(judged, loaded)) for judged, loaded in both)
    factor = product / size if size > 0 else 1.0
    return factor if 0 < factor <= 1 else 1.0


def smaller(case: Case, loaders: Sequence[Loader]) -> Case:
    """The same disagreement with as few mutations as show it."""
    names = {item.loader for item in judge(case, loaders).disagreements}
    concerned = [loader for loader in loaders if loader.name in names]
    shrinking = True
    while shrinking:
        shrinking = False
        for index in range(len(case.mutations)):
            fewer = Case(case.kind, case.mutations[:index] + case.mutations[index + 1 :])
            if judge(fewer, concerned).disagreements:
                case, shrinking = fewer, True
                break
    return case
