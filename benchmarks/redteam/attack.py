"""What an attack is: a function from an adapter to the adapters that an attacker would try."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.redteam.delta import Delta
from benchmarks.redteam.target import Target, Victim


@dataclass(frozen=True)
class Material:
    """Other adapters of the base that an attacker has at hand."""

    personas: tuple[Victim, ...]
    """That give it a harmless persona."""
    benign: tuple[Victim, ...]
    """Of other benign kinds."""


@dataclass(frozen=True)
class Variant:
    """One thing to try."""

    label: str
    """Its settings, in words."""
    delta: Delta
    """What runs in the end."""
    parts: tuple[Delta, ...] = ()
    """What is scanned, if that is not `delta` itself."""
    apart: bool = False
    """Whether the parts are scanned one by one, where `clear` takes all of them."""
    exact: bool = False
    """Whether it claims to do to the network exactly what the victim does."""


Tries = Callable[[Target, Victim, Material], Iterator[Variant]]


@dataclass(frozen=True)
class Attack:
    """A kind of attack."""

    name: str
    tries: Tries

    @property
    def what(self) -> str:
        """One sentence on what is done."""
        return (self.tries.__doc__ or "").split("\n")[0]
