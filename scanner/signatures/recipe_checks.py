"""What of a recipe cannot be built, each time with the line and the mend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scanner.errors import SignatureError
from scanner.signatures.recipe import (
    MAX_BENIGN,
    MAX_PATH_STEPS,
    MAX_RANK,
    AdapterEntry,
    Benign,
    BenignQuery,
    HubQuery,
    Recipe,
)

Places = Callable[[str], str]
"""Field of a recipe, such as ``benign[3].family``, or nothing for the whole -> what an error calls
the place where it stands."""


def check_recipe(recipe: Recipe, at: Places) -> None:
    """Refuses what cannot be built.

    Args:
        recipe: The recipe.
        at: Says where a field stands.

    Raises:
        SignatureError: At the first field at fault.
    """
    _check_numbers(recipe, at)
    if not recipe.misaligned and (recipe.method != "gradients" or recipe.path_steps):
        raise SignatureError(
            "misaligned is empty: nothing to extract from",
            where=at("misaligned"),
            todo="name references; only gradients at the base (path_steps: 0) do without",
        )
    if recipe.method != "weights" and not recipe.probes:
        raise SignatureError(
            f"method {recipe.method!r} needs probes",
            where=at("method"),
            todo="name a file under probes (docs/signatures.md, Probes), or use method: weights",
        )
    if recipe.difference != "answers" and recipe.method != "activations":
        raise SignatureError(
            f"difference is for method activations, not {recipe.method}",
            where=at("difference"),
            todo="leave it out",
        )
    if recipe.nulled and not recipe.aligned:
        raise SignatureError(
            "nulled needs benign adapters under aligned",
            where=at("nulled"),
            todo="name some, or set nulled: 0 and expect false alarms",
        )
    _check_aligned(recipe, at)
    _check_entries(recipe.misaligned, "misaligned", at)
    _check_benign(recipe.benign, at)


def _check_numbers(recipe: Recipe, at: Places) -> None:
    for name, value, least, most in (
        ("rank", recipe.rank, 1, MAX_RANK),
        ("path_steps", recipe.path_steps, 0, MAX_PATH_STEPS),
    ):
        if not least <= value <= most:
            raise SignatureError(
                f"{name} is {value}, not between {least} and {most}",
                where=at(name),
                todo=f"leave {name} out for what is usual",
            )
    if recipe.nulled < 0:
        raise SignatureError(
            f"nulled is {recipe.nulled}", where=at("nulled"), todo="0 or a small number"
        )
    needed, named = recipe.references_needed, len(recipe.misaligned)
    if needed is not None and not 1 <= needed <= named:
        raise SignatureError(
            f"references_needed is {needed}, not between 1 and the {named} that misaligned names",
            where=at("references_needed"),
            todo="leave it out if all are needed",
        )


def _check_aligned(recipe: Recipe, at: Places) -> None:
    if recipe.contrast and recipe.method != "weights":
        raise SignatureError(
            f"contrast is for method weights, not {recipe.method}",
            where=at("contrast"),
            todo="leave it out: the families are nulled with the others",
        )
    if isinstance(recipe.aligned, BenignQuery):
        if recipe.contrast:
            raise SignatureError(
                "contrast names families of listed adapters, aligned is a hub query",
                where=at("contrast"),
                todo="leave contrast out, or list the adapters",
            )
        if not recipe.nulled:
            raise SignatureError(
                "nulled is 0, so nothing is done with what aligned finds on the hub",
                where=at("nulled"),
                todo="leave aligned out, or set nulled",
            )
        _check_query(recipe.aligned.hub, "aligned.hub", at)
        return
    _check_entries(recipe.aligned, "aligned", at)


def check_families(recipe: Recipe, at: Places) -> None:
    """Refuses families that mean two things, once every entry has the one of its folder.

    Raises:
        SignatureError: At the first.
    """
    if isinstance(recipe.aligned, BenignQuery):
        return
    trained = {entry.family for entry in recipe.misaligned}
    for entry in recipe.aligned:
        if entry.family and entry.family in trained:
            raise SignatureError(
                f"family {entry.family!r} is both misaligned and aligned",
                where=at("aligned"),
                todo="a misaligned adapter's family is its training domain; give them different"
                " names",
            )
    families = {entry.family for entry in recipe.aligned}
    if strangers := sorted(set(recipe.contrast) - families):
        raise SignatureError(
            f"contrast names family {strangers[0]!r}, no aligned adapter is of it",
            where=at("contrast"),
            todo=f"aligned has {', '.join(sorted(map(str, families - {None}))) or 'none'}",
        )


def _check_query(query: HubQuery, name: str, at: Places) -> None:
    if not 1 <= query.limit <= MAX_BENIGN:
        raise SignatureError(
            f"limit is {query.limit}, not between 1 and {MAX_BENIGN:,}",
            where=at(f"{name}.limit"),
            todo="say how many adapters to use; 99 reach alpha 0.01",
        )
    if query.per_owner < 1:
        raise SignatureError(
            f"per_owner is {query.per_owner}, not 1 or more",
            where=at(f"{name}.per_owner"),
            todo="leave it out for what is usual",
        )
    if not query.base_model:
        raise SignatureError(
            "the hub query names no base_model",
            where=at(f"{name}.base_model"),
            todo="give the base's id on the hub",
        )
    if not all(word.strip() for word in query.exclude_words):
        raise SignatureError(
            "exclude_words holds an empty word, with which every name begins",
            where=at(f"{name}.exclude_words"),
            todo="take it out",
        )


def _check_benign(benign: Benign, at: Places) -> None:
    if isinstance(benign, BenignQuery):
        _check_query(benign.hub, "benign.hub", at)
    else:
        _check_entries(benign, "benign", at)


def _check_entries(entries: Sequence[AdapterEntry], name: str, at: Places) -> None:
    for number, entry in enumerate(entries):
        if entry.is_remote:
            try:
                _ = entry.hub_address
            except SignatureError as error:
                said = f"{entry.adapter}: {error.what}"
                raise SignatureError(
                    said, where=at(f"{name}[{number}].adapter"), todo=error.todo
                ) from None
        elif entry.revision is not None:
            raise SignatureError(
                f"{entry.name}: a local path has no revision",
                where=at(f"{name}[{number}].revision"),
                todo="take it out, or give an hf:// address",
            )


def check_benign(benign: Benign, at: Places) -> None:
    """As `check_recipe`, for a calibration set by itself."""
    _check_benign(benign, at)
