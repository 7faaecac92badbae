"""What `signatures list`, `show` and `recipes` say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from scanner.errors import SignatureError, UsageError
from scanner.results import PowerLevel, Shape
from scanner.signatures.cautions import Caution, cautions_of
from scanner.signatures.installed import build_command
from scanner.signatures.joint import joint_power
from scanner.signatures.manifest import grouped_adapters
from scanner.signatures.match import names_of
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.power import Power, power_levels
from scanner.signatures.power_words import joint_rows, power_rows
from scanner.signatures.recipe_file import load_recipe
from scanner.statistics.conformal import needed_for_confidence, smallest_level

_LEVELS = (0.1, 0.05, 0.01, 0.001)


class PackSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One pack, or what is wrong with it."""

    path: str
    damage: str | None = None
    """Why it cannot be used; every other field is then unknown."""
    id: str | None = None
    version: str | None = None
    base_model: str | None = None
    method: str | None = None
    rank: int | None = None
    nulled: int | None = None
    sites: int | None = None
    references: int | None = None
    benign: int | None = None
    """Benign adapters it was calibrated on; 0 if it was not."""
    benign_one_layer: int | None = None
    """How many of them change one layer only: what adapters of one layer are compared with."""
    dropped: int | None = None
    """Adapters that somebody took out of the calibration as not benign; the pack says why."""
    families: list[str] = []
    smallest_alpha: float | None = None
    """1 / (n + 1): no smaller false-positive rate can be asked for."""
    shown_alpha: float | None = None
    """Smallest of 0.1, 0.05, 0.01, 0.001 whose observance n adapters can show at 95%."""
    held_out: bool | None = None
    """Whether `power` is about references that the pack was made without."""
    power: list[PowerLevel] = []
    """What it finds, by false-positive rate; empty if that is not known."""
    benign_flagged: dict[str, dict[str, float]] = {}
    """Family of benign adapters -> alpha -> share of it that would be flagged if the pack did not
    know the family."""
    digest: str | None = None
    licence: str | None = None
    limitations: list[str] = []
    warnings: list[Caution] = []
    """What is probably wrong with it, and what to do."""


class RecipeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One recipe that ships."""

    path: str
    base_model: str
    method: str
    misaligned: list[str]
    command: str


def summarise_pack(signature: Signature) -> PackSummary:
    """Summarises a pack.

    Raises:
        SignatureError: If it is damaged.
    """
    manifest, calibration = signature.manifest, signature.calibration
    benign = calibration.benign if calibration else []
    n, power = len(benign), signature.power
    return PackSummary(
        path=str(signature.path),
        id=manifest.id,
        version=manifest.version,
        base_model=manifest.base_model.id,
        method=manifest.method,
        rank=manifest.rank,
        nulled=manifest.nulled,
        sites=len(signature.sites),
        references=len(signature.reference_ids),
        benign=n,
        benign_one_layer=sum(Shape.of(item.layers) is Shape.ONE_LAYER for item in benign),
        dropped=len(calibration.dropped) if calibration else 0,
        families=sorted({item.family for item in benign}),
        smallest_alpha=smallest_level(n) if n else None,
        shown_alpha=min((a for a in _LEVELS if needed_for_confidence(a) <= n), default=None),
        held_out=power.held_out if power and power.references else None,
        power=power_levels(power) if power and power.references else [],
        benign_flagged=_benign_flagged(power) if power else {},
        digest=signature.digest,
        licence=manifest.licence,
        limitations=manifest.limitations,
        warnings=cautions_of(signature),
    )


class JointPackSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Several packs of one base, and what they find together."""

    packs: list[PackSummary]
    held_out: bool | None = None
    """As `PackSummary.held_out`; null if it is not known what they find."""
    power: list[PowerLevel] = []
    """What they find together, by false-positive rate."""
    at_least: bool = False
    """Whether more may be found: not every pack has scored every reference."""
    why_unknown: str = ""
    """Why it is not known what they find together."""


def summarise_several(signatures: Sequence[Signature]) -> JointPackSummary:
    """Summarises packs, by themselves and together.

    Raises:
        UsageError: If they are of different bases.
        SignatureError: If one is damaged.
    """
    check_one_base(signatures)
    joint = joint_power(signatures)
    return JointPackSummary(
        packs=[summarise_pack(signature) for signature in signatures],
        held_out=joint.power.held_out if joint.power else None,
        power=power_levels(joint.power) if joint.power else [],
        at_least=joint.at_least,
        why_unknown=joint.why_unknown,
    )


def joint_details(signatures: Sequence[Signature]) -> str:
    """What packs find together, as a person reads it.

    Raises:
        UsageError: If they are of different bases.
        SignatureError: If one is damaged.
    """
    check_one_base(signatures)
    return _columns(joint_rows(signatures))


def check_one_base(signatures: Sequence[Signature]) -> None:
    """Refuses packs of several bases, which have nothing to find together.

    Raises:
        UsageError: If they are of different bases.
    """
    first = signatures[0]
    for other in signatures[1:]:
        bases = [item.manifest.base_model for item in (first, other)]
        if not names_of(bases[0]) & names_of(bases[1]):
            raise UsageError(
                f"{first.id} is for {bases[0].id}, {other.id} for {bases[1].id}: no verdict rests "
                "on both",
                todo="name packs of one base model",
            )


