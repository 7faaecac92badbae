"""Tensor names -> groups that belong to one module of the base model."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

from scanner.errors import HubError, LimitExceededError, MalformedFileError, TargetError
from scanner.formats.limits import (
    FORMED_PER_STORED,
    MAX_FORMED_ELEMENTS,
    MAX_RANK,
    MAX_WORK,
    WORK_PER_STORED,
)
from scanner.formats.model import (
    Content,
    FloatArray,
    Site,
    TensorInfo,
    TensorStore,
    Uncovered,
    Update,
    factors_work,
    site_order,
)
from scanner.formats.module_names import site_of, unwrapped

SAVE_AGAIN = "save the adapter again"
"""What to do about factors that no trainer writes on purpose."""
UNGATHERED = "(sharded training saved without gathering the weights?)"
"""Where such factors come from."""


@dataclass
class Group:
    """The tensors of one module, by the part each plays."""

    module: str
    """Module path in the base model, wrappers removed."""
    parts: dict[str, str] = field(default_factory=dict)
    """Part, e.g. ``lora_A`` -> tensor name."""
    infos: dict[str, TensorInfo] = field(default_factory=dict)
    """Part -> the tensor's header entry."""

    def shape(self, part: str, dimensions: int | None = None) -> tuple[int, ...]:
        """The shape of one part.

        Raises:
            MalformedFileError: If the part is missing, empty, or has other dimensions.
        """
        if part not in self.infos:
            raise MalformedFileError(f"no {part} beside it", todo=SAVE_AGAIN)
        shape = self.infos[part].shape
        if 0 in shape:
            raise MalformedFileError(
                f"{part} is empty, {list(shape)} {UNGATHERED}", todo=SAVE_AGAIN
            )
        if not shape or dimensions not in (None, len(shape)):
            wanted = f"not {dimensions or 'some'} dimensions {UNGATHERED}"
            raise MalformedFileError(f"{part} has shape {list(shape)}, {wanted}", todo=SAVE_AGAIN)
        return shape

    @property
    def stored(self) -> int:
        """Elements of all its tensors."""
        return sum(math.prod(info.shape) for info in self.infos.values())

    def require(self, condition: bool) -> None:
        """Refuses shapes that do not fit.

        Raises:
            MalformedFileError: If the condition is false.
        """
        if not condition:
            listed = ", ".join(f"{part} {list(info.shape)}" for part, info in self.infos.items())
            raise MalformedFileError(f"shapes do not fit: {listed}", todo=SAVE_AGAIN)


class RecentlyRead:
    """Keeps the last few tensors read, for updates that are slices of the same ones.

    One per adapter, so that memory is bounded by a few tensors and not by the number of
    modules. Threads may share it.
    """

    _CAPACITY = 4

    def __init__(self, store: TensorStore) -> None:
        self._store = store
        self._lock = Lock()
        self._kept: OrderedDict[str, FloatArray] = OrderedDict()

    def read(self, name: str) -> FloatArray:
        """One tensor, from the file or from memory."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
            values = self._store.read(name)
            self._kept[name] = values
            if len(self._kept) > self._CAPACITY:
                self._kept.popitem(last=False)
            return values


class Plan(NamedTuple):
    """How one group becomes an update, and what that costs; tensors are read when asked for.

    Costs follow from the header, so that they can be refused before anything is made.
    """

    rank: int
    """Largest rank the update can have."""
    d_out: int
    d_in: int
    scaling: float
    load: Callable[[], Content]
    """Factors, or a matrix without low-rank structure (`scanner.geometry.whole_matrix`)."""
    formed: int = 0
    """Elements that are made beyond those that are stored."""
    work: int | None = None
    """Multiplications for its statistics; those of factors of its rank if not given."""

    def cost(self) -> int:
        """Multiplications for its statistics."""
        if self.work is not None:
            return self.work
        return factors_work(self.rank, self.d_out, self.d_in)


def group_by_module(
    store: TensorStore,
    names: Iterable[str],
    pattern: re.Pattern[str],
    module_of: Callable[[str], str],
) -> tuple[list[Group], list[str], list[Uncovered]]:
    """Groups tensors by module.

    Args:
        store: Where the tensors are.
        names: Tensor names.
        pattern: Has the groups ``module`` and ``part``.
        module_of: The base model's module path, from what `pattern` calls the module.

    Returns:
        The groups, names that do not match the pattern, and tensors that occur twice.
    """
    groups: dict[str, Group] = {}
    others: list[str] = []
    twice: list[Uncovered] = []
    for name in names:
        match = pattern.match(unwrapped(name))
        if match is None:
            others.append(name)
            continue
        module, part = module_of(match["module"]), match["part"]
        group = groups.setdefault(module, Group(module))
        if part in group.parts:
            twice.append(Uncovered(name, f"a second {part} for {module}"))
            continue
        group.parts[part] = name
        group.infos[part] = store.info(name)
    return list(groups.values()), others, twice


def to_update(group: Group, plan: Plan, site: Site | None = None) -> Update:
    """The update a plan describes, at the group's module unless another site is given.

    Raises:
        LimitExceededError: If its rank is absurd, or far more is to be made than is stored.
    """
    if plan.rank > MAX_RANK:
        raise LimitExceededError(f"rank {plan.rank:,} (limit {MAX_RANK:,})")
    limit = max(MAX_FORMED_ELEMENTS, FORMED_PER_STORED * group.stored)
    if plan.formed > limit:
        raise LimitExceededError(
            f"{group.stored:,} elements that stand for {plan.formed:,} (limit {limit:,})"
        )
    names = tuple(group.parts.values())
    return Update(
        site=site or site_of(group.module),
        rank=plan.rank,
        d_out=plan.d_out,
        d_in=plan.d_in,
        scaling=plan.scaling,
        dtype=next(iter(group.infos.values())).dtype,
        tensors=names,
        load=plan.load,
        work=plan.cost(),
    )


def plan_all(
    groups: Sequence[Group], plan: Callable[[Group], Sequence[Update]]
) -> tuple[list[Update], list[Uncovered]]:
    """Updates of every group; a group that makes none is uncovered, with the reason.

    So are the groups from which on the work for all of them is out of proportion to the file.
    """
    updates: list[Update] = []
    uncovered: list[Uncovered] = []
    left = MAX_WORK + WORK_PER_STORED * sum(group.stored for group in groups)
    for group in groups:
        try:
            found = plan(group)
            work = sum(update.work for update in found)
            if work > left:
                raise LimitExceededError(f"to judge it takes {work:.1e} multiplications: too many")
            left -= work
            updates += found
        except HubError:  # says nothing about the adapter
            raise
        except TargetError as error:
            uncovered += [Uncovered(name, error.reason) for name in group.parts.values()]
    return updates, uncovered


def in_order(
    updates: Iterable[Update], uncovered: Sequence[Uncovered]
) -> tuple[tuple[Update, ...], tuple[Uncovered, ...]]:
    """Sorts updates by site and keeps the first of each; a second one is a fault."""
    kept: dict[Site, Update] = {}
    faults = list(uncovered)
    updates = list(updates)
    if not updates and not faults:
        faults.append(Uncovered("*", "the file holds no tensor"))
    for update in updates:
        if update.site in kept:
            reason = f"a second update of {update.site.key}"
            faults += [Uncovered(name, reason) for name in update.tensors]
        else:
            kept[update.site] = update
    return tuple(sorted(kept.values(), key=lambda item: site_order(item.site))), tuple(faults)
