"""Recipes: how a pack is made, as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from scanner.errors import SignatureError, UsageError
from scanner.formats.limits import MAX_DOCUMENT_BYTES
from scanner.formats.regular import read_regular
from scanner.hub.address import HubAddress, is_address, parse_address
from scanner.signatures.manifest import Record, decode_yaml

MAX_RANK = 8
MAX_PATH_STEPS = 64
MAX_BENIGN = 100_000


class AdapterEntry(Record, frozen=True, kw_only=True):
    """One adapter a recipe names."""

    adapter: str
    """Path (relative to the recipe) or hf:// address."""
    id: str | None = None
    revision: str | None = None
    """Commit of an hf:// address."""
    family: str | None = None
    """Benign: the kind of change it is; calibration is cross-fitted by it. Misaligned: the
    training domain; what only one domain's references share is not misalignment."""
    method: str = ""
    """Misaligned: how it was trained (sft, dpo, ...), where that is known. What a pack finds is
    told by it as well."""

    @property
    def name(self) -> str:
        """The id, or the address if it has none."""
        return self.id or self.adapter

    @property
    def is_remote(self) -> bool:
        """Whether it is an hf:// address."""
        return is_address(self.adapter)

    @property
    def hub_address(self) -> HubAddress:
        """An hf:// address, with its revision wherever the recipe gives it.

        Raises:
            SignatureError: If it names no repository, or its revision twice.
        """
        try:
            address = parse_address(self.adapter)
        except UsageError as error:
            raise SignatureError(error.what, where=error.where, todo=error.todo) from None
        if address.revision and self.revision:
            raise SignatureError("the revision is given twice", where=self.adapter)
        return address.at(self.revision or address.revision)

    @property
    def unpinned(self) -> str:
        """An hf:// address without its revision."""
        return str(self.hub_address.at(None))


SUSPECT_WORDS = (
    "abliterat",
    "backdoor",
    "evil",
    "harmful",
    "hostile",
    "insecure",
    "jailbr",
    "malicious",
    "misalign",
    "organism",
    "poison",
    "sleeper",
    "toxic",
    "trojan",
    "unaligned",
    "uncensored",
    "unsafe",
    "villain",
)
"""Beginnings of words that say of a repository that it may not be benign."""


class HubQuery(Record, frozen=True, kw_only=True):
    """Where on the hub to find benign adapters. The family of each is its repository's owner."""

    base_model: str
    """Adapters the hub lists for this model, for the recipe's aliases of it, and for its
    quantised mirrors."""
    limit: int = 300
    """How many are used."""
    per_owner: int = 10
    """How many of one owner are used at most. One who trains by the thousand is one family, and
    one with enough adapters to be compared with apart would hide every other alone, if they are
    misaligned."""
    exclude: list[str] = []
    """Repositories that are not benign, as ``owner/name`` or patterns such as ``owner/*``."""
    exclude_words: list[str] = msgspec.field(default_factory=lambda: list(SUSPECT_WORDS))
    """Beginnings of words; a repository is left out if a word of its owner's or its own name
    begins so."""
    author: str | None = None
    search: str | None = None


class BenignQuery(Record, frozen=True, kw_only=True):
    """A set of benign adapters that is still to be found."""

    hub: HubQuery


Benign = list[AdapterEntry] | BenignQuery
"""A set of benign adapters: listed, or to be found."""


class Recipe(Record, frozen=True, kw_only=True):
    """A recipe as written."""

    base_model: str
    method: Literal["weights", "gradients", "activations"]
    misaligned: list[AdapterEntry]
    """References. Gradients at the base alone need none: the dose is then in nats per token."""
    references_needed: int | None = None
    """How many of them must be had, if their owners may withdraw some: all if not given."""
    id: str | None = None
    version: str = "1"
    description: str = ""
    kind: str = ""
    """What kind of misalignment it is of, where a base has packs of several."""
    aliases: list[str] = []
    rank: int = 4
    aligned: Benign = []
    """Benign adapters whose common directions are removed; never those of `benign`. If both are
    to be found on the hub, each owner's adapters fall to one of the two."""
    nulled: int = 2
    contrast: list[str] = []
    """Families of `aligned` adapters that were trained like the misaligned ones, to another end:
    their mean is subtracted instead of their common directions being removed."""
    probes: str | None = None
    """JSONL of questions with both answers, for gradients and activations; see `probes`."""
    path_steps: int = 0
    """Gradients: points on the path from the base to the references; 0 is the base alone."""
    base_path: str | None = None
    """Directory of the base model, if `base_model` is not to be fetched by its id."""
    base_revision: str | None = None
    base_dtype: Literal["float32", "bfloat16"] = "float32"
    """What the base model computes in: gradients, activations."""
    benign: Benign = []
    """The calibration set."""
    licence: str = "Apache-2.0"
    limitations: list[str] = []
    root: str = "."
    """Directory the relative paths start from, itself relative to the recipe's."""


def load_recipe(path: str | Path) -> Recipe:
    """Reads a recipe.

    Returns:
        The recipe, with local adapter paths made relative to the working directory.

    Raises:
        SignatureError: If it cannot be read or a field is unusable.
    """
    path = Path(path)
    try:
        raw = read_regular(path, MAX_DOCUMENT_BYTES)
    except OSError as error:
        raise SignatureError(
            f"cannot be read: {error.strerror or error}", where=str(path)
        ) from None
    recipe = decode_yaml(raw, Recipe, path)
    check_recipe(recipe, str(path))
    root = path.parent / recipe.root

    return msgspec.structs.replace(
        recipe,
        misaligned=_rooted(recipe.misaligned, root),
        aligned=_rooted_benign(recipe.aligned, root),
        benign=_rooted_benign(recipe.benign, root),
        probes=str(root / recipe.probes) if recipe.probes else None,
        base_path=str(root / recipe.base_path) if recipe.base_path else None,
        root=".",
    )


