"""What a shell is offered for an argument: paths, packs, base models, recipes.

A path is left to the shell itself (`type="file"`): it knows about blanks, `~` and folders.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

Items = list[CompletionItem]


def paths(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:  # noqa: ARG001
    """Files and folders."""
    return [CompletionItem(incomplete, type="file")]


def packs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Names of installed packs, and folders."""
    from scanner.signatures.installed import installed_packs

    names = sorted({pack.name for pack in installed_packs()})
    return [*paths(ctx, parameter, incomplete), *_starting(names, incomplete)]


def bases(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:  # noqa: ARG001
    """Base models that an installed pack is for."""
    from scanner.signatures.installed import installed_signatures

    # What is wrong with a pack is said when it is used; here it would land in the line being typed.
    found = installed_signatures(lambda _: None)
    return _starting(sorted({item.manifest.base_model.id for item in found}), incomplete)


def recipes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Names of recipes that ship, and files."""
    from scanner.signatures.installed import shipped_recipes

    names = [path.stem for path in shipped_recipes()]
    return [*paths(ctx, parameter, incomplete), *_starting(names, incomplete)]


def _starting(names: list[str], incomplete: str) -> Items:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
