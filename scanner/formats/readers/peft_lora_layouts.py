"""How PEFT LoRA lays out factors that are not simply (r, in) and (out, r).

Experts kept in one parameter (`target_parameters`), stacks of experts in three dimensions,
block-diagonal factors (bdLoRA), pooled inputs (QALoRA) and a diagonal in between (KaSA).
The rules are those of `ParamWrapper`, `BdLoraLinearVariant`, `QALoraLinearVariant` and
`KasaLinearVariant` in `peft/tuners/lora` (PEFT 0.21).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from scanner.errors import MalformedFileError
from scanner.formats import factors
from scanner.formats.architectures import EXPERT_PARAMETERS, RESIDUAL, ROLES
from scanner.formats.model import Factors, Site, TensorInfo, TensorStore, Update
from scanner.formats.module_names import site_of
from scanner.formats.peft_config import PeftConfig
from scanner.formats.readers.grouping import Group, Plan, RecentlyRead, to_update

_MAX_EXPERTS = 4096
_BASE_LAYER = ".base_layer"
_SWAPPING_VERSIONS = re.compile(r"0\.1[78](\.|$)")
"""PEFT 0.17 and 0.18 took (expert, out, in) parameters for (expert, in, out)."""
EXPERT_MAJOR, RANK_MAJOR = "grouped_by_expert", "rank_major"
"""Values of `lora_B_layout`, which Unsloth writes since it agreed with PEFT on the order."""


def plain(
    store: TensorStore, group: Group, shape: tuple[int, int, int], parts: tuple[str, str]
) -> Plan:
    """Plans B @ A; the scaling is still to be filled in.

    Args:
        store: Where the tensors are.
        group: The module.
        shape: (d_out, rank, d_in).
        parts: Names of the B and the A part.
    """
    d_out, rank, d_in = shape
    b, a = (group.parts[part] for part in parts)

    def load() -> Factors:
        return store.read(b).reshape(d_out, rank), store.read(a).reshape(rank, d_in)

    return Plan(rank, d_out, d_in, 1.0, load)


def unusual(group: Group, store: TensorStore, config: PeftConfig) -> Plan | None:
    """The plan of a module whose factors have another layout by the config's word.

    Returns:
        None if the module is an ordinary one.

    Raises:
        MalformedFileError: If the tensors do not fit that layout.
    """
    if "lora_diag" in group.parts and config.raw.get("kasa_config"):
        return _kasa(group, store, config)
    if config.raw.get("use_bdlora"):
        return _block_diagonal(group, store, config)
    if config.raw.get("use_qalora"):
        return _pooled(group, store, config)
    return None


def _kasa(group: Group, store: TensorStore, config: PeftConfig) -> Plan:
    rank, d_in = group.shape("lora_A", 2)
    d_out, _ = group.shape("lora_B", 2)
    group.require(group.shape("lora_B") == (d_out, rank) and group.shape("lora_diag") == (rank,))
    parts = dict(group.parts)

    def load() -> Factors:
        return store.read(parts["lora_B"]) * store.read(parts["lora_diag"]), store.read(
            parts["lora_A"]
        )

    return Plan(rank, d_out, d_in, config.scaling(group.module, rank), load)


def _block_diagonal(group: Group, store: TensorStore, config: PeftConfig) -> Plan | None:
    """bdLoRA: one factor is zero outside n blocks on its diagonal, and only those are stored.

    They stand one below the other: A as (r, d_in / n), or B as (d_out, r / n). Which factor it
    is goes by the module's name.
    """
    settings = config.raw["use_bdlora"]
    if not isinstance(settings, dict) or type(settings.get("nblocks")) is not int:
        raise MalformedFileError("use_bdlora has no nblocks")
    blocks: int = settings["nblocks"]
    a_in_blocks, b_in_blocks = (
        _is_named(group.module, settings.get(f"target_modules_bd_{side}")) for side in "ab"
    )
    if not (a_in_blocks or b_in_blocks):
        return None
    (rank, stored_in), (d_out, stored_rank) = group.shape("lora_A", 2), group.shape("lora_B", 2)
    group.require(blocks > 0 and not (a_in_blocks and b_in_blocks))
    parts = dict(group.parts)
    scaling = config.scaling(group.module, rank)

    def load_a_in_blocks() -> Factors:
        a = factors.block_diagonal(store.read(parts["lora_A"]), blocks)
        return store.read(parts["lora_B"]), a

    def load_b_in_blocks() -> Factors:
        b = factors.block_diagonal(store.read(parts["lora_B"]), blocks)
        return b, store.read(parts["lora_A"])

    if a_in_blocks:
        group.require(stored_rank == rank and rank % blocks == 0)
        d_in = stored_in * blocks
        return Plan(rank, d_out, d_in, scaling, load_a_in_blocks, formed=rank * d_in)
    group.require(stored_rank * blocks == rank and d_out % blocks == 0)
    return Plan(rank, d_out, stored_in, scaling, load_b_in_blocks, formed=rank * d_out)


def _is_named(module: str, names: object) -> bool:
    """Whether the last component of a module's path holds one of the names of a config's list.

    Raises:
        MalformedFileError: If it is no list.
    """
    if names is not None and not isinstance(names, list):
        raise MalformedFileError(f"use_bdlora lists modules as {str(names)[:40]!r}, not a list")
    leaf = module.rpartition(".")[2]
    return any(str(name) in leaf for name in names or [])


def _pooled(group: Group, store: TensorStore, config: PeftConfig) -> Plan:
    """QALoRA: A reads one number per group of inputs, their mean times the number of groups."""
    size = config.need_whole("qalora_group_size")
    rank, groups = group.shape("lora_A", 2)
    d_out, _ = group.shape("lora_B", 2)
    group.require(group.shape("lora_B") == (d_out, rank))
    parts = dict(group.parts)

    def load() -> Factors:
        spread = np.repeat(store.read(parts["lora_A"]), size, axis=1)
        return store.read(parts["lora_B"]), spread * np.float32(groups / size)

    scaling, d_in = config.scaling(group.module, rank), groups * size
    return Plan(rank, d_out, d_in, scaling, load, formed=rank * d_in)


def residual_width(groups: Sequence[Group]) -> int | None:
    """Width of the residual stream, as ordinary modules that read it show."""
    widths = set()
    for group in groups:
        role = ROLES.get(group.module.rpartition(".")[2])
        info = group.infos.get("lora_A")
        if role is None or role.reads != RESIDUAL or info is None:
            continue
        if "experts" not in group.module and len(info.shape) == 2:
            widths.add(info.shape[1])
    return widths.pop() if len(widths) == 1 else None


def is_stack_of_experts(a: TensorInfo, b: TensorInfo) -> bool:
    """Whether both factors have a leading axis of experts, which one of them may share."""
    if len(a.shape) != 3 or len(b.shape) != 3:
        return False
    return a.shape[1] == b.shape[2] and (a.shape[0] == b.shape[0] or 1 in (a.shape[0], b.shape[0]))


def stacked_experts(
    group: Group, a: str, b: str, recent: RecentlyRead, config: PeftConfig
) -> list[Update]:
    """A (E, r, in) and B (E, out, r); either may have one entry that all experts share."""
    shape_a, shape_b = group.shape(a, 3), group.shape(b, 3)
    _, rank, d_in = shape_a
    scaling = config.scaling(group.module, rank)
    name_a, name_b = group.parts[a], group.parts[b]

    def load(expert: int) -> Factors:
        return recent.read(name_b)[expert % shape_b[0]], recent.read(name_a)[expert % shape_a[0]]

    experts = _checked_experts(max(shape_a[0], shape_b[0]))
    return [
        to_update(
            group,
            Plan(rank, shape_b[1], d_in, scaling, partial(load, expert)),
            expert_site(group.module, expert),
        )
        for expert in range(experts)
    ]


def _checked_experts(count: int) -> int:
    if count > _MAX_EXPERTS:
        raise MalformedFileError(f"{count:,} experts in one tensor")
    return count


def expert_site(module: str, expert: int) -> Site:
    """The site of one expert: its number goes before the last component of the path."""
    site = site_of(module)
    parent, _, leaf = site.module.rpartition(".")
    path = f"{parent}.{expert}.{leaf}" if parent else f"{leaf}.{expert}"
    return Site(site.layer, path)


def targeted_parameter(module: str, config: PeftConfig) -> str | None:
    """The parameter of all experts that a module's factors belong to, as its own path.

    PEFT wraps a module once per targeted parameter, in order of definition, so that the
    outermost factors (no ``base_layer`` in their name) are those of the last one.

    Returns:
        None if the module holds no targeted parameter of its own.

    Raises:
        MalformedFileError: If more layers are wrapped than parameters are targeted.
    """
    targets = config.raw.get("target_parameters")
    if not isinstance(targets, list):
        return None
    owner = module.replace(_BASE_LAYER, "")
    here = {
        leaf
        for parent, _, leaf in (str(target).rpartition(".") for target in targets)
        if leaf != "weight" and (owner == parent or owner.endswith(f".{parent}"))
    }
    if not here:
        return None
    if unknown := here - set(EXPERT_PARAMETERS):
        raise MalformedFileError(
            f"target_parameters: where {sorted(unknown)[0][:40]!r} stands among them is not known"
        )
    wrapped = [name for name in EXPERT_PARAMETERS if name in here]
    depth = module.count(_BASE_LAYER)
    if depth >= len(wrapped):
        raise MalformedFileError("more layers of factors than target_parameters")
    return f"{owner}.{wrapped[-1 - depth]}"


@dataclass(frozen=True)
class ParameterLayout:
    """What decides how the factors of one parameter are cut into experts."""

    recent: RecentlyRead
    config: PeftConfig
    residual: int | None
    """Width of the residual stream, if ordinary modules show it."""

    @property
    def expert_major(self) -> bool:
        """Whether B's columns lie expert by expert instead of rank by rank.

        Raises:
            MalformedFileError: If nothing tells it.
        """
        marker = self.config.raw.get("lora_B_layout")
        if marker in (EXPERT_MAJOR, RANK_MAJOR):
            return bool(marker == EXPERT_MAJOR)
        mapping = self.config.raw.get("auto_mapping")
        unsloth = isinstance(mapping, dict) and bool(mapping.get("unsloth_fixed"))
        if marker is not None or unsloth:
            raise MalformedFileError(
                "target_parameters written by Unsloth without a known lora_B_layout: which "
                "column belongs to which expert is ambiguous"
            )
        return False

    def transposed(self, parameter: str, d_out: int, d_in: int) -> bool:
        """Whether the product is the transpose of the delta (PEFT 0.17 and 0.18 on some bases).

        Raises:
            MalformedFileError: If it cannot be told.
        """
        version = str(self.config.raw.get("peft_version") or "")
        if not _SWAPPING_VERSIONS.match(version):
            return False
        reads_residual = not parameter.endswith("down_proj")
        if self.residual is None or d_out == d_in or self.residual not in (d_out, d_in):
            raise MalformedFileError(
                f"target_parameters written by PEFT {version[:20]}, which swaps input and output "
                "for some bases: which way round is not known"
            )
        return (d_in == self.residual) != reads_residual


class _Cut(NamedTuple):
    """One parameter's factors and how they are cut."""

    recent: RecentlyRead
    b: str
    a: str
    rank: int
    experts: int
    expert_major: bool
    transposed: bool

    def load(self, expert: int) -> Factors:
        """(b, a) of one expert."""
        stored_b, stored_a = self.recent.read(self.b), self.recent.read(self.a)
        a = stored_a[expert * self.rank : (expert + 1) * self.rank]
        if self.expert_major:
            b = stored_b[:, expert * self.rank : (expert + 1) * self.rank]
        else:
            b = stored_b[:, expert :: self.experts]
        return (a.T, b.T) if self.transposed else (b, a)


def parameter_experts(group: Group, parameter: str, layout: ParameterLayout) -> list[Update]:
    """A (E * r, in), expert by expert; B (out, r * E), expert fastest.

    Raises:
        TargetError: If the shapes do not fit, or the layout is ambiguous.
    """
    rows, d_in = group.shape("lora_A", 2)
    d_out, columns = group.shape("lora_B", 2)
    rank = layout.config.declared_rank(parameter)
    if rank is None:
        raise MalformedFileError("the config gives no r: the number of experts is unknown")
    group.require(rows == columns and rows % rank == 0)
    experts = _checked_experts(rows // rank)
    transposed = layout.transposed(parameter, d_out, d_in)
    cut = _Cut(
        layout.recent,
        group.parts["lora_B"],
        group.parts["lora_A"],
        rank,
        experts,
        layout.expert_major,
        transposed,
    )
    height, width = (d_in, d_out) if transposed else (d_out, d_in)
    scaling = layout.config.scaling(parameter, rank)
    return [
        to_update(
            group,
            Plan(rank, height, width, scaling, partial(cut.load, expert)),
            expert_site(parameter, expert),
        )
        for expert in range(experts)
    ]
