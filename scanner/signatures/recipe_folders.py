"""Folders and globs of adapters -> an entry for each; and folders -> a recipe.

In a folder of several adapters, and for a glob, the family of each adapter is the folder that it
lies in, directly below the folder named (of a glob: below the part without wildcards). An adapter
that lies there directly has no family: those are grouped by what they write (`building.grouping`).
"""

from __future__ import annotations

import glob
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from scanner.errors import SignatureError, TargetError
from scanner.formats.base_identity import normalise_base_name
from scanner.formats.discover import adapters_in
from scanner.formats.opening import open_path
from scanner.formats.rules import SKIPPED_FOLDERS
from scanner.signatures.recipe import AdapterEntry

MISALIGNED, BENIGN = "misaligned", "benign"
"""The folders that `init` looks into."""
NULLED_EVERY = 4
"""`init` nulls with one adapter of a family in four, and calibrates on the others."""


class Found(NamedTuple):
    """An adapter in a folder."""

    path: Path
    family: str | None
    """The folder below the one searched that it lies in; None if it lies there directly."""


def adapters_below(root: Path) -> list[Found]:
    """The adapters in a folder, in the order of their names; one that is an adapter holds itself.

    What lies in an adapter's own folder, such as its checkpoints, is left alone.
    """
    found = []
    for path in _walk(root):
        below = path.relative_to(root).parts
        found.append(Found(path, below[0] if len(below) > 1 else None))
    return found


def _walk(folder: Path) -> Iterator[Path]:
    try:
        direct = adapters_in(folder)
    except TargetError:
        direct = []
    if direct:
        yield folder
        return
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and inner.name not in SKIPPED_FOLDERS:
            yield from _walk(inner)


class Layout(NamedTuple):
    """What `init` found in a folder."""

    base_model: str
    misaligned: list[Found]
    benign: list[Found]


def layout_of(root: Path) -> Layout:
    """Finds misaligned and benign adapters in a folder, and what base they are of.

    Raises:
        SignatureError: If a folder is missing or empty, an adapter cannot be read, or they are
            not of one base that they name.
    """
    sets = {}
    for name in (MISALIGNED, BENIGN):
        folder = root / name
        sets[name] = adapters_below(folder) if folder.is_dir() else []
        if not sets[name]:
            raise SignatureError(
                "no adapter in it" if folder.is_dir() else "no such folder",
                where=str(folder),
                todo=f"put adapters in {root}/{MISALIGNED}/FAMILY/ (a family is what they were "
                f"trained on) and {root}/{BENIGN}/FAMILY/ (a kind of harmless change)",
            )
    return Layout(_base_of([*sets[MISALIGNED], *sets[BENIGN]]), sets[MISALIGNED], sets[BENIGN])


def _base_of(found: Sequence[Found]) -> str:
    """The base model that all adapters name.

    Raises:
        SignatureError: If there is none.
    """
    base, first = "", found[0].path
    for item in found:
        try:
            with open_path(item.path) as adapter:
                name = adapter.base_model
        except TargetError as error:
            raise SignatureError(error.what, where=error.where, todo=error.todo) from None
        if name is None:
            raise SignatureError(
                "does not name its base model",
                where=str(item.path),
                todo="write it into adapter_config.json as base_model_name_or_path",
            )
        base = base or name
        if normalise_base_name(name) != normalise_base_name(base):
            raise SignatureError(
                f"is of base {name}, {first} of {base}",
                where=str(item.path),
                todo="a signature is of one base: take the others out",
            )
    return base


