"""Recipes on disk: YAML -> `Recipe`, with the line of every error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from scanner.errors import SignatureError
from scanner.formats.limits import MAX_DOCUMENT_BYTES
from scanner.formats.regular import read_regular
from scanner.formats.yamlfile import YamlDocument, line_of, node_at, parse_yaml, validation_error
from scanner.signatures.manifest import Record
from scanner.signatures.recipe import AdapterEntry, Benign, BenignQuery, HubQuery, Recipe
from scanner.signatures.recipe_checks import Places, check_benign, check_families, check_recipe
from scanner.signatures.recipe_folders import expanded

Document = TypeVar("Document", bound=msgspec.Struct)

_MEND = "docs/signatures.md says what each field of a recipe is"
_MENDS = {
    "object missing required field": "add it",
}
"""Beginning of what is wrong -> what to do about it."""


def load_recipe(path: str | Path) -> Recipe:
    """Reads a recipe.

    Returns:
        The recipe, with an entry for each adapter, and local paths made relative to the working
        directory.

    Raises:
        SignatureError: If it cannot be read or a field is unusable, with its line.
    """
    path = Path(path)
    recipe, at = _read(path, Recipe)
    check_recipe(recipe, at)
    root = path.parent / recipe.root
    found = msgspec.structs.replace(
        recipe,
        misaligned=_expanded(recipe.misaligned, root, "misaligned", at),
        aligned=_expanded_benign(recipe.aligned, root, "aligned", at),
        benign=_expanded_benign(recipe.benign, root, "benign", at),
        probes=str(root / recipe.probes) if recipe.probes else None,
        base_path=str(root / recipe.base_path) if recipe.base_path else None,
        root=".",
    )
    check_families(found, at)
    return found


class _BenignList(Record, frozen=True, kw_only=True):
    """A calibration set by itself, as `calibrate --benign-list` takes it."""

    benign: Benign


def load_benign_list(path: Path) -> Benign:
    """Reads a calibration set: YAML with ``benign: [{adapter, family}, ...]``, or a hub query.

    Returns:
        The entries, with local paths made relative to the working directory, or the query.

    Raises:
        SignatureError: If it cannot be read or an entry is unusable, with its line.
    """
    listed, at = _read(path, _BenignList)
    check_benign(listed.benign, at)
    return _expanded_benign(listed.benign, path.parent, "benign", at)


def _read(path: Path, record: type[Document]) -> tuple[Document, Places]:
    """A document, and where in the file each of its fields stands."""
    try:
        raw = read_regular(path, MAX_DOCUMENT_BYTES)
    except OSError as error:
        raise SignatureError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            todo="name a recipe, or write one: adapter-scanner signatures init DIR -o recipe.yaml",
        ) from None
    document = parse_yaml(raw, str(path), SignatureError)
    if not isinstance(document.value, dict):
        raise SignatureError(
            "a mapping was expected, with base_model and the adapters",
            where=f"{path}:1",
            todo="docs/signatures.md shows a recipe",
        )
    try:
        found = msgspec.convert(document.value, record)
    except msgspec.ValidationError as error:
        said = validation_error(
            error,
            record,
            document.node,
            str(path),
            lambda place: _known(place, record),
            SignatureError,
        )
        mend = next((m for key, m in _MENDS.items() if said.what.startswith(key)), _MEND)
        raise SignatureError(said.what, where=said.where, todo=said.todo or mend) from None
    return found, _places(document, path)


def _known(place: str, record: type[msgspec.Struct]) -> Sequence[str]:
    """The keys that may stand at a validator's path."""
    table: Any = record
    if "[" in place:
        table = AdapterEntry
    elif place.endswith(".hub"):
        table = HubQuery
    elif place.endswith((".aligned", ".benign")):
        table = BenignQuery
    return [item.encode_name for item in msgspec.structs.fields(table)]


def _places(document: YamlDocument, path: Path) -> Places:
    return lambda place: f"{path}:{line_of(node_at(document.node, f'$.{place}'))}"


def _expanded(
    entries: Sequence[AdapterEntry], root: Path, name: str, at: Places
) -> list[AdapterEntry]:
    return [
        single
        for number, entry in enumerate(entries)
        for single in expanded(entry, root, at(f"{name}[{number}]"))
    ]


def _expanded_benign(benign: Benign, root: Path, name: str, at: Places) -> Benign:
    return benign if isinstance(benign, BenignQuery) else _expanded(benign, root, name, at)
