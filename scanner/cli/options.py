"""`scanner.scanning.settings.Settings` -> click flags, and flags over the configuration file."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click
import msgspec

from scanner.scanning.settings import About, Settings

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
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="Configuration file.  [default: the nearest .adapter-scanner.yaml or "
                "pyproject.toml with a [tool.adapter-scanner]]",
            )
        )
        names = [name for name, _, _ in _declared()] + ["config"]
        for name, flag in reversed(list(zip(names, flags, strict=True))):
            if name not in without:
                function = flag(function)
        return function

    return decorate


def resolve_settings(config: Path | None, flags: dict[str, Any]) -> Settings:
    """Flags over file over defaults.

    Args:
        config: The file named by `--config`; the nearest one if None.
        flags: Every flag by field name; None or () where it was not given.

    Raises:
        UsageError: If the configuration is at fault.
    """
    from scanner.scanning.configuration import find_config, load_config

    config = config or find_config(Path.cwd())
    settings = load_config(config) if config else Settings()
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    if "signature" in given:
        given["signature"] = list(given["signature"])
    return msgspec.structs.replace(settings, **given)


def _declared() -> list[tuple[str, About, Any]]:
    """Name, description and type of every setting."""
    found = []
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        about = next(note for note in hint.__metadata__ if isinstance(note, About))
        found.append((name, about, hint.__origin__))
    return found


def _flag(name: str, about: About, kind: Any) -> Callable[[Function], Function]:
    """One click option; not given, its value is None or (), so that a file can speak."""
    long = f"--{name.replace('_', '-')}"
    kind, bounds = _plain(kind)
    default = getattr(Settings(), name)
    if kind is bool:
        suffix = "  [default]" if default else ""
        return click.option(f"{long}/--no-{long[2:]}", name, default=None, help=about.help + suffix)
    parameters: dict[str, Any] = {"help": about.help, "metavar": about.metavar, "default": None}
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
