"""Nothing inside what is scanned says how it is scanned.

Whoever writes an adapter also writes what lies around it: a configuration that asks for a tiny
alpha, a baseline that accepts the adapter, a pack that finds nothing, a cache with a forged
result. What is found below a target is therefore not used, and what is named there is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scanner.errors import UsageError
from scanner.hub.address import is_address
from scanner.results import Configuration
from scanner.scanning.configuration import find_config, load_config
from scanner.scanning.settings import Settings, looser_settings
from scanner.signatures.installed import find_pack
from scanner.signatures.manifest import MANIFEST_NAME

_REMEDY = "keep it outside of what is scanned, or scan a narrower target"


@dataclass(frozen=True)
class ScannedTrees:
    """The folders whose content came with what is scanned."""

    folders: tuple[Path, ...] = ()
    """Targets that are folders: everything below them."""
    beside: tuple[Path, ...] = ()
    """Folders of targets that are files: what lies directly in them, beside the file."""

    @classmethod
    def of(cls, targets: Iterable[str | Path], untrusted: Iterable[Path] = ()) -> ScannedTrees:
        """The trees of a run.

        Args:
            targets: Paths and addresses; an address has no tree on this machine.
            untrusted: More folders that are not to be believed.
        """
        local = [Path(item) for item in targets if not (isinstance(item, str) and is_address(item))]
        folders = [*(path for path in local if not path.is_file()), *untrusted]
        files = [path for path in local if path.is_file()]
        return cls(
            tuple(place for path in folders for place in _places(path)),
            tuple(place for path in files for place in _places(path.parent)),
        )

    def hold(self, path: Path) -> bool:
        """Whether a path lies in one of them, by its name or by what its links lead to."""
        places = _places(path)
        if any(place.parent in self.beside for place in places):
            return True
        return any(place.is_relative_to(root) for place in places for root in self.folders)

    def refuse(self, path: Path, *, where: str = "") -> None:
        """Refuses a file that the run was told to use.

        Raises:
            UsageError: If it lies in one of them.
        """
        if self.hold(path):
            raise UsageError(
                f"{path} lies in what is scanned, so it is not believed", where=where, todo=_REMEDY
            )


def _places(path: Path) -> tuple[Path, Path]:
    """A path as it is written and as its links resolve; either may lead into a tree."""
    return Path(os.path.abspath(path)), Path(os.path.realpath(path))


@dataclass(frozen=True)
class InForce:
    """How a run is to be done, and where that was said."""

    settings: Settings
    configuration: Configuration
    """What every report says about it."""
    trees: ScannedTrees
    """What is scanned."""
    passed_over: tuple[str, ...] = ()
    """What was found in a scanned tree and is not used, a line each."""


def settings_in_force(
    named: Path | None,
    given: Mapping[str, Any],
    trees: ScannedTrees,
    *,
    isolated: bool = False,
    unused: Iterable[str] = (),
) -> InForce:
    """Flags over configuration file over defaults, none of them out of a scanned tree.

    Args:
        named: The configuration file, or a folder to look for it from; None for the working
            directory.
        given: The settings given by flags, by field name.
        trees: What is scanned.
        isolated: Read no configuration file, no baseline and no cache.
        unused: Settings that mean nothing to the command.

    Raises:
        UsageError: If the configuration is at fault, or a file that is to be used lies in one of
            the trees.
    """
    file: Path | None = None
    passed_over: list[Path] = []
    if isolated:
        _refuse_beside_isolated(named, given)
    else:
        file, passed_over = _config_file(named, trees)
    settings = load_config(file) if file else Settings()
    if isolated:
        settings = msgspec.structs.replace(settings, cache=False)
    settings = msgspec.structs.replace(settings, **given)
    if settings.baseline is not None and "baseline" not in unused:
        trees.refuse(Path(settings.baseline), where="--baseline")
    for pack in settings.signature:
        trees.refuse(find_pack(pack) / MANIFEST_NAME, where="--signature")
    in_force = str(file) if file else "the defaults"
    return InForce(
        settings,
        Configuration(
            file=str(file) if file else None, looser=looser_settings(settings, unused=unused)
        ),
        trees,
        tuple(
            f"{path}: lies in what is scanned, so it is not read; in force: {in_force}"
            for path in passed_over
        ),
    )


def _config_file(named: Path | None, trees: ScannedTrees) -> tuple[Path | None, list[Path]]:
    """The configuration file to read, and those that were passed over."""
    if named is not None and not named.is_dir():
        trees.refuse(named, where="--config")
        return named, []
    passed_over: list[Path] = []
    file = find_config(named or Path.cwd(), trees.hold, passed_over.append)
    return file, passed_over


def _refuse_beside_isolated(named: Path | None, given: Mapping[str, Any]) -> None:
    asked = {"--config": named, "--baseline": given.get("baseline"), "--cache": given.get("cache")}
    for flag, value in asked.items():
        if value:
            raise UsageError("--isolated reads none", where=flag, todo="leave one of them out")