def recipe_text(layout: Layout, root: str) -> str:
    """The recipe of a folder, as YAML with a word on each choice.

    Args:
        layout: What is in it.
        root: The folder, relative to where the recipe will be.
    """
    nulled = sum(number % NULLED_EVERY == 1 for number in _numbers(layout.benign))
    few = "  # no benign family has two adapters, one of which could be nulled with"
    fields = [
        "# What each field means: docs/signatures.md",
        f"base_model: {json.dumps(layout.base_model)}",
        "method: weights",
        f"root: {json.dumps(root)}",
        "nulled: 2" if nulled else f"nulled: 0{few}",
        "misaligned:                  # the folder of each is its family: what it was trained on",
        f"  - {{adapter: {MISALIGNED}}}",
    ]
    if nulled:
        fields += [
            f"aligned:                     # to null with: of each family one in {NULLED_EVERY}",
            f"  - {{adapter: {BENIGN}, every: {NULLED_EVERY}}}",
        ]
    left = f", except_every: {NULLED_EVERY}" if nulled else ""
    fields += [
        "benign:                      # to calibrate on: the others",
        f"  - {{adapter: {BENIGN}{left}}}",
    ]
    return "\n".join(fields) + "\n"


def _numbers(found: Sequence[Found]) -> Iterator[int]:
    """The place of each adapter in its family."""
    seen: Counter[str | None] = Counter()
    for item in found:
        yield seen[item.family]
        seen[item.family] += 1


def is_pattern(path: str) -> bool:
    """Whether a path has wildcards, and is no file that happens to be called so."""
    return glob.has_magic(path) and not Path(path).exists()


def expanded(entry: AdapterEntry, root: Path, where: str) -> list[AdapterEntry]:
    """An entry of a recipe as entries of one adapter each.

    Args:
        entry: The entry, with a path relative to `root`.
        root: Where relative paths start.
        where: What an error calls the entry's place.

    Raises:
        SignatureError: If there is nothing there.
    """
    if entry.is_remote:
        if entry.every or entry.except_every:
            raise SignatureError(
                "every and except_every are for folders and globs",
                where=where,
                todo="take them out",
            )
        return [entry]
    path = root / entry.adapter
    found = _matching(entry.adapter, root) if is_pattern(str(path)) else _in_folder(path)
    if not found:
        missing = not is_pattern(str(path)) and not path.exists()
        raise SignatureError(
            f"{entry.adapter}: " + ("no such file or folder" if missing else "no adapter in it"),
            where=where,
            todo=f"paths start from {root}" + ("" if missing else "; name a folder of adapters"),
        )
    if entry.id is not None and len(found) > 1:
        raise SignatureError(
            f"id {entry.id!r} is for one adapter, {entry.adapter} are {len(found)}",
            where=where,
            todo="take it out: each is called by its path",
        )
    chosen = _chosen(entry, found, where)
    several = len(found) > 1 or is_pattern(str(path))
    return [
        msgspec.structs.replace(
            entry,
            adapter=str(item.path),
            id=_name(item.path, root) if several else entry.name,
            family=entry.family or item.family,
            every=None,
            except_every=None,
        )
        for item in chosen
    ]


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _in_folder(path: Path) -> list[Found]:
    if not path.is_dir():
        return [Found(path, None)] if path.exists() else []
    return adapters_below(path)


def _matching(pattern: str, root: Path) -> list[Found]:
    """What a glob matches. Its families are counted from its first wildcard."""
    parts = Path(pattern).parts
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    fixed = root.joinpath(*parts[:first])
    found = []
    for match in sorted(Path(name) for name in glob.glob(str(root / pattern), recursive=True)):
        inner = list(_walk(match)) if match.is_dir() else []
        inner += [match] if match.is_file() and _is_one(match) else []
        for path in inner:
            below = path.relative_to(fixed).parts
            found.append(Found(path, below[0] if len(below) > 1 else None))
    return list(dict.fromkeys(found))


def _is_one(file: Path) -> bool:
    """Whether a file is an adapter by itself, and not a part of the one that its folder is."""
    return any(found.target == file for found in adapters_in(file.parent))


def _chosen(entry: AdapterEntry, found: Sequence[Found], where: str) -> list[Found]:
    """The share of a folder that an entry takes."""
    step = entry.every or entry.except_every
    if step is None:
        return list(found)
    if entry.every and entry.except_every:
        raise SignatureError("every beside except_every", where=where, todo="give one of them")
    if step < 2:
        raise SignatureError(
            f"every {step}: of one family nothing would be left", where=where, todo="2 or more"
        )
    return [
        item
        for item, number in zip(found, _numbers(found), strict=True)
        if (number % step == 1) == bool(entry.every)
    ]
