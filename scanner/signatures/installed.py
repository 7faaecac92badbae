"""Packs that are at hand without being named: those that ship, and those pulled or built."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

from scanner.errors import SignatureError
from scanner.formats.base_identity import normalise_base_name
from scanner.signatures.pack import Signature, pack_names, read_signature
from scanner.system.folders import more_pack_folders, packs_folder
from scanner.system.spelling import nearest


def shipped_root() -> Path:
    """The directory of packs and recipes that ship with the package."""
    package = Path(__file__).resolve().parent.parent
    inside_wheel = package / "data" / "signatures"
    return inside_wheel if inside_wheel.is_dir() else package.parent / "signatures"


def search_path() -> list[Path]:
    """Every directory that is searched for packs, in order."""
    return [*more_pack_folders(), packs_folder(), shipped_root()]


def installed_packs() -> list[Path]:
    """Directories of all installed packs."""
    return [pack for root in search_path() if root.is_dir() for pack in pack_names(root)]


def find_pack(name: str) -> Path:
    """The pack a user means: a directory, or the directory name of an installed pack.

    Raises:
        SignatureError: If there is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    installed = {pack.name: pack for pack in installed_packs()}
    if name in installed:
        return installed[name]
    near = nearest(name, installed)
    known = ", ".join(near or installed) or "none"
    raise SignatureError(
        "no such directory, and no pack of this name is installed",
        where=name,
        todo=f"{'nearest' if near else 'installed'}: {known}",
    )


def installed_signatures(
    left_out: Callable[[SignatureError], None] | None = None,
) -> list[Signature]:
    """All installed packs that this version can use; the files of one are verified when it is used.

    Args:
        left_out: Is told of each pack that cannot be used, because its manifest is damaged or it
            is of another format; a Python warning if not given. Never silently: a scan with fewer
            packs misses what the others find.
    """
    found = []
    for pack in installed_packs():
        try:
            found.append(read_signature(pack))
        except SignatureError as error:
            (left_out or _warn)(error)
    return found


def _warn(error: SignatureError) -> None:
    import warnings

    warnings.warn(f"pack left out: {error.line()}", stacklevel=3)


def shipped_recipes() -> list[Path]:
    """The recipes that ship, for packs that cannot."""
    return sorted((shipped_root() / "recipes").glob("*.yaml"))


def recipe_for(base_name: str) -> Path | None:
    """The shipped recipe for a base model, by its normalised name."""
    from scanner.signatures.recipe_file import load_recipe  # not for scans that have a pack

    for path in shipped_recipes():
        recipe = load_recipe(path)
        names = {normalise_base_name(name) for name in (recipe.base_model, *recipe.aliases)}
        if base_name in names:
            return path
    return None


def find_recipe(name: str) -> Path:
    """The recipe a user means: a file, or one that ships, by its name or its base model's.

    Raises:
        SignatureError: If there is none; it names those that ship.
    """
    if Path(name).exists():
        return Path(name)
    shipped = {path.stem: path for path in shipped_recipes()}
    if found := shipped.get(name.lower()) or recipe_for(normalise_base_name(name) or ""):
        return found
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)  # a file that is not there, and reading it says so
    raise SignatureError(
        "no such file, and no recipe of this name ships",
        where=name,
        todo=f"name a file, or one of {', '.join(shipped)}",
    )


def build_command(recipe: Path) -> str:
    """The command that builds a shipped recipe's pack to where scans find it."""
    output = packs_folder() / recipe.stem
    return f"adapter-scanner signatures build {recipe.stem} -o {_quoted(output)}"


def make_command(base_model: str) -> str:
    """The command that makes packs of a base model, and what it costs, for a sentence."""
    command = f"adapter-scanner signatures make {shlex.quote(base_model)} -o PACK"
    return f"{command} --organisms standard makes one (in hours; with --benign DIR in minutes)"


def _quoted(path: Path) -> str:
    home, text = str(Path.home()), str(path)
    if text.startswith(home + os.sep) and shlex.quote(text) == text:
        return "~" + text[len(home) :]
    return shlex.quote(text)
