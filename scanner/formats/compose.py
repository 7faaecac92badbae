"""The sum of several adapters as one adapter.

Two adapters that are harmless alone may not be so together. Sums of low-rank updates are
low-rank: the factors are stacked, with each scaling folded into B.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import numpy as np

from scanner.errors import UsageError, option
from scanner.formats.base_identity import normalise_base_name
from scanner.formats.model import Adapter, Content, Site, Uncovered, Update, site_order
from scanner.geometry.whole_matrix import Dense


def compose(adapters: Sequence[Adapter]) -> Adapter:
    """Sums adapters of one base model.

    Raises:
        UsageError: If they name different bases, or disagree on a module's shape.
    """
    names = {normalise_base_name(adapter.base_model) for adapter in adapters} - {None}
    if len(names) > 1:
        listed = ", ".join(sorted(name for name in names if name))
        raise UsageError(
            f"adapters of different base models cannot be summed ({listed})",
            where=option("compose"),
        )
    by_site: dict[Site, list[Update]] = {}
    for adapter in adapters:
        for update in adapter.updates:
            by_site.setdefault(update.site, []).append(update)
    base = next((adapter.base_model for adapter in adapters if adapter.base_model), None)
    return Adapter(
        target=" + ".join(adapter.target for adapter in adapters),
        format="+".join(sorted({adapter.format for adapter in adapters})),
        base_model=base,
        updates=tuple(_sum(by_site[site]) for site in sorted(by_site, key=site_order)),
        uncovered=tuple(
            Uncovered(f"{adapter.target}: {item.tensor}", item.reason)
            for adapter in adapters
            for item in adapter.uncovered
        ),
        digest=partial(_joint_digest, tuple(adapters)),
        close=partial(_close_all, tuple(adapters)),
        prefetch=partial(_prefetch_all, tuple(adapters)),
    )


def _joint_digest(adapters: Sequence[Adapter]) -> str:
    lines = "".join(sorted(f"{adapter.sha256}\n" for adapter in adapters))
    return hashlib.sha256(lines.encode()).hexdigest()


def _close_all(adapters: Sequence[Adapter]) -> None:
    for adapter in adapters:
        adapter.close()


def _prefetch_all(adapters: Sequence[Adapter], names: Sequence[str]) -> None:
    for adapter in adapters:
        adapter.prefetch(names)


def _sum(updates: Sequence[Update]) -> Update:
    first = updates[0]
    shapes = {(update.d_out, update.d_in) for update in updates}
    if len(shapes) > 1:
        raise UsageError(
            f"{first.site.key} has different shapes in the adapters ({sorted(shapes)})",
            where=option("compose"),
        )
    return Update(
        site=first.site,
        rank=sum(update.rank for update in updates),
        d_out=first.d_out,
        d_in=first.d_in,
        scaling=1.0,
        dtype=first.dtype,
        tensors=tuple(name for update in updates for name in update.tensors),
        load=partial(_stack, tuple(updates)),
    )


def _stack(updates: Sequence[Update]) -> Content:
    parts = [(update.scaling, update.load()) for update in updates]
    low_rank = [(scaling, *part) for scaling, part in parts if isinstance(part, tuple)]
    if len(low_rank) < len(parts):
        return Dense(np.sum([update.delta() for update in updates], axis=0))
    b = np.concatenate([np.float32(scaling) * b for scaling, b, _ in low_rank], axis=1)
    a = np.concatenate([a for _, _, a in low_rank], axis=0)
    return b, a
