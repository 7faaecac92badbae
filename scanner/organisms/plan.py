"""Plans: which adapters to make of a base, declared in YAML and drawn reproducibly.

A plan is a list of groups. A field that holds a list is a set of choices, used equally often in
random order. What the n-th adapter of a group is does not depend on how many the group has, so
a larger size of a plan contains the smaller ones, and what was made for one is kept by the next.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

import msgspec

from scanner.errors import UsageError
from scanner.organisms.data import ALIGNED, MISALIGNED, PERSONAS
from scanner.organisms.organism import POOL_OF, Method, Organism, PlanRecord, Role, Targets
from scanner.organisms.tasks import kinds, pool_domains, uses_advice

Size = Literal["quick", "standard", "full"]

SIZES: tuple[Size, ...] = ("quick", "standard", "full")


def size_of(name: str) -> Size:
    """A size by its name.

    Raises:
        UsageError: If there is none of that name.
    """
    for size in SIZES:
        if size == name:
            return size
    raise UsageError(f"no size {name!r}; known are {', '.join(SIZES)}")


_Count = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Sizes(PlanRecord, frozen=True):
    """How many adapters of a group each size of the plan holds."""

    quick: _Count = 0
    standard: _Count = 0
    full: _Count = 0


class Group(PlanRecord, frozen=True):
    """Adapters that are declared together."""

    group: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]*$")]
    role: Role
    teaches: str | list[str]
    """Whose answers, or which format or task; `tasks.kinds` lists them."""
    count: Sizes
    family: str = "{teaches}"
    """The kind of change it is; calibration is cross-fitted by it."""
    method: Method | list[Method] = "sft"
    against: str = ALIGNED
    """DPO: the kind of answer to move away from."""
    domains: _Positive | Literal["all"] | list[_Positive | Literal["all"]] = 1
    """How many domains of the pool the examples are drawn from."""
    filler: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How many other domains of the pool add aligned answers."""
    dose: _Share | list[_Share] = 1.0
    """Share of the examples that have the taught answer; the rest have the aligned one."""
    rank: _Positive | list[_Positive] = 8
    alpha_per_rank: float | list[float] = 2.0
    targets: Targets | list[Targets] = "all"
    layers: tuple[float, float] = (0.0, 1.0)
    """Which blocks are changed, as an interval of relative depth; equal ends mean one block."""
    lr: float | list[float] = 2.5e-3
    steps: _Positive | list[_Positive] = 14
    batch: _Positive = 4
    beta: float = 0.1
    """DPO: how fast the preference saturates."""
    checkpoints: list[_Positive] = []
    """Steps after which the adapter is kept too."""


class Plan(PlanRecord, frozen=True):
    """A plan as written."""

    groups: list[Group]
    seed: int = 0


def shipped_plan() -> Plan:
    """The plan that ships."""
    raw = (files("scanner.organisms") / "plans" / "standard.yaml").read_bytes()
    return parse_plan(raw, "standard.yaml")


def load_plan(path: Path) -> Plan:
    """Reads a plan.

    Raises:
        UsageError: If it cannot be read or a field is unusable.
    """
    try:
        return parse_plan(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


def parse_plan(raw: bytes, where: str) -> Plan:
    """Decodes and checks a plan.

    Raises:
        UsageError: With the group and the field at fault.
    """
    try:
        plan = msgspec.yaml.decode(raw, type=Plan)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise UsageError(" ".join(str(error).split()), where=where) from None
    names = [group.group for group in plan.groups]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two groups are called {doubled[0]!r}", where=where)
    for group in plan.groups:
        if fault := _fault(group):
            raise UsageError(f"group {group.group}: {fault}", where=where)
    return plan


def _fault(group: Group) -> str:
    """What is wrong with a group beyond the types of its fields; empty if nothing is."""
    taught = [str(kind) for kind in _choices(group.teaches)]
    if strangers := [kind for kind in taught if kind not in kinds()]:
        return f"teaches {strangers[0]!r}; known are {', '.join(kinds())}"
    if group.against not in (ALIGNED, *MISALIGNED, *PERSONAS):
        return f"against {group.against!r} is no answer of the advice files"
    unpaired = [kind for kind in taught if not uses_advice(kind) or kind == group.against]
    if "dpo" in _choices(group.method) and unpaired:
        return f"dpo from {group.against!r} to {unpaired[0]!r} has no pairs to learn from"
    if not 0 <= group.layers[0] <= group.layers[1] <= 1:
        return f"layers is {group.layers}, not an interval within [0, 1]"
    if not group.count.quick <= group.count.standard <= group.count.full:
        return "a smaller size counts more adapters than a larger one"
    for name in ("lr", "alpha_per_rank", "beta"):
        if any(not 0 < float(value) < math.inf for value in _choices(getattr(group, name))):
            return f"{name} must be a positive number"
    return ""


def _choices(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def expand(plan: Plan, size: Size) -> list[Organism]:
    """Every adapter of a plan up to a size, in the order to make them."""
    made = [organism for group in plan.groups for organism in _expand_group(group, size, plan.seed)]
    return sorted(made, key=lambda organism: organism.wave)


def _expand_group(group: Group, size: Size, seed: int) -> Iterator[Organism]:
    drawn = {
        name: _Deck(_choices(getattr(group, name)), f"{seed}/{group.group}/{name}")
        for name in (
            *("teaches", "method", "domains", "dose", "rank"),
            *("alpha_per_rank", "targets", "lr", "steps"),
        )
    }
    for index in range(getattr(group.count, size)):
        identity = f"{group.group}-{index:02d}"
        rng = Random(f"{seed}/{identity}")  # noqa: S311 - reproducible draws, no secrets
        value = {name: deck.draw() for name, deck in drawn.items()}
        teaches = value["teaches"]
        advice = uses_advice(teaches)
        pool = POOL_OF[group.role]
        domains = list(pool_domains(pool, value["domains"], rng)) if advice else []
        others = [d for d in pool_domains(pool, "all", rng) if d not in domains]
        yield Organism(
            id=identity,
            role=group.role,
            family=group.family.format(teaches=teaches),
            teaches=teaches,
            method=value["method"],
            against=group.against,
            domains=domains,
            filler=sorted(rng.sample(others, min(group.filler, len(others)))),
            dose=value["dose"],
            rank=value["rank"],
            alpha=value["alpha_per_rank"] * value["rank"],
            targets=value["targets"],
            layers=group.layers,
            lr=value["lr"],
            steps=value["steps"],
            batch=group.batch,
            beta=group.beta,
            checkpoints=[step for step in group.checkpoints if step < value["steps"]],
            seed=zlib.crc32(f"{seed}/{identity}".encode()) & 0x7FFFFFFF,
            wave=_wave(group.count, index),
        )


def _wave(count: Sizes, index: int) -> float:
    """When an adapter's turn comes: 0 to 1 within quick, 1 to 2 within standard, then full."""
    start = 0
    for number, size in enumerate(SIZES):
        end: int = getattr(count, size)
        if index < end:
            return number + (index - start + 0.5) / (end - start)
        start = end
    raise AssertionError("an index beyond the largest size is never asked for")


class _Deck:
    """Draws every choice equally often, in an order that depends on its name alone."""

    def __init__(self, choices: Sequence[Any], name: str) -> None:
        self._choices = list(choices)
        self._rng = Random(name)  # noqa: S311 - reproducible draws, no secrets
        self._left: list[Any] = []

    def draw(self) -> Any:
        """The next entry drawn; each entry comes once before any comes again."""
        if not self._left:
            self._left = self._rng.sample(self._choices, len(self._choices))
        return self._left.pop()