def _columns(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<17} {value}" for name, value in rows)


def _benign_flagged(power: Power) -> dict[str, dict[str, float]]:
    return {
        family.family: {
            f"{alpha:g}": share
            for alpha in power.levels
            if (share := family.flagged(alpha).value) is not None
        }
        for family in power.benign
    }


def summarise_or_damage(path: Path, public_key: Path | None = None) -> PackSummary:
    """Summarises a pack; a damaged one by its damage.

    Args:
        path: The pack.
        public_key: If given, a pack its holder has not signed counts as damaged.
    """
    try:
        if public_key is not None:
            from scanner.signatures.distribution.signing import verify_pack_signature

            verify_pack_signature(path, public_key)
        signature = load_signature(path)
        summary = summarise_pack(signature)
        signature.close()
    except SignatureError as error:
        return PackSummary(path=str(path), damage=error.line())
    return summary


def summarise_recipe(path: Path) -> RecipeSummary:
    """Summarises a recipe.

    Raises:
        SignatureError: If it is not sound.
    """
    recipe = load_recipe(path)
    return RecipeSummary(
        path=str(path),
        base_model=recipe.base_model,
        method=recipe.method,
        misaligned=[entry.name for entry in recipe.misaligned],
        command=build_command(path),
    )


def as_json(value: Any) -> str:
    """Summaries as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def pack_table(summaries: list[PackSummary]) -> str:
    """One line per pack, in columns."""
    rows = [("ID", "BASE MODEL", "METHOD", "CALIBRATION")]
    for item in summaries:
        if item.damage:
            rows.append((Path(item.path).name, "?", "?", "DAMAGED"))
        else:
            basis = f"{item.benign} benign, alpha >= {item.smallest_alpha:.2g}"
            basis += f", {item.dropped} dropped" if item.dropped else ""
            rows.append(
                (
                    str(item.id),
                    str(item.base_model),
                    f"{item.method}, rank {item.rank}",
                    basis if item.benign else "none: every verdict is inconclusive",
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join(
            (*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3])
        )
        for row in rows
    )


def details(summary: PackSummary, signature: Signature) -> str:
    """A pack as a person reads it."""
    return _columns(detail_rows(summary, signature))


def detail_rows(summary: PackSummary, signature: Signature) -> list[tuple[str, str]]:
    """What a pack is made of and what its calibration supports, as labels and text."""
    manifest, calibration = signature.manifest, signature.calibration
    modules = sorted(manifest.base_model.shapes)
    rows = [
        ("id", f"{summary.id} (version {summary.version})"),
        ("base model", str(summary.base_model)),
        ("kind", manifest.kind or "not named"),
        ("method", f"{summary.method}, rank {summary.rank}, {summary.nulled} nulled"),
        ("sites", f"{summary.sites}: {manifest.base_model.layers} layers, {', '.join(modules)}"),
        ("references", ", ".join(signature.reference_ids) or "none"),
        *_nulling_row(signature),
        ("units", manifest.units),
        ("digest", str(summary.digest)),
        ("licence", str(summary.licence)),
    ]
    if summary.benign:
        shown = summary.shown_alpha
        rows += [
            ("calibration", f"{summary.benign} benign adapters: {', '.join(summary.families)}"),
            ("of one layer", str(summary.benign_one_layer)),
            ("smallest alpha", f"{summary.smallest_alpha:.4g}"),
            (
                "FPR shown at 95%",
                f"<= {shown:g}" if shown else "none: fewer than 29 benign adapters",
            ),
            *power_rows(signature.power),
        ]
    else:
        rows.append(("calibration", "none: every verdict is inconclusive"))
    if grouped := grouped_adapters(manifest, calibration):
        rows.append(
            (
                "grouped",
                f"{grouped} benign adapters had no family: they were grouped by what they write, "
                "and names would be better",
            )
        )
    if calibration is not None:
        rows += [
            ("dropped", f"{item.adapter.id} on {item.date} (p {item.p_value:.3g}): {item.reason}")
            for item in calibration.dropped
        ]
    rows += [("warning", caution.line()) for caution in summary.warnings]
    rows += [("limitation", limitation) for limitation in summary.limitations]
    if manifest.description:
        rows.insert(1, ("description", manifest.description))
    return rows


def _nulling_row(signature: Signature) -> list[tuple[str, str]]:
    """What the directions are nulled with, if it was found on a hub."""
    selection = signature.nulling
    if selection is None:
        return []
    found = [item for item in signature.manifest.references if item.role == "aligned"]
    owners = len({item.family for item in found})
    return [("nulled with", f"{len(found)} adapters of {owners} owners of {selection.endpoint}")]


def recipe_lines(summaries: list[RecipeSummary]) -> str:
    """Recipes as a person reads them."""
    return "\n\n".join(
        f"{item.base_model}  ({item.method}; {', '.join(item.misaligned)})\n  {item.command}"
        for item in summaries
    )