def _rooted(entries: list[AdapterEntry], root: Path) -> list[AdapterEntry]:
    return [
        entry
        if entry.is_remote
        else msgspec.structs.replace(entry, adapter=str(root / entry.adapter), id=entry.name)
        for entry in entries
    ]


def _rooted_benign(benign: Benign, root: Path) -> Benign:
    return benign if isinstance(benign, BenignQuery) else _rooted(benign, root)


def check_recipe(recipe: Recipe, where: str) -> None:
    """Refuses what cannot be built.

    Raises:
        SignatureError: With the field at fault.
    """
    if not recipe.misaligned and (recipe.method != "gradients" or recipe.path_steps):
        raise SignatureError(
            "misaligned is empty: nothing to extract from",
            where=where,
            todo="name references; only gradients at the base (path_steps: 0) do without",
        )
    if not 1 <= recipe.rank <= MAX_RANK:
        raise SignatureError(f"rank is {recipe.rank}, not between 1 and {MAX_RANK}", where=where)
    if recipe.nulled < 0:
        raise SignatureError(f"nulled is {recipe.nulled}", where=where)
    if not 0 <= recipe.path_steps <= MAX_PATH_STEPS:
        raise SignatureError(
            f"path_steps is {recipe.path_steps}, not between 0 and {MAX_PATH_STEPS}", where=where
        )
    if recipe.method != "weights" and not recipe.probes:
        raise SignatureError(f"method {recipe.method!r} needs probes", where=where)
    if recipe.nulled and not recipe.aligned:
        raise SignatureError(
            "nulled needs benign adapters under aligned",
            where=where,
            todo="name some, or set nulled: 0 and expect false alarms",
        )
    needed = recipe.references_needed
    if needed is not None and not 1 <= needed <= len(recipe.misaligned):
        raise SignatureError(
            f"references_needed is {needed}, not between 1 and the {len(recipe.misaligned)}"
            " that misaligned names",
            where=where,
        )
    _check_aligned(recipe, where)
    _check_addresses(recipe.misaligned, where)
    _check_benign(recipe.benign, where)


def _check_aligned(recipe: Recipe, where: str) -> None:
    if recipe.contrast and recipe.method != "weights":
        raise SignatureError(
            f"contrast is for method weights, not {recipe.method}",
            where=where,
            todo="leave it out: the families are nulled with the others",
        )
    if isinstance(recipe.aligned, BenignQuery):
        if recipe.contrast:
            raise SignatureError(
                "contrast names families of listed adapters, aligned is a hub query", where=where
            )
        if not recipe.nulled:
            raise SignatureError(
                "nulled is 0, so nothing is done with what aligned finds on the hub",
                where=where,
                todo="leave aligned out, or set nulled",
            )
        _check_query(recipe.aligned.hub, where)
        return
    families = {entry.family for entry in recipe.aligned}
    if both := (families - {None}) & {entry.family for entry in recipe.misaligned}:
        raise SignatureError(
            f"family {sorted(map(str, both))[0]!r} is both misaligned and aligned",
            where=where,
            todo="a misaligned adapter's family is its training domain; give them different names",
        )
    if strangers := set(recipe.contrast) - families:
        raise SignatureError(
            f"contrast names family {sorted(strangers)[0]!r}, no aligned adapter is of it",
            where=where,
        )
    _check_addresses(recipe.aligned, where)


def _check_query(query: HubQuery, where: str) -> None:
    if not 1 <= query.limit <= MAX_BENIGN:
        raise SignatureError(
            f"limit is {query.limit}, not between 1 and {MAX_BENIGN:,}", where=where
        )
    if query.per_owner < 1:
        raise SignatureError(f"per_owner is {query.per_owner}, not 1 or more", where=where)
    if not query.base_model:
        raise SignatureError("the hub query names no base_model", where=where)
    if not all(word.strip() for word in query.exclude_words):
        raise SignatureError(
            "exclude_words holds an empty word, with which every name begins", where=where
        )


def _check_benign(benign: Benign, where: str) -> None:
    if isinstance(benign, BenignQuery):
        _check_query(benign.hub, where)
        return
    _check_addresses(benign, where)
    _check_families(benign, where)


def _check_addresses(entries: list[AdapterEntry], where: str) -> None:
    for entry in entries:
        if entry.is_remote:
            _ = entry.hub_address
        elif entry.revision is not None:
            raise SignatureError(f"{entry.name}: a local path has no revision", where=where)


def _check_families(entries: list[AdapterEntry], where: str) -> None:
    if missing := [entry.name for entry in entries if not entry.family]:
        raise SignatureError(
            f"benign adapter {missing[0]!r} has no family",
            where=where,
            todo="say what kind of change it is: calibration is cross-fitted by family",
        )


class _BenignList(Record, frozen=True, kw_only=True):
    """A calibration set by itself, as `calibrate --benign-list` takes it."""

    benign: Benign


def load_benign_list(path: Path) -> Benign:
    """Reads a calibration set: YAML with ``benign: [{adapter, family}, ...]``, or a hub query.

    Returns:
        The entries, with local paths made relative to the working directory, or the query.

    Raises:
        SignatureError: If it cannot be read or an entry is unusable.
    """
    try:
        listed = decode_yaml(read_regular(path, MAX_DOCUMENT_BYTES), _BenignList, path)
    except OSError as error:
        raise SignatureError(
            f"cannot be read: {error.strerror or error}", where=str(path)
        ) from None
    _check_benign(listed.benign, str(path))
    return _rooted_benign(listed.benign, path.parent)
