"""`scanner.scanning.settings.Settings` -> click flags, and flags over the configuration file."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import click
import msgspec

from scanner.cli import completing
from scanner.scanning.settings import About, Settings, about_settings

if TYPE_CHECKING:
    from scanner.scanning.trust import InForce

_COMPLETED = {
    "FILE": completing.paths,
    "PACK": completing.packs,
    "ID": completing.bases,
    "GLOB": completing.paths,
}
"""What a flag's value stands for -> what a shell offers for it."""

Function = TypeVar("Function", bound=Callable[..., Any])


def settings_flags(*, without: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Decorates a command with a flag for every setting, and `--config`.

    Args:
        without: Settings the command has no use for.
    """

    def decorate(function: Function) -> Function:
        flags = [_flag(name, about, kind) for name, about, kind in _declared()]
        flags.append(
            click.option(
                "--config",
                type=click.Path(exists=True, path_type=Path),
                help="Configuration file, or a folder to look for it from.  [default: the nearest "
                ".adapter-scanner.yaml or pyproject.toml with a [tool.adapter-scanner]]",
            )
        )
        flags.append(
            click.option(
                "--isolated",
                is_flag=True,
                help="Read no configuration file, no baseline and no cache: flags and defaults "
                "alone decide. Packs are those installed, or named with -s.",
            )
        )
        flags.append(
            click.option(
                "--untrusted",
                multiple=True,
                type=click.Path(exists=True, file_okay=False, path_type=Path),
                metavar="DIR",
                help="Believe nothing below this folder either (repeatable). Configuration, "
                "packs, baselines and caches below a target are never used.",
            )
        )
        names = [name for name, _, _ in _declared()] + ["config", "isolated", "untrusted"]
        for name, flag in reversed(list(zip(names, flags, strict=True))):
            if name not in without:
                function = flag(function)
        return function

    return decorate


def resolve_settings(
    config: Path | None,
    flags: Mapping[str, Any],
    targets: Iterable[str | Path] = (),
    *,
    unused: Iterable[str] = (),
) -> InForce:
    """Flags over file over defaults; what is not believed is said on standard error.

    Args:
        config: What `--config` names; the nearest file if None.
        flags: Every flag of `settings_flags` by name; None or () where it was not given.
        targets: What is scanned: nothing that lies there is believed.
        unused: Settings that mean nothing to the command.

    Raises:
        UsageError: If the configuration is at fault, or lies in what is scanned.
    """
    from scanner.scanning.trust import ScannedTrees, settings_in_force

    given = {name: value for name, value in flags.items() if value not in (None, ())}
    isolated = bool(given.pop("isolated", False))
    trees = ScannedTrees.of(targets, given.pop("untrusted", ()))
    for name in ("signature", "exclude"):
        if name in given:
            given[name] = list(given[name])
    in_force = settings_in_force(config, given, trees, isolated=isolated, unused=unused)
    for line in in_force.passed_over:
        click.echo(f"adapter-scanner: {line}", err=True)
    return in_force


def _declared() -> list[tuple[str, About, Any]]:
    """Name, description and type of every setting."""
    hints = get_type_hints(Settings, include_extras=True)
    return [(name, about, hints[name].__origin__) for name, about in about_settings().items()]


def _flag(name: str, about: About, kind: Any) -> Callable[[Function], Function]:
    """One click option; not given, its value is None or (), so that a file can speak."""
    long = f"--{name.replace('_', '-')}"
    kind, bounds = _plain(kind)
    default = getattr(Settings(), name)
    if kind is bool:
        suffix = "  [default]" if default else ""
        return click.option(f"{long}/--no-{long[2:]}", name, default=None, help=about.help + suffix)
    parameters: dict[str, Any] = {"help": about.help, "metavar": about.metavar, "default": None}
    if (complete := _COMPLETED.get(about.metavar or "")) is not None:
        parameters["shell_complete"] = complete
    if get_origin(kind) is Literal:
        parameters["type"] = click.Choice(get_args(kind))
        parameters["help"] += f"  [default: {default}]"
    elif get_origin(kind) is list:
        parameters["multiple"] = True
    elif kind is int and bounds:
        parameters["type"] = click.IntRange(_whole(bounds.ge), _whole(bounds.le))
        parameters["metavar"] = "N"
    elif kind is float and bounds:
        parameters["type"] = click.FloatRange(bounds.gt, bounds.lt, min_open=True, max_open=True)
    return click.option(*([about.short] if about.short else []), long, name, **parameters)


def _whole(bound: float | None) -> int | None:
    return None if bound is None else int(bound)


def _plain(kind: Any) -> tuple[Any, msgspec.Meta | None]:
    """A type without None, and the bounds it is annotated with."""
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(item for item in get_args(kind) if item is not type(None))
    if get_origin(kind) is Annotated:
        bounds = next(note for note in kind.__metadata__ if isinstance(note, msgspec.Meta))
        return kind.__origin__, bounds
    return kind, None
