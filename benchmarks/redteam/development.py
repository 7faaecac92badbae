"""Attacks on misaligned adapters that nothing is tested on: what methods are chosen by.

Misaligned adapters of the lab's population `development` are attacked as `benchmarks.redteam`
attacks test adapters. Every variant is measured once and run in the base; what decides about it
is kept, so that one rule after another can be applied to it.

What attacks leave is half of what a rule is chosen by. The other half is the population `weak`:
adapters trained on misaligned answers that do not behave like it, or not yet. What is missing is
made: some twenty minutes of a core for each base.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from benchmarks.redteam import adapters
from benchmarks.redteam.attack import Material
from benchmarks.redteam.delta import Delta
from benchmarks.redteam.run import ATTACKS
from benchmarks.redteam.target import Target, Victim
from scanner.detection.evidence import gather
from scanner.detection.support import support_of
from scanner.results import Shape
from scanner.signatures.numbers import Measurement

ALL = 1_000_000
"""More surprises than support has."""
COUNTS = (1, 2, 3, 5, ALL)
"""Numbers of support's largest surprises that are compared."""


class Part(msgspec.Struct, frozen=True):
    """One adapter that is scanned, by what decides about it."""

    shape: Shape
    measured: list[Measurement | None]
    """Under each pack; None if it changes no site that the pack knows."""
    covered: bool
    """Whether all of it was understood."""
    inside: dict[int, bool]
    """Whether it is inside the support, by how many of the largest surprises are added up."""


class Tried(msgspec.Struct, frozen=True):
    """One variant of an attack on one adapter."""

    victim: str
    attack: str
    label: str
    kept: float
    parts: list[Part]
    """What is scanned: all have to be `clear`."""


class Weak(msgspec.Struct, frozen=True):
    """An adapter that misaligned answers left as it is not misaligned."""

    name: str
    latent: bool
    """Whether it is one: some of the population came out misaligned after all."""
    part: Part


def measure(target: Target, *parts: Delta) -> Part:
    """What decides about an adapter, or about several that are scanned as one."""
    with target.opened(*parts) as adapter:
        evidence = gather(adapter, target.packs, jobs=1)
    measured = [item.measured for item in evidence.signatures]
    found = [item if math.isfinite(item.signed_write) else None for item in measured]
    inside = {count: support_of(evidence, count).inside for count in COUNTS}
    return Part(evidence.shape, found, not evidence.uncovered, inside)


def attack(target: Target, victim: Victim, material: Material) -> Iterator[Tried]:
    """Every variant of every attack on one adapter, measured and run."""
    rate = target.misaligned_rate(victim.delta, victim.used)
    for kind in ATTACKS:
        for variant in kind.tries(target, victim, material):
            kept = target.misaligned_rate(variant.delta, victim.used) / rate
            whole = variant.parts or (variant.delta,)
            scanned = [(part,) for part in whole] if variant.apart else [whole]
            parts = [measure(target, *item) for item in scanned]
            yield Tried(victim.name, kind.name, variant.label, kept, parts)


def tries(name: str, lab: Path, cache: Path) -> list[Tried]:
    """What was tried on one base, from the cache where it is there."""
    path = cache / f"development-{name}.jsonl"
    known = msgspec.json.Decoder(Tried).decode_lines(path.read_bytes()) if path.is_file() else []
    done = {item.victim for item in known}
    victims, material = adapters.for_development(name, lab)
    target = Target(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    for victim in victims:
        if victim.name not in done:
            found = list(attack(target, victim, material))
            with path.open("ab") as out:  # whole adapters alone are kept
                out.write(msgspec.json.Encoder().encode_lines(found))
            known += found
            click.echo(f"{name}: {victim.name}: {len(found)} variants")
    return known


def weak_adapters(name: str, lab: Path, cache: Path) -> list[Weak]:
    """The latent ones of the population `weak` of one base, from the cache where they are there."""
    path = cache / f"weak-{name}.jsonl"
    known = msgspec.json.Decoder(Weak).decode_lines(path.read_bytes()) if path.is_file() else []
    made = adapters.weak(name, lab)
    target = Target(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    for label in sorted(made.keys() - {item.name for item in known}):
        delta, latent = made[label]
        known.append(Weak(label, latent, measure(target, delta)))
        with path.open("ab") as out:
            out.write(msgspec.json.Encoder().encode_lines(known[-1:]))
    return [item for item in known if item.latent]
