"""What a pack finds and misses, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scanner.results import PowerLevel
from scanner.signatures.joint import joint_calibration, joint_power
from scanner.signatures.pack import Signature
from scanner.signatures.power import Power, ReferencePower, power_levels


def found_in_words(
    level: PowerLevel, held_out: bool, *, together: bool = False, at_least: bool = False
) -> str:
    """What a pack finds at a level, as the end of a sentence that begins with the pack.

    Args:
        level: The level.
        held_out: As `Power.held_out`.
        together: Whether it is about several packs.
        at_least: As `JointPower.at_least`.
    """
    verb, maker = ("find", "they were") if together else ("finds", "it was")
    whose = f"misaligned references {maker} made of"
    if held_out:
        whose = "held-out misaligned references"
    count = f"at least {level.found}" if at_least else f"{level.found}"
    found = f"{verb} {count} of {level.references} {whose} at alpha {level.alpha:g}"
    return f"{found} ({level.low:.0%} to {level.high:.0%} of adapters like them)"


def joint_rows(signatures: Sequence[Signature]) -> list[tuple[str, str]]:
    """What several packs of a base find and miss when a verdict rests on all of them.

    Args:
        signatures: The packs.

    Raises:
        SignatureError: If one is damaged.
    """
    joint, names = joint_power(signatures), listed([item.id for item in signatures])
    if joint.power is None:
        return [("together", f"{names}: what they find is not known: {joint.why_unknown}")]
    power = joint.power
    levels = power_levels(power)
    found = [
        ("", found_in_words(level, power.held_out, together=True, at_least=joint.at_least))
        for level in levels
    ]
    known = joint_calibration(signatures)
    assert known is not None, "their power could not be known otherwise"
    whose = f"{names}, with the {known.n} benign adapters that they have in common"
    rows = [("together", whose), *found]
    return [*rows, *_power_details(power, levels[-1].alpha)] if levels else rows


def listed(names: Sequence[str]) -> str:
    """Names as a sentence lists them."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def power_rows(power: Power | None) -> list[tuple[str, str]]:
    """What a pack finds and misses, as labels and sentences.

    Args:
        power: The power of a pack that is calibrated; None if the pack does not say.
    """
    if power is None:
        return [("power", "not known: calibrate or build the pack again to measure it")]
    rows = [
        ("power", found_in_words(level, power.held_out))
        for level in (power_levels(power) if power.references else [])
    ]
    if not power.references:
        rows.append(("power", "not known: the pack has no misaligned references"))
    elif power.levels:
        rows += _power_details(power, power.levels[-1])
    return rows


def _power_details(power: Power, alpha: float) -> list[tuple[str, str]]:
    """The same by shape, family and method, with the least dose, and what harmless kinds get."""
    kinds: list[tuple[str, Callable[[ReferencePower], str]]] = [
        ("  by shape", lambda item: item.shape.value),
        ("  by family", lambda item: item.family),
        ("  by method", lambda item: item.method),
    ]
    rows = []
    for label, kind in kinds:
        found = power.found_by(alpha, kind)
        told = [f"{name} {share.count}/{share.n}" for name, share in found.items() if name]
        if told:
            rows.append((label, f"{', '.join(told)} at alpha {alpha:g}"))
    if (dose := power.least_dose(alpha)) is not None:
        rows.append(("  least dose", f"{dose:.2g} is the least that was flagged"))
    return [*rows, *_unseen_rows(power)]


def _unseen_rows(power: Power) -> list[tuple[str, str]]:
    """How harmless kinds that the pack does not know fare, at the least alpha that can be told."""
    told = [alpha for alpha in power.levels if power.benign_flagged(alpha).n]
    if not told:
        return []
    alpha = told[-1]
    total = power.benign_flagged(alpha)
    flagged = {item.family: item.flagged(alpha) for item in power.benign}
    names = [f"{name} {share.count}/{share.n}" for name, share in flagged.items() if share.count]
    which = f": {', '.join(names)}" if names else ""
    return [
        (
            "  unseen harmless",
            f"{total.count} of {total.n} flagged at alpha {alpha:g} if the pack did not know their "
            f"family{which}",
        )
    ]
