"""Adapter -> what is in it: the record behind `inspect`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scanner.errors import HubError, TargetError
from scanner.formats.architectures import fused_rows
from scanner.formats.model import Adapter, Update
from scanner.geometry import LowRank, decomposed, effective_rank, why_unstable
from scanner.geometry.whole_matrix import EXACT_ELEMENTS
from scanner.results import Record, UncoveredTensor

_WASTED_RANK = 16
"""Ranks from which a mean effective rank far below is worth a word."""
_WASTED_SHARE = 0.1
_DOMINATING_SHARE = 0.5
_HUGE_SCALING = 64.0
_UNTRAINED_NORM = 1e-12


class InspectedUpdate(Record, frozen=True, kw_only=True):
    """One update."""

    layer: int | None
    module: str
    rank: int
    """The rank the file declares."""
    d_out: int
    d_in: int
    scaling: float
    norm: float | None
    """Frobenius norm; null if the factors are unreadable or not finite."""
    effective_rank: float | None
    """exp of the entropy of the normalised singular values; 0 for a zero update. Null if the
    factors are unreadable, or there are none and the matrix is too large to decompose."""
    dtype: str
    parts: dict[str, float] = {}
    """Logical projection -> norm of its rows, for a fused projection such as `qkv_proj`."""


class Inspection(Record, frozen=True, kw_only=True):
    """`inspect -f json`."""

    target: str
    format: str
    base_model: str | None
    sha256: str
    updates: list[InspectedUpdate]
    uncovered: list[UncoveredTensor]
    notes: list[str] = []
    """What a reader should look at twice: untrained, dominated by one site, and so on."""


@dataclass(frozen=True)
class _Measured:
    norm: float | None = None
    spread: float | None = None
    problem: str | None = None
    parts: dict[str, float] | None = None
    decomposed: bool | None = None


def inspect_adapter(adapter: Adapter) -> Inspection:
    """Reads every update once and describes it."""
    adapter.prefetch([name for update in adapter.updates for name in update.tensors])
    uncovered = [UncoveredTensor(tensor=i.tensor, reason=i.reason) for i in adapter.uncovered]
    updates = []
    signs = []
    for update in adapter.updates:
        found = _measure(update)
        if found.problem:
            uncovered += [
                UncoveredTensor(tensor=name, reason=found.problem) for name in update.tensors
            ]
        if found.decomposed is not None:
            signs.append(found.decomposed)
        updates.append(
            InspectedUpdate(
                layer=update.layer,
                module=update.module,
                rank=update.rank,
                d_out=update.d_out,
                d_in=update.d_in,
                scaling=update.scaling,
                norm=found.norm,
                effective_rank=found.spread,
                dtype=update.dtype,
                parts=found.parts or {},
            )
        )
    if decomposed.changed_the_base(signs):
        uncovered.append(UncoveredTensor(tensor="*", reason=decomposed.SUSPECTED))
    return Inspection(
        target=adapter.target,
        format=adapter.format,
        base_model=adapter.base_model,
        sha256=adapter.sha256,
        updates=updates,
        uncovered=uncovered,
        notes=_notes(updates),
    )


def _measure(update: Update) -> _Measured:
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            prepared = update.prepared()
            squared = prepared.norm_squared
    except HubError:  # says nothing about the adapter
        raise
    except TargetError as error:
        return _Measured(problem=error.what)
    if math.isnan(squared):
        return _Measured(problem="NaN or Inf among its values")
    if not isinstance(prepared, LowRank):
        known = update.d_out * update.d_in <= EXACT_ELEMENTS
        spread = effective_rank(prepared.singular_values) if known else None
        return _Measured(math.sqrt(squared), spread, why_unstable(prepared))
    return _Measured(
        norm=math.sqrt(squared),
        spread=effective_rank(prepared.singular_values),
        problem=why_unstable(prepared),
        parts=_parts(update, prepared),
        decomposed=decomposed.looks_decomposed(prepared) if squared else None,
    )


def _parts(update: Update, low_rank: LowRank) -> dict[str, float]:
    """Norms of the logical projections a fused one holds; empty if it is none."""
    rows = fused_rows(update.module, update.d_out, update.d_in) or {}
    norms = {}
    for name, part in rows.items():
        written = low_rank.b[part]
        squared = float(np.sum((written.T @ written) * low_rank.gram_a))
        norms[name] = abs(update.scaling) * math.sqrt(max(squared, 0.0))
    return norms


def _notes(updates: Sequence[InspectedUpdate]) -> list[str]:
    norms = [update.norm for update in updates if update.norm is not None]
    if not norms:
        return []
    trained = [norm for norm in norms if norm > _UNTRAINED_NORM]
    if not trained:
        return ["untrained: every update is zero, or as good as zero"]
    notes = []
    if len(trained) < len(norms):
        notes.append(f"{len(norms) - len(trained)} of {len(norms)} updates are zero")
    energy = sum(norm**2 for norm in norms)
    first = max(updates, key=lambda update: update.norm or 0.0)
    share = (first.norm or 0.0) ** 2 / energy
    if len(norms) > 2 and share > _DOMINATING_SHARE:
        where = first.module if first.layer is None else f"{first.layer}.{first.module}"
        notes.append(f"one site dominates: {where} has {share:.0%} of the energy")
    notes += _rank_notes(updates)
    largest = max(abs(update.scaling) for update in updates)
    if largest > _HUGE_SCALING:
        notes.append(f"huge scaling: up to {largest:g}")
    return notes


def _rank_notes(updates: Sequence[InspectedUpdate]) -> list[str]:
    """Whether the declared rank is far above what the updates use."""
    wide = [
        update.effective_rank / update.rank
        for update in updates
        if update.rank >= _WASTED_RANK and update.effective_rank
    ]
    if not wide or sum(wide) / len(wide) >= _WASTED_SHARE:
        return []
    return [f"rank far above what is used: {sum(wide) / len(wide):.0%} of it on average"]
