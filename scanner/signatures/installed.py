"""Packs that are at hand without being named: those that ship, and those pulled or built."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from scanner.formats.base_identity import normalise_base_name
from scanner.signatures.pack import Signature, pack_names, read_signature
from scanner.signatures.recipe import load_recipe

SIGNATURES_VARIABLE = "ADAPTER_SCANNER_SIGNATURES"
"""Environment variable: more directories of packs, separated as in PATH."""


def shipped_root() -> Path:
    """The directory of packs and recipes that ship with the package."""
    package = Path(__file__).resolve().parent.parent
    inside_wheel = package / "data" / "signatures"
    return inside_wheel if inside_wheel.is_dir() else package.parent / "signatures"


def user_root() -> Path:
    """Where a user's own packs live: ``$XDG_DATA_HOME/adapter-scanner/signatures``."""
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "adapter-scanner" / "signatures"


def search_path() -> list[Path]:
    """Every directory that is searched for packs, in order."""
    extra = os.environ.get(SIGNATURES_VARIABLE, "")
    named = [Path(item) for item in extra.split(os.pathsep) if item]
    return [*named, user_root(), shipped_root()]


def installed_packs() -> list[Path]:
    """Directories of all installed packs."""
    return [pack for root in search_path() if root.is_dir() for pack in pack_names(root)]


def find_pack(name: str) -> Path:
    """The pack a user means: a directory, or the directory name of an installed pack."""
    if not Path(name).is_dir() and os.sep not in name:
        for pack in installed_packs():
            if pack.name == name:
                return pack
    return Path(name)


def installed_signatures() -> list[Signature]:
    """All installed packs; the files of one are verified when it is first used.

    Raises:
        SignatureError: If a manifest is damaged: which base the pack is for is then unknown,
            and a scan that silently used fewer packs than are installed would miss what
            they find.
    """
    return [read_signature(pack) for pack in installed_packs()]


def shipped_recipes() -> list[Path]:
    """The recipes that ship, for packs that cannot."""
    return sorted((shipped_root() / "recipes").glob("*.yaml"))


def recipe_for(base_name: str) -> Path | None:
    """The shipped recipe for a base model, by its normalised name."""
    for path in shipped_recipes():
        recipe = load_recipe(path)
        names = {normalise_base_name(name) for name in (recipe.base_model, *recipe.aliases)}
        if base_name in names:
            return path
    return None


def build_command(recipe: Path) -> str:
    """The command that builds a recipe's pack to where scans find it."""
    output = user_root() / recipe.stem
    return f"adapter-scanner signatures build {_quoted(recipe)} -o {_quoted(output)}"


def _quoted(path: Path) -> str:
    home, text = str(Path.home()), str(path)
    if text.startswith(home + os.sep) and shlex.quote(text) == text:
        return "~" + text[len(home) :]
    return shlex.quote(text)
