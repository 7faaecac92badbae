"""Adapter -> the signatures made for its base model, or the reason there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scanner.errors import option
from scanner.formats.base_identity import (
    normalise_base_name,
    shape_conflicts,
    shape_fingerprint,
)
from scanner.formats.model import Adapter
from scanner.signatures.installed import build_command, make_command, recipe_for
from scanner.signatures.manifest import BaseModel
from scanner.signatures.pack import Signature


@dataclass(frozen=True)
class Match:
    """The signatures that apply to an adapter, or the reason why there is none."""

    signatures: tuple[Signature, ...]
    reason: str | None = None


def names_of(base: BaseModel) -> set[str]:
    """A base model's id and aliases, normalised."""
    names = {normalise_base_name(name) for name in (base.id, *base.aliases)}
    return {name for name in names if name}


def known_shapes(
    signatures: Sequence[Signature], override: str | None, named: str | None
) -> Mapping[str, tuple[int, int]]:
    """Module -> (d_out, d_in) of an adapter's base, as the pack made for it knows them.

    Args:
        signatures: The packs.
        override: What the caller says the base is.
        named: What the adapter says it is.
    """
    name = normalise_base_name(override or named)
    for signature in signatures:
        if name in names_of(signature.manifest.base_model):
            return signature.manifest.base_model.shapes
    return {}


def match_signatures(
    adapter: Adapter, signatures: Sequence[Signature], base_model: str | None = None
) -> Match:
    """Chooses the signatures whose base model is the adapter's.

    The name decides and the shapes must agree: dimensions cannot tell a base model from
    its instruction-tuned sibling, so equal shapes alone match nothing. A pack that is given
    twice counts once; two different packs of one id match nothing, since results are told apart
    by ids.

    Args:
        adapter: The adapter.
        signatures: The candidates.
        base_model: What the caller says the base is; overrides the adapter's own word.

    Raises:
        SignatureError: If a pack for this base is damaged.
    """
    name = normalise_base_name(base_model or adapter.base_model)
    if name is None:
        return Match((), _nameless_reason(adapter, signatures))
    named = [item for item in signatures if name in names_of(item.manifest.base_model)]
    if not named:
        return Match((), _unknown_reason(adapter, signatures, base_model or adapter.base_model))
    for signature in named:
        base = signature.manifest.base_model
        if conflicts := shape_conflicts(adapter.updates, base.shapes, base.layers):
            return Match(
                (),
                f"the adapter does not fit the base it names, {base.id}: "
                f"{'; '.join(conflicts)}; say {option('base_model')} if it is another one",
            )
    distinct = {signature.digest: signature for signature in reversed(named)}
    chosen = [signature for signature in named if distinct[signature.digest] is signature]
    ids = Counter(signature.id for signature in chosen)
    if repeated := next((name for name, count in ids.items() if count > 1), None):
        places = " and ".join(str(item.path) for item in chosen if item.id == repeated)
        return Match((), f"two packs are called {repeated}: {places}; name the one to use")
    for signature in chosen:
        signature.verify()
    return Match(tuple(chosen))


def _fitting(adapter: Adapter, signatures: Sequence[Signature]) -> list[str]:
    """Ids of the bases whose shapes the adapter has."""
    shown = shape_fingerprint(adapter.updates)
    found = []
    for signature in signatures:
        base = signature.manifest.base_model
        common = shown.keys() & base.shapes.keys()
        if common and not shape_conflicts(adapter.updates, base.shapes, base.layers):
            found.append(base.id)
    return sorted(set(found))


def _hint(adapter: Adapter, signatures: Sequence[Signature]) -> str:
    fitting = _fitting(adapter, signatures)
    if not fitting:
        return ""
    named = option("base_model")
    return f"; its shapes fit {' and '.join(fitting)}: if that is its base, say {named}"


def _nameless_reason(adapter: Adapter, signatures: Sequence[Signature]) -> str:
    hint = _hint(adapter, signatures)
    return f"the adapter does not name its base model{hint or '; say ' + option('base_model')}"


def _unknown_reason(adapter: Adapter, signatures: Sequence[Signature], name: str | None) -> str:
    hint = _hint(adapter, signatures)
    reason = f"no signature pack for base model {name!r}{hint}"
    normal = normalise_base_name(name)
    recipe = recipe_for(normal) if normal else None
    if recipe is not None:
        return (
            f"{reason}; a recipe for it ships: {build_command(recipe)}"
            " (reads hundreds of adapters from the hub: tens of gigabytes for 7 billion parameters)"
        )
    return reason if hint or name is None else f"{reason}; {make_command(name)}"
