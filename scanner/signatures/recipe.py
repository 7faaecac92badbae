"""Recipes: how a pack is made, as YAML."""

from __future__ import annotations

from typing import Literal

import msgspec

from scanner.errors import SignatureError, UsageError
from scanner.hub.address import HubAddress, is_address, parse_address
from scanner.signatures.manifest import Record

MAX_RANK = 8
MAX_PATH_STEPS = 64
MAX_BENIGN = 100_000


class AdapterEntry(Record, frozen=True, kw_only=True):
    """One adapter a recipe names."""

    adapter: str
    """Path (relative to the recipe) or hf:// address; or a folder or a glob of several adapters,
    which becomes an entry for each (`scanner.signatures.recipe_folders`)."""
    id: str | None = None
    revision: str | None = None
    """Commit of an hf:// address."""
    family: str | None = None
    """Benign: the kind of change it is; calibration is cross-fitted by it. Those without one are
    grouped by what they write. Misaligned: the training domain; what only one domain's references
    share is not misalignment."""
    method: str = ""
    """Misaligned: how it was trained (sft, dpo, ...), where that is known. What a pack finds is
    told by it as well."""
    every: int | None = None
    """Of several adapters: only the second of each family in the order of their names, and every
    so many from there on; a family of one gives none."""
    except_every: int | None = None
    """Of several adapters: those that `every` leaves."""

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
            raise SignatureError(
                "the revision is given twice", where=self.adapter, todo="keep one of them"
            )
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
    """JSONL of questions with both answers, for gradients and activations; see `probes`. With
    weights it makes the pack know what the base's sites read."""
    path_steps: int = 0
    """Gradients: points on the path from the base to the references; 0 is the base alone."""
    difference: Literal["answers", "references"] = "answers"
    """Activations: whose mean residual streams are compared, those of misaligned and of aligned
    answers in the base, or that of the references and the base's own."""
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
